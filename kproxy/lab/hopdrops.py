"""What the drop monitor saw, as sightings of probes: which packet, where, why. Pure.

Where: a dropped frame still has the MACs with which it was last on a wire. Whoever has the
destination's dropped it after it came; on its way out, its source is the one who sent it.
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from kproxy.kernel.counters.drops import Drop
from kproxy.kernel.counters.icmp import IcmpError
from kproxy.lab.hopscene import IPAddress, Scene
from kproxy.traffic import wire
from kproxy.traffic.attribution import BACK, THERE, Sighting
from kproxy.traffic.resultset import Cause

UDP, TCP = 17, 6
_ETHERNET = 14
_IPV4, _IPV6 = 0x0800, 0x86DD
_IPV6_HEADER = 40
_PORTS = struct.Struct("!HH")

_REASONS = (
    ("NETFILTER_DROP", Cause.RULE),
    ("IP_INNOROUTES", Cause.NO_ROUTE),
    ("IP_OUTNOROUTES", Cause.NO_ROUTE),
    ("IPV6_NDISC", Cause.NO_NEIGHBOUR),
    ("NEIGH_", Cause.NO_NEIGHBOUR),
    ("QUEUE_PURGE", Cause.NO_NEIGHBOUR),
    ("NO_SOCKET", Cause.REFUSED),
    ("TCP_", Cause.REFUSED),
    ("SOCKET_RCVBUFF", Cause.RECEIVER),
    ("SOCKET_BACKLOG", Cause.RECEIVER),
    ("PROTO_MEM", Cause.RECEIVER),
    ("SOCKET_FILTER", Cause.RULE),
    ("TC_", Cause.RULE),
    ("XDP", Cause.RULE),
    ("QDISC", Cause.QUEUE),
    ("CPU_BACKLOG", Cause.QUEUE),
    ("FULL_RING", Cause.QUEUE),
    ("NOMEM", Cause.QUEUE),
    ("DEV_", Cause.LINK),
    ("UDP_CSUM", Cause.LINK),
    ("IP_CSUM", Cause.LINK),
    ("TCP_CSUM", Cause.LINK),
    ("SKB_CSUM", Cause.LINK),
)
"""The kernel's reasons, by how they begin. What is not here has been dropped in the IP layer."""

_SYMBOLS = (
    ("ip_error", Cause.NO_ROUTE),
    ("ip6_pkt_drop", Cause.NO_ROUTE),
    ("veth_", Cause.LINK),
    ("__dev_queue_xmit", Cause.LINK),
    ("dev_hard_start_xmit", Cause.LINK),
    ("br_", Cause.LINK),
    ("nf_hook_slow", Cause.RULE),
    ("nft_do_chain", Cause.RULE),
)
"""Where a kernel gave no reason: the function that dropped it."""

_ITS_OWN = "sk_stream_kill_queues"
"""Where a socket that is closed lets go of what it had kept to send again: copies of packets."""

_ON_A_LINK = frozenset({Cause.LINK, Cause.QUEUE})
_ICMP = {
    0: Cause.NO_ROUTE,
    1: Cause.NO_NEIGHBOUR,
    3: Cause.REFUSED,
    9: Cause.RULE,
    10: Cause.RULE,
    13: Cause.RULE,
}
"""Codes of "destination unreachable"; all others: it was not forwarded."""
_ICMP6 = {0: Cause.NO_ROUTE, 1: Cause.RULE, 3: Cause.NO_NEIGHBOUR, 4: Cause.REFUSED}
_UNREACHABLE, _UNREACHABLE6 = 3, 1


class Seen(NamedTuple):
    """A dropped frame, taken apart. ``probe``: trial, flow and number of a probe.

    ``perhaps``: another place where it may have been, the last link before that host.
    """

    place: str
    cause: Cause
    witness: str
    protocol: int
    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    probe: tuple[int, int, int] | None
    direction: str
    target: str | None
    open: bool
    perhaps: str
    ns: int

    def sighting(self) -> Sighting:
        """Return it as what one says who has seen a probe."""
        assert self.probe is not None
        _, flow, seq = self.probe
        return Sighting(
            flow,
            seq,
            self.place,
            self.cause,
            self.witness,
            self.target,
            self.direction,
            open=self.open,
            perhaps=self.perhaps,
        )


def seen(drops: Iterable[Drop], scene: Scene) -> list[Seen]:
    """Return the UDP and TCP packets that were dropped in a lab; of others there may be more."""
    found = []
    for drop in drops:
        one = _taken_apart(drop, scene)
        if one is not None:
            found.append(one)
    return found


