"""What a frame says, as far as one marked packet and its answers are concerned. Pure.

The mark is in what no proxy changes: sixteen bytes at the beginning of a UDP payload, or the
initial sequence number of a TCP connection, which its answer acknowledges. Addresses and ports may
change on the way.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum

from kproxy.kernel.inet import IPAddress, Protocol, unpacked, with_port

TOKEN_BYTES = 16
_ETHERNET = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
_TAGS = (0x8100, 0x88A8)
_ICMP, _ICMPV6 = 1, 58
_EXTENSIONS = {0, 43, 60}
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


class Way(StrEnum):
    """In which direction a packet goes."""

    THERE = "there"
    BACK = "back"


@dataclass(frozen=True, slots=True)
class Flow:
    """Who speaks to whom. Hashable: a flow after translation is another one."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    @property
    def reverse(self) -> "Flow":
        """The flow of answers."""
        return Flow(self.destination, self.destination_port, self.source, self.source_port)

    def __str__(self) -> str:
        source = with_port(self.source, self.source_port)
        return f"{source} → {with_port(self.destination, self.destination_port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet. Of an ICMP error ``quoted`` is what it is about; its own ports are 0."""

    protocol: str
    flow: Flow
    ttl: int
    flags: int = 0
    seq: int = 0
    ack: int = 0
    payload: bytes = b""
    quoted: "Packet | None" = None
    kind: tuple[int, int] = (0, 0)
    """Of ICMP: type and code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What the packet carries: ``token`` in UDP, ``isn`` in TCP."""

    protocol: Protocol
    token: bytes
    isn: int

    def way(self, packet: Packet) -> Way | None:
        """Return in which direction a packet goes that is the marked one or its answer.

        None: it is neither, or an answer over UDP, which carries nothing of what it answers.
        """
        if packet.quoted is not None:
            return Way.BACK if self._is_marked(packet.quoted) else None
        if packet.protocol != self.protocol:
            return None
        if self._is_marked(packet):
            return Way.THERE
        if self.protocol is Protocol.TCP:
            answered = packet.flags & _ACK and packet.ack == (self.isn + 1) & 0xFFFFFFFF
            return Way.BACK if answered and packet.flags & (_SYN | _RST) else None
        return None

    def _is_marked(self, packet: Packet) -> bool:
        if packet.protocol != self.protocol:
            return False
        if self.protocol is Protocol.TCP:
            # Of a packet that is quoted there may be no flags.
            return packet.seq == self.isn and not packet.flags & _ACK
        return packet.payload[:TOKEN_BYTES] == self.token


def is_reset(packet: Packet) -> bool:
    """Return whether it refuses a TCP connection."""
    return packet.protocol == Protocol.TCP and bool(packet.flags & _RST)


def parse(frame: bytes) -> Packet | None:
    """Read an Ethernet frame; None: it holds no IP packet that is looked at."""
    at = _ETHERNET
    if len(frame) < at:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    while kind in _TAGS and len(frame) >= at + 4:
        (kind,) = struct.unpack_from("!H", frame, at + 2)
        at += 4
    return parse_ip(frame[at:]) if kind in (_IPV4, _IPV6) else None


def parse_ip(data: bytes) -> Packet | None:
    """Read an IP packet, perhaps cut; None: its headers are not there."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        length, protocol, ttl = (data[0] & 15) * 4, data[9], data[8]
        source, destination = unpacked(data[12:16]), unpacked(data[16:20])
    elif version == 6 and len(data) >= 40:
        length, protocol, ttl = 40, data[6], data[7]
        source, destination = unpacked(data[8:24]), unpacked(data[24:40])
        while protocol in _EXTENSIONS and len(data) >= length + 8:
            protocol, length = data[length], length + (data[length + 1] + 1) * 8
    else:
        return None
    return _transport(protocol, data[length:], source, destination, ttl)


def _transport(
    protocol: int, data: bytes, source: IPAddress, destination: IPAddress, ttl: int
) -> Packet | None:
    if protocol in (_ICMP, _ICMPV6) and len(data) >= 8:
        quoted = parse_ip(data[8:])
        flow = Flow(source, 0, destination, 0)
        return Packet(protocol="icmp", flow=flow, ttl=ttl, quoted=quoted, kind=(data[0], data[1]))
    if protocol not in (Protocol.TCP.number, Protocol.UDP.number) or len(data) < 8:
        return None
    sport, dport = struct.unpack_from("!HH", data)
    flow = Flow(source, sport, destination, dport)
    if protocol == Protocol.UDP.number:
        return Packet(protocol=Protocol.UDP, flow=flow, ttl=ttl, payload=data[8:])
    seq = int.from_bytes(data[4:8], "big")
    if len(data) < 14:  # quoted by ICMP
        return Packet(protocol=Protocol.TCP, flow=flow, ttl=ttl, seq=seq)
    return Packet(
        protocol=Protocol.TCP,
        flow=flow,
        ttl=ttl,
        flags=data[13],
        seq=seq,
        ack=int.from_bytes(data[8:12], "big"),
    )
