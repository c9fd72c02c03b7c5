"""From declared traffic to the profiles that generators read: frames crafted, targets numbered."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from kproxy.errors import UsageError
from kproxy.traffic import crafted, frames, profile
from kproxy.traffic.declared import Kind, SourcePorts, Traffic

FRESH_PORTS = (1024, 60_000)
"""The lowest source port of packets that have one each, and how many come before it again."""


def udp(
    wanted: Traffic,
    sender: frames.Sender,
    *,
    interface: str,
    record: Path,
    seconds: float | None,
    trial: int = 1,
    first_flow: int = 0,
) -> profile.UdpProfile:
    """Return the profile of packets (kinds ``udp`` and ``packet``).

    Raises UsageError if the sender has no address of the family, or a packet is wrong.
    """
    flows = _flows(wanted, sender, first_flow)
    capacity = 1 << 20 if seconds is None else int(wanted.rate * seconds) + 1000
    return profile.UdpProfile(
        interface=interface,
        rate_pps=wanted.rate,
        flows=flows,
        record=record,
        trial=trial,
        duration_s=seconds,
        capacity=capacity,
        distribution=wanted.distribution,
        seed=wanted.seed,
        fresh_ports=FRESH_PORTS if wanted.source_ports is SourcePorts.FRESH else None,
    )


def _flows(wanted: Traffic, sender: frames.Sender, first: int) -> tuple[profile.UdpFlow, ...]:
    if wanted.kind is Kind.PACKET:
        packet = crafted.parse(wanted.packet, "packet")
        return frames.crafted(packet, sender, flows=wanted.flows, first_flow=first)
    to, port = _target(wanted)
    return frames.probes(
        flows=wanted.flows,
        first_flow=first,
        source_mac=sender.source_mac,
        gateway_mac=sender.gateway_mac,
        source=_source(sender, to),
        destination=to,
        destination_port=port,
        payload_bytes=wanted.payload_bytes,
    )


def tcp(
    wanted: Sequence[Traffic], *, record: Path, seconds: float | None, trial: int = 1
) -> profile.TcpProfile:
    """Return the profile of connections; target numbers are places in ``wanted``."""
    kept: list[profile.Established] = []
    fresh: list[profile.Connects] = []
    for number, one in enumerate(wanted):
        if one.kind.protocol is None:
            raise ValueError(f"{one.kind} has no connections")
        to, port = _target(one)
        if one.kind in (Kind.TCP_CONNECTIONS, Kind.SCTP_CONNECTIONS):
            fresh.append(
                profile.Connects(
                    target=number,
                    address=str(to),
                    port=port,
                    rate_per_s=one.rate,
                    protocol=one.kind.protocol,
                )
            )
            continue
        bulk = one.kind in (Kind.TCP_BULK, Kind.SCTP_BULK)
        kept.append(
            profile.Established(
                target=number,
                address=str(to),
                port=port,
                connections=one.connections,
                interval_s=max(0.001, 1 / one.rate),
                protocol=one.kind.protocol,
                bulk_bytes=one.block_bytes if bulk else None,
            )
        )
    return profile.TcpProfile(
        record=record,
        established=tuple(kept),
        connects=tuple(fresh),
        trial=trial,
        duration_s=seconds,
    )


def _target(wanted: Traffic) -> tuple[IPv4Address | IPv6Address, int]:
    if wanted.to is None or wanted.port is None:
        raise UsageError(
            f"{wanted.kind}: to: must be given", remedy="for example to: '10.96.0.10:80'"
        )
    return wanted.to, wanted.port


def _source(sender: frames.Sender, to: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    for address in sender.addresses:
        if address.version == to.version:
            return address
    raise UsageError(f"to: {to}: the interface has no IPv{to.version} address to send from")