def quoted(errors: Iterable[tuple[str, IcmpError]], trial: int, scene: Scene) -> list[Sighting]:
    """Return the probes of a trial that ICMP errors are about; each comes with its receiver."""
    found = []
    for host, error in errors:
        packet = _packet(error.quoted)
        if packet is None or packet.probe is None or packet.probe[0] != trial:
            continue
        _, flow, seq = packet.probe
        place = scene.host_of_address(error.origin)
        if error.origin.is_link_local:
            place = scene.gateway(host)  # Many have that address; this is its own one.
        if not place:
            continue  # Translated on its way back: a service's address says not who it was.
        cause = _answered(error)
        witness = f"ICMP type {error.kind} code {error.code} from {place}"
        # The packet is quoted as it was sent, to the service.
        found.append(Sighting(flow, seq, place, cause, witness, open=True))
    return found


def _answered(error: IcmpError) -> Cause:
    kind, codes = (_UNREACHABLE, _ICMP) if error.origin.version == 4 else (_UNREACHABLE6, _ICMP6)
    return (
        codes.get(error.code, Cause.NOT_FORWARDED) if error.kind == kind else Cause.NOT_FORWARDED
    )


class _Packet(NamedTuple):
    protocol: int
    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    probe: tuple[int, int, int] | None


def _taken_apart(drop: Drop, scene: Scene) -> Seen | None:
    frame = drop.frame
    if len(frame) < _ETHERNET or int.from_bytes(frame[12:14], "big") not in (_IPV4, _IPV6):
        return None
    packet = _packet(frame[_ETHERNET:])
    if packet is None or drop.symbol.startswith(_ITS_OWN):
        return None
    there, here = scene.host_of_mac(_mac(frame[:6])), scene.host_of_mac(_mac(frame[6:12]))
    if not there and not here:
        return None  # Of somebody else's network.
    on = scene.link_of_mac(_mac(frame[6:12]))
    target = scene.host_of_address(packet.destination)
    said = cause_of(drop)
    cause = said or (Cause.REFUSED if there == target else Cause.NOT_FORWARDED)
    back = scene.host_of_address(packet.destination) in scene.senders
    symbol = drop.symbol.partition("+")[0]
    words = f"{drop.reason} in {symbol}" if drop.reason else symbol
    return Seen(
        place=on if cause in _ON_A_LINK else there,
        cause=cause,
        witness=f"drop monitor: {words}",
        **packet._asdict(),
        direction=BACK if back else THERE,
        # Where IPVS finds no way to a server it has chosen, nothing tells which one that is.
        target=target if scene.is_pod(target) else None if said is None else "",
        open=cause in (Cause.RULE, *_ON_A_LINK),
        perhaps=_last_link(on, there) if said is None or cause in _ON_A_LINK else "",
        ns=drop.ns,
    )


def _last_link(on: str, there: str) -> str:
    """Return the link to a host, of a frame on some link: on a segment that of the switch."""
    peer = on.partition(">")[2]
    return on if peer == there else f"{peer}>{there}"


def cause_of(drop: Drop) -> Cause | None:
    """Return the cause that the kernel's reason means; None: it says nothing."""
    for beginning, cause in _REASONS:
        if drop.reason.startswith(beginning):
            return cause
    if drop.reason in ("", "NOT_SPECIFIED"):
        return next((c for name, c in _SYMBOLS if drop.symbol.startswith(name)), None)
    return Cause.NOT_FORWARDED


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _packet(data: bytes) -> _Packet | None:
    """Take an IP packet apart; None for fragments, cut ones, and protocols without ports."""
    if len(data) < 20:
        return None
    if data[0] >> 4 == 4:
        at, protocol = (data[0] & 0x0F) * 4, data[9]
        source: IPAddress = IPv4Address(data[12:16])
        destination: IPAddress = IPv4Address(data[16:20])
    elif data[0] >> 4 == 6 and len(data) >= _IPV6_HEADER:
        at, protocol = _IPV6_HEADER, data[6]
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    else:
        return None
    if protocol not in (UDP, TCP) or len(data) < at + 8:
        return None
    source_port, destination_port = _PORTS.unpack_from(data, at)
    probe = None
    if protocol == UDP and data[at + 8 : at + 12] == wire.MAGIC:
        header = data[at + 8 : at + 8 + wire.HEADER.size]
        if len(header) == wire.HEADER.size:
            _, trial, flow, _, seq, _ = wire.HEADER.unpack(header)
            probe = (trial, flow, seq)
    return _Packet(protocol, source, destination, source_port, destination_port, probe)
