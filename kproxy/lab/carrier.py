"""Whether an interface of this network namespace is up and has a carrier."""

import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFF_RUNNING = 0x40


def is_up(interface: str) -> bool:
    """Ask the kernel (netdevice(7)); an interface that does not exist is not up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", interface.encode(), 0)
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        except OSError:
            return False
    (flags,) = struct.unpack_from("h", answer, 16)
    return bool(flags & _IFF_UP and flags & _IFF_RUNNING)
