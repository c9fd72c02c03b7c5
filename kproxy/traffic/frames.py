"""Crafts the frames that a generator sends, once, with scapy.

Importing scapy takes a second where page faults are dear, and scapy looks at the interfaces and
routes of the namespace in which it was imported. So the lab crafts the frames in its own process,
names every address itself, and hands the finished bytes to the generator in a profile; the
generator patches sequence number and send time in place.

IPv4 frames carry UDP checksum 0, "no checksum" (RFC 768), so nothing has to be computed per
packet. IPv6 forbids that (RFC 8200, 8.1): there the checksum of the template is right for
sequence number 0 and time 0, and the generator adds what it writes (RFC 1624).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from kproxy.errors import UsageError
from kproxy.traffic import profile, wire

_UDP_HEADER = 8
_CHECKSUM_IN_UDP = 6


def probe(
    *,
    flow: int,
    source_mac: str,
    gateway_mac: str,
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    source_port: int,
    destination_port: int,
    payload_bytes: int = wire.HEADER.size,
    trial: int = 0,
    flags: int = 0,
) -> profile.UdpFlow:
    """Return one flow of probe packets, from the client's interface to the next hop's.

    ``payload_bytes`` counts the probe header of 32 bytes. Raises UsageError if it is smaller
    than that or if the addresses are of two families.
    """
    if payload_bytes < wire.HEADER.size:
        raise UsageError(
            f"payload_bytes: {payload_bytes} is less than the probe header ({wire.HEADER.size})"
        )
    if source.version != destination.version:
        raise UsageError(f"flow {flow}: {source} and {destination} are of different families")
    payload = wire.header(trial, flow, flags=flags).ljust(payload_bytes, b"\0")
    ethernet = Ether(src=source_mac, dst=gateway_mac)
    ports = {"sport": source_port, "dport": destination_port}
    if source.version == 4:
        network = IP(src=str(source), dst=str(destination), flags="DF", id=0, ttl=64)
        frame = bytes(ethernet / network / UDP(chksum=0, **ports) / payload)
        checksum_at = None
    else:
        network = IPv6(src=str(source), dst=str(destination), hlim=64)
        frame = bytes(ethernet / network / UDP(**ports) / payload)
        checksum_at = len(frame) - payload_bytes - _UDP_HEADER + _CHECKSUM_IN_UDP
    return profile.UdpFlow(
        flow=flow, frame=frame, header_at=len(frame) - payload_bytes, checksum_at=checksum_at
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Where crafted packets leave: an interface's and the next hop's address, and our own."""

    source_mac: str
    gateway_mac: str
    addresses: tuple[IPv4Address | IPv6Address, ...]


def crafted(
    packet: Packet, sender: Sender, *, flows: int = 1, first_flow: int = 0
) -> tuple[profile.UdpFlow, ...]:
    """Return flows of a packet that a user wrote (:func:`kproxy.traffic.crafted.parse`).

    Link-layer and source addresses that were not given are those of the sender. A probe header
    goes before the payload of UDP, TCP, ICMP and ICMPv6 echoes, so that who receives can count
    them; other packets are sent as they are. Flows differ in their source port, or in the
    identifier of an echo; one that was given is the first flow's. Raises UsageError for a packet
    without a destination, or for which there is no source address.
    """
    whole = _addressed(packet.copy(), sender)
    top = whole.lastlayer()
    load = b""
    if isinstance(top, Raw):
        load = bytes(top)
        top = top.underlayer
        top.remove_payload()
    marks = _MARKS.get(type(top))
    if marks is None:
        frame = bytes(whole / load) if load else bytes(whole)
        return tuple(
            profile.UdpFlow(flow=first_flow + n, frame=frame, header_at=len(frame))
            for n in range(flows)
        )
    found = []
    first = top.fields.get(marks.port, _FIRST_PORT) or 0
    for number in range(flows):
        setattr(top, marks.port, _port(first, number))
        found.append(_crafted_flow(whole, top, marks, first_flow + number, load))
    return tuple(found)


def _crafted_flow(
    whole: Packet, top: Packet, marks: "_Marks", flow: int, load: bytes
) -> profile.UdpFlow:
    top_at = len(bytes(whole)) - len(bytes(top))
    given = top.fields.get("chksum")
    if given is None and isinstance(top, UDP) and top.underlayer.haslayer(IP):
        top.chksum = given = 0
    frame = bytes(whole / Raw(wire.header(0, flow) + load))
    return profile.UdpFlow(
        flow=flow,
        frame=frame,
        header_at=len(frame) - len(load) - wire.HEADER.size,
        checksum_at=top_at + marks.checksum_at if given is None else None,
        port_at=top_at + marks.port_at,
    )


@dataclass(frozen=True, slots=True)
class _Marks:
    """Of a kind of packet: the field that tells flows apart, its place, that of the checksum."""

    port: str
    port_at: int
    checksum_at: int


_FIRST_PORT = 40000
_LAST_PORT = 0xFFFF
_AGAIN_FROM = 1024


def _port(first: int, number: int) -> int:
    """Return the source port of a flow: one after the other, and after the last from 1024 on."""
    beyond = first + number - _LAST_PORT - 1
    return first + number if beyond < 0 else _AGAIN_FROM + beyond % (_LAST_PORT + 1 - _AGAIN_FROM)


_MARKS: dict[type[Packet], _Marks] = {
    UDP: _Marks("sport", 0, _CHECKSUM_IN_UDP),
    TCP: _Marks("sport", 0, 16),
    ICMP: _Marks("id", 4, 2),
    ICMPv6EchoRequest: _Marks("id", 4, 2),
}


def _addressed(packet: Packet, sender: Sender) -> Packet:
    """Return a packet with the addresses that were not given."""
    if not isinstance(packet, Ether):
        packet = Ether() / packet
    packet.fields.setdefault("src", sender.source_mac)
    packet.fields.setdefault("dst", sender.gateway_mac)
    for layer, version in ((IP, 4), (IPv6, 6)):
        network = packet.getlayer(layer)
        if network is None:
            continue
        if "dst" not in network.fields:
            raise UsageError(
                f"the packet's {layer.__name__} has no destination",
                remedy=f"write {layer.__name__}(dst='…')",
            )
        if "src" not in network.fields:
            own = [one for one in sender.addresses if one.version == version]
            if not own:
                raise UsageError(
                    f"the interface has no IPv{version} address to send the packet from",
                    remedy=f"write {layer.__name__}(src='…')",
                )
            network.src = str(own[0])
    return packet


def probes(
    *,
    flows: int,
    first_flow: int = 0,
    first_port: int = _FIRST_PORT,
    source_mac: str,
    gateway_mac: str,
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    destination_port: int,
    payload_bytes: int = wire.HEADER.size,
) -> tuple[profile.UdpFlow, ...]:
    """Return ``flows`` flows to one service, which differ in their source port."""
    return tuple(
        probe(
            flow=first_flow + number,
            source_mac=source_mac,
            gateway_mac=gateway_mac,
            source=source,
            destination=destination,
            source_port=_port(first_port, number),
            destination_port=destination_port,
            payload_bytes=payload_bytes,
        )
        for number in range(flows)
    )
