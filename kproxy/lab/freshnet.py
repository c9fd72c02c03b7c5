"""A network namespace of one's own, for a process that measures and then ends.

Nothing is named or mounted, so nothing can be left behind: the namespace goes with the process.
"""

import ctypes
import fcntl
import os
import socket
import struct

from kproxy.errors import UsageError

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_libc = ctypes.CDLL(None, use_errno=True)


def enter_fresh() -> None:
    """Move the calling thread into a new network namespace whose loopback device is up.

    Up, because IPVS refuses every real server where no device is. UsageError: no right to make
    namespaces.
    """
    if _libc.unshare(_CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise UsageError(f"no network namespace can be made: {why}", remedy="run this as root")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def hold() -> int:
    """Return a file descriptor that keeps the calling thread's namespace until the process ends.

    Taking a large one down would disturb what is measured next.
    """
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
