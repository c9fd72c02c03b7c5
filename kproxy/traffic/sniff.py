"""Sees probes of any protocol as they reach an interface: for packets that no socket receives.

A SYN with a probe in it, an ICMP echo, a packet to a port where nobody listens: the kernel gives
them to nobody, but a packet socket sees them. A filter in the kernel lets only probes through.
"""

import ctypes
import socket
import struct

from kproxy.traffic import udp_receive, wire

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_PACKET_OUTGOING = 4
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PACKET_TYPE = 0xFFFFF000 + 4
"""Where a filter finds whether a packet is on its way in or out."""


def open_socket(interface: str, skip: int, *, packets_per_second: float) -> socket.socket:
    """Return a packet socket that sees the incoming probes of an interface.

    Packets begin with their network header; the probe header is ``skip`` bytes behind that.
    Raises OSError, as for an interface that does not exist.
    """
    # Protocol 0 until the filter is there: nothing else gets in meanwhile.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    try:
        attach(sock, program(skip))
        udp_receive.prepare(sock, packets_per_second=packets_per_second)
        sock.bind((interface, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock


def program(skip: int) -> bytes:
    """Return the filter: incoming packets with a probe's magic at that place."""
    magic = int.from_bytes(wire.MAGIC, "big")
    steps = (
        (_LOAD_WORD, 0, 0, _PACKET_TYPE),
        (_JUMP_IF_EQUAL, 3, 0, _PACKET_OUTGOING),
        (_LOAD_WORD, 0, 0, skip),  # beyond the packet's end: not accepted
        (_JUMP_IF_EQUAL, 0, 1, magic),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    )
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def attach(sock: socket.socket, filter_: bytes) -> None:
    """Attach a filter program to a socket."""
    buffer = ctypes.create_string_buffer(filter_, len(filter_))
    number = len(filter_) // _INSTRUCTION.size
    sock.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("@HP", number, ctypes.addressof(buffer)),
    )
