"""Frames, written by hand, as the devices of a small cluster would show them."""

import struct
from collections.abc import Sequence
from ipaddress import ip_address

from kproxy.kernel.inet import IPAddress, Protocol
from kproxy.kernel.links.card import Card
from kproxy.trace.facts import Seen
from kproxy.trace.packet import Flow, Mark

TOKEN = b"kpxtrace01234567"
ISN = 0x12345678
UDP = Mark(protocol=Protocol.UDP, token=TOKEN, isn=ISN)
TCP = Mark(protocol=Protocol.TCP, token=TOKEN, isn=ISN)
SYN, RST, ACK = 0x02, 0x04, 0x10


def flow(source: str, source_port: int, destination: str, destination_port: int) -> Flow:
    return Flow(ip_address(source), source_port, ip_address(destination), destination_port)


def udp(way: Flow, payload: bytes = TOKEN) -> bytes:
    ports = struct.pack("!HHHH", way.source_port, way.destination_port, 8 + len(payload), 0)
    return ip(way.source, way.destination, 17, ports + payload)


def tcp(way: Flow, flags: int = SYN, *, seq: int = ISN, ack: int = 0) -> bytes:
    head = struct.pack("!HHIIBB", way.source_port, way.destination_port, seq, ack, 0x50, flags)
    return ip(way.source, way.destination, 6, head.ljust(20, b"\0"))


def unreachable(source: str, destination: str, about: bytes, code: int = 3) -> bytes:
    one = ip_address(source)
    kind, protocol = (3, 1) if one.version == 4 else (1, 58)
    body = struct.pack("!BBHI", kind, code, 0, 0) + about
    return ip(one, ip_address(destination), protocol, body)


def ip(source: IPAddress, destination: IPAddress, protocol: int, body: bytes) -> bytes:
    """Return an IP packet."""
    addresses = source.packed + destination.packed
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + addresses + body
    head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(body), 0, 64, protocol, 0)
    return head + addresses + body


def framed(data: bytes, to_mac: str = "02:00:00:00:00:00") -> bytes:
    """Return the Ethernet frame of an IP packet."""
    kind = b"\x08\x00" if data[0] >> 4 == 4 else b"\x86\xdd"
    return bytes.fromhex(to_mac.replace(":", "")) + bytes(6) + kind + data


class Host:
    """A namespace with devices ``{name: mac}``; collects what it sees in order.

    ``ends``: the index of the other end of those that are veth pairs.
    """

    def __init__(
        self,
        name: str,
        devices: dict[str, str],
        *,
        bridge: Sequence[str] = (),
        ends: dict[str, int] | None = None,
    ) -> None:
        self.name = name
        self.cards = {
            index: Card(
                index=index,
                name=device,
                mac=mac,
                kind="bridge" if device.startswith("br") else "veth",
                loopback=device == "lo",
                master=99 if device in bridge else 0,
                link=(ends or {}).get(device, 0),
            )
            for index, (device, mac) in enumerate(devices.items(), start=1)
        }
        self.seen: list[Seen] = []

    def sees(
        self, device: str, data: bytes, to_mac: str, *, out: bool = False, to_us: bool = True
    ) -> None:
        index = next(i for i, card in self.cards.items() if card.name == device)
        order = len(self.seen)
        self.seen.append(
            Seen(
                place=self.name,
                order=order,
                ns=1000,  # as in virtual time: all at once
                device=index,
                outgoing=out,
                to_us=to_us or out,
                frame=framed(data, to_mac),
            )
        )
