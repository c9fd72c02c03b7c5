"""sendmmsg and recvmmsg through ctypes, over arrays that are laid out once and used again.

Python's socket module has neither, and a system call per packet is what limits a sender in a
kernel where each costs 14 microseconds.
"""

import ctypes

libc = ctypes.CDLL(None, use_errno=True)


class IoVec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    """struct mmsghdr: a struct msghdr, and behind it the length that was sent or received."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),  # of the struct msghdr inside
        ("len", ctypes.c_uint32),
    )


HDR_SIZE = ctypes.sizeof(MsgHdr)
MSG_DONTWAIT = 0x40


def address_of(buffer: bytearray) -> int:
    """Return where a bytearray's bytes are. Keep it alive, and never resize it."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def sendmmsg(fd: int, headers: int, number: int) -> int:
    """Send ``number`` messages whose headers begin at that address; never blocks.

    Returns how many were sent, or minus the errno if the first one could not be.
    """
    result = _sendmmsg(fd, headers, number, MSG_DONTWAIT)
    return result if result >= 0 else -ctypes.get_errno()


def recvmmsg(fd: int, headers: int, number: int) -> int:
    """Receive up to ``number`` messages; never blocks. Returns how many, or minus the errno."""
    result = _recvmmsg(fd, headers, number, MSG_DONTWAIT, None)
    return result if result >= 0 else -ctypes.get_errno()


def sendto(fd: int, data: bytes, name: bytes) -> int:
    """Send one datagram to a raw socket address; returns bytes sent or minus the errno."""
    result = int(libc.sendto(fd, data, len(data), MSG_DONTWAIT, name, len(name)))
    return result if result >= 0 else -ctypes.get_errno()


def _function(name: str, *arguments: type) -> "ctypes._NamedFuncPointer":
    function = getattr(libc, name)
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]  # what getattr gives is Any


_sendmmsg = _function("sendmmsg", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
_recvmmsg = _function(
    "recvmmsg", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p
)
