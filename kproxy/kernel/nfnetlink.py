"""What the parts of netfilter share in their netlink messages. Pure."""

import errno
import struct

SUBSYSTEM_CONNTRACK = 1
SUBSYSTEM_IPSET = 6
SUBSYSTEM_NFTABLES = 10

NET_BYTEORDER = 0x4000
"""Flag on the type of an attribute; ipset refuses numbers and addresses without it."""

NO_ANSWER = frozenset({errno.EAGAIN, errno.ETIMEDOUT})
"""Of a dump: the kernel has that part, but what is asked for kept changing, or it was too busy."""

HEADER_SIZE = 4
_HEAD = struct.Struct("=BBH")
_MESSAGE_HEAD = struct.Struct("=IHHIIBBH")


def message_type(subsystem: int, command: int) -> int:
    """Return the type of a message."""
    return subsystem << 8 | command


def header(af: int) -> bytes:
    """Return the header that follows the netlink header."""
    return _HEAD.pack(af, 0, 0)


def message(kind: int, flags: int, sequence: int, af: int, body: bytes) -> bytes:
    """Return a whole message."""
    return _MESSAGE_HEAD.pack(20 + len(body), kind, flags, sequence, 0, af, 0, 0) + body
