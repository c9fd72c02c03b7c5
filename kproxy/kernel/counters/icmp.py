"""ICMP errors that come back to a host: who could not deliver which packet, and why.

A router or host that drops a packet says so to its sender, but not always (the kernel limits how
often) and not of every drop. Each error quotes the packet that it is about, so it tells exactly
which one.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Self

from kproxy.kernel.inet import Family, IPAddress

_FILTER = 1
_SOL_RAW = 255
_ERRORS = {Family.IPV4: (3, 4, 5, 11, 12), Family.IPV6: (1, 2, 3, 4)}
"""Types that quote a packet: unreachable, quench, redirect, time exceeded, parameter problem."""
_PROTOCOL = {Family.IPV4: 1, Family.IPV6: 58}
_QUOTE_AT = 8
_ROOM = 8 << 20
_RCVBUFFORCE = 33
_READ = 4096


class IcmpError(NamedTuple):
    """One error. ``origin``: who sent it. ``quoted``: the packet from its IP header on, cut."""

    origin: IPAddress
    kind: int
    code: int
    quoted: bytes


class IcmpErrors:
    """Collects the ICMP errors that reach the namespace in which it was made.

    OSError without root. The kernel keeps them until they are read; what does not fit into 8 MB
    is lost.
    """

    def __init__(self, family: Family = Family.IPV4) -> None:
        self._family = family
        self._socket = socket.socket(
            family.af, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL[family]
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _ROOM)
            self._select()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop collecting."""
        self._socket.close()

    def read(self) -> list[IcmpError]:
        """Return the errors that came since the last call, without waiting."""
        found: list[IcmpError] = []
        while True:
            try:
                data, origin = self._socket.recvfrom(_READ, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            if self._family is Family.IPV4:
                data = data[(data[0] & 0x0F) * 4 :]  # A raw socket of IPv4 gives the IP header.
            address = origin[0].partition("%")[0]
            if len(data) > _QUOTE_AT:
                version = IPv4Address if self._family is Family.IPV4 else IPv6Address
                found.append(IcmpError(version(address), data[0], data[1], data[_QUOTE_AT:]))

    def _select(self) -> None:
        """Let the kernel keep errors only."""
        if self._family is Family.IPV4:
            mask = ~sum(1 << kind for kind in _ERRORS[self._family]) & 0xFFFFFFFF
            self._socket.setsockopt(_SOL_RAW, _FILTER, struct.pack("=I", mask))
            return
        words = [0xFFFFFFFF] * 8
        for kind in _ERRORS[self._family]:
            words[kind >> 5] &= ~(1 << (kind & 31))
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, struct.pack("=8I", *words))
