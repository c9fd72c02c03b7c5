"""What parts of the kernel tell without being asked: the multicast groups of netlink."""

import errno
import os
import socket
from collections.abc import Iterator

from kproxy.errors import Unsupported
from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer

_SOL_NETLINK, _ADD_MEMBERSHIP, _RCVBUFFORCE = 270, 1, 33
_READ = 1 << 16


class Listener:
    """Hears one group of a netlink protocol, in the namespace in which it is made.

    ``what``: who is heard, in words. ``room``: bytes that may wait to be read. Raises Unsupported
    if the group cannot be joined, which takes root.
    """

    def __init__(self, protocol: int, group: int, room: int, what: str) -> None:
        self._what = what
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, room)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            words = os.strerror(error.errno or 0)
            raise Unsupported(f"{what} cannot be listened to: {words}") from error

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when :meth:`read` has something."""
        return self._socket.fileno()

    def read(self) -> Iterator[tuple[int, Buffer, int, int]]:
        """Yield what was told since the last call, without waiting: message by message.

        Type, buffer, start and end of the payload, which is there until the next one is asked for.
        What had no room is left out. KernelError.
        """
        buffer = bytearray(_READ)
        while True:
            try:
                size = self._socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # Said once; what was told before and after it can be read.
                refusal = netlink.Refusal(error.errno or 0)
                raise netlink.kernel_error(f"read {self._what}", refusal) from error
            at, head = 0, netlink.HEADER.size
            while at + head <= size:
                length, kind, _flags, _sequence, _port = netlink.HEADER.unpack_from(buffer, at)
                yield kind, buffer, at + head, at + length
                at += (max(length, head) + 3) & ~3
