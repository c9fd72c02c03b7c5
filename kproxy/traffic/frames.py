"""Crafts the frames that a generator sends, once, with scapy.

Importing scapy takes a second where page faults are dear, and scapy looks at the interfaces and
routes of the namespace in which it was imported. So the lab crafts the frames in its own process,
names every address itself, and hands the finished bytes to the generator in a profile; the
generator patches sequence number and send time in place.

IPv4 frames carry UDP checksum 0, "no checksum" (RFC 768), so nothing has to be computed per
packet. IPv6 forbids that (RFC 8200, 8.1): there the checksum of the template is right for
sequence number 0 and time 0, and the generator adds what it writes (RFC 1624).
"""

from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

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


def probes(
    *,
    flows: int,
    first_flow: int = 0,
    first_port: int = 40000,
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
            source_port=first_port + number,
            destination_port=destination_port,
            payload_bytes=payload_bytes,
        )
        for number in range(flows)
    )
