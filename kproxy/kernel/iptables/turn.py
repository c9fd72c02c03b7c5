"""One restore at a time, also beyond the death of the proxy that began it.

A proxy that is killed leaves its ``iptables-restore`` running. Its successor must not read the
rules before that has ended: it would compute from what is about to change. So every restore holds
a name in its network namespace, an abstract Unix socket that the program inherits, and whoever
reads waits until nobody holds it. The kernel frees the name with its last holder; nothing is left.
"""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

from kproxy.errors import KernelError

_CREDENTIALS = struct.Struct("3i")


@contextlib.contextmanager
def held(name: str) -> Iterator[tuple[int, ...]]:
    """Hold the name; give what a program must inherit to hold it, too.

    KernelError: somebody else's restore runs, so what was read before is not true any more.
    """
    with _socket(name) as sock:
        try:
            sock.bind(f"\0{name}")
            sock.listen()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise KernelError(name, error.errno or 0, error.strerror or str(error)) from error
            wait(name, 0)
            yield ()  # Somebody who may not change rules sits on the name: do without it.
        else:
            yield (sock.fileno(),)


def wait(name: str, timeout_s: float) -> None:
    """Wait until no restore holds the name. KernelError: one still does."""
    with _socket(name) as sock:
        try:
            sock.settimeout(timeout_s)
            sock.connect(f"\0{name}")
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            if _CREDENTIALS.unpack(credentials)[1] == os.geteuid():
                # Nobody ever accepts or answers: this ends with the last holder.
                sock.recv(1)
        except (ConnectionRefusedError, ConnectionResetError):
            return
        except (BlockingIOError, TimeoutError):
            raise KernelError(name, errno.EBUSY, "another proxy's one still runs") from None
        except OSError as error:
            raise KernelError(name, error.errno or 0, error.strerror or str(error)) from error


def _socket(name: str) -> socket.socket:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:  # too many open files
        raise KernelError(name, error.errno or 0, error.strerror or str(error)) from error
