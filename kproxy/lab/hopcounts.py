"""What the counters of a lab's hosts say between two looks, as counts of lost packets. Pure.

Each counter here is of packets that are lost for good, and no packet is in two of them; so the
counts of a trial can be added up. How many a counter has too many, because of other traffic, is
said by the account.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kproxy.kernel.counters.conntrack import ConntrackCounters
from kproxy.kernel.counters.interfaces import InterfaceCounters, QueueCounters
from kproxy.kernel.counters.rules import RuleCounter
from kproxy.kernel.ipvs.types import ServiceKey, ServiceTraffic
from kproxy.lab.hopscene import Scene
from kproxy.traffic.attribution import Count
from kproxy.traffic.resultset import Cause

_PROTOCOLS = {
    "IpExt.InNoRoutes": Cause.NO_ROUTE,
    "Ip.OutNoRoutes": Cause.NO_ROUTE,
    "Ip6.InNoRoutes": Cause.NO_ROUTE,
    "Ip6.OutNoRoutes": Cause.NO_ROUTE,
    "Ip.InAddrErrors": Cause.NOT_FORWARDED,
    "Ip6.InAddrErrors": Cause.NOT_FORWARDED,
    "Ip.InHdrErrors": Cause.NOT_FORWARDED,
    "Ip6.InHdrErrors": Cause.NOT_FORWARDED,
    "TcpExt.IPReversePathFilter": Cause.NOT_FORWARDED,
    "Udp.NoPorts": Cause.REFUSED,
    "Udp6.NoPorts": Cause.REFUSED,
    "Udp.RcvbufErrors": Cause.RECEIVER,
    "Udp6.RcvbufErrors": Cause.RECEIVER,
    "Udp.MemErrors": Cause.RECEIVER,
    "Udp6.MemErrors": Cause.RECEIVER,
    "Udp.InCsumErrors": Cause.LINK,
    "Udp6.InCsumErrors": Cause.LINK,
}
_ORDER = (
    Cause.CONNTRACK_FULL,
    Cause.CONNTRACK_INVALID,
    Cause.RULE,
    Cause.NO_DESTINATION,
    Cause.GONE_DESTINATION,
    Cause.NOT_FORWARDED,
    Cause.NO_ROUTE,
)
"""In which order a host does to a packet what it may do; what is not here comes after."""


class HostCounters(NamedTuple):
    """All counters of one host."""

    protocols: Mapping[str, int]
    interfaces: Mapping[str, InterfaceCounters]
    queues: tuple[QueueCounters, ...]
    conntrack: ConntrackCounters
    rules: tuple[RuleCounter, ...]
    services: Mapping[ServiceKey, ServiceTraffic]


CPUS = "the CPUs' queues"
"""The place of packets that the kernel dropped between any two hosts."""
_LAST = 1000

NOTHING = HostCounters({}, {}, (), ConntrackCounters(), (), {})
"""Those of a host that was not there."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A look at all hosts; it began at ``ns`` and was over at ``until_ns``.

    ``backlog``: packets for which the queue of a CPU had no room, on whichever host.
    """

    ns: int
    until_ns: int
    hosts: Mapping[str, HostCounters]
    backlog: int = 0


class Lost(NamedTuple):
    """A counter that went up: how many packets, at which place, of which cause."""

    place: str
    cause: Cause
    packets: int
    witness: str


def counts(snapshots: Sequence[Snapshot], scene: Scene) -> list[Count]:
    """Return what was lost between each two looks, wherever a counter says so."""
    found = []
    for before, after in itertools.pairwise(snapshots):
        for host, now in after.hosts.items():
            for lost in risen(host, before.hosts.get(host, NOTHING), now, scene):
                found.append(
                    Count(
                        place=lost.place,
                        cause=lost.cause,
                        packets=lost.packets,
                        witness=lost.witness,
                        since_ns=before.ns,
                        until_ns=after.until_ns,
                        rank=rank(lost.place, lost.cause, scene),
                        origins=scene.origins(lost.place),
                        target=scene.target(lost.place),
                    )
                )
        # What finds a CPU's queue full has been refused to the veth that sent it, which counts it.
        packets = after.backlog - before.backlog - _refused(before, after, scene)
        if packets > 0:
            span = before.ns, after.until_ns
            found.append(Count(CPUS, Cause.QUEUE, packets, "softnet_stat", *span, _LAST))
    return found


def _refused(before: Snapshot, after: Snapshot, scene: Scene) -> int:
    return sum(
        lost.packets
        for host, now in after.hosts.items()
        for lost in _sending(host, before.hosts.get(host, NOTHING), now, scene)
    )


def rank(place: str, cause: Cause, scene: Scene) -> int:
    """Return where on the way of a packet a place has lost it by that cause."""
    return scene.rank(place) + (_ORDER.index(cause) if cause in _ORDER else len(_ORDER))


def risen(host: str, before: HostCounters, after: HostCounters, scene: Scene) -> Iterator[Lost]:
    """Yield the counters of a host that went up. One that went down began anew meanwhile."""
    for name, cause in _PROTOCOLS.items():
        packets = _more(before.protocols.get(name, 0), after.protocols.get(name, 0))
        if packets:
            yield Lost(host, cause, packets, f"{name} of {host}")
    yield from _sending(host, before, after, scene)
    yield from _queueing(host, before, after, scene)
    yield from _conntrack(host, before.conntrack, after.conntrack)
    yield from _rules(host, before.rules, after.rules)


def _sending(host: str, before: HostCounters, after: HostCounters, scene: Scene) -> Iterator[Lost]:
    for name, now in after.interfaces.items():
        place = scene.link(host, name)
        if not place:
            continue
        then = before.interfaces.get(name)
        was = then.sent_dropped + then.sent_errors if then is not None else 0
        packets = _more(was, now.sent_dropped + now.sent_errors)
        if packets:
            yield Lost(place, Cause.LINK, packets, f"drops on sending by {name} of {host}")


def _queueing(
    host: str, before: HostCounters, after: HostCounters, scene: Scene
) -> Iterator[Lost]:
    names = {one.number: name for name, one in after.interfaces.items()}
    dropped = _queues(before)
    for (number, kind), drops in _queues(after).items():
        place = scene.link(host, names.get(number, ""))
        packets = _more(dropped.get((number, kind), 0), drops)
        if packets and place:
            cause = Cause.LINK if kind == "netem" else Cause.QUEUE
            yield Lost(place, cause, packets, f"drops of {kind} on {names[number]} of {host}")


def _queues(counters: HostCounters) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for queue in counters.queues:
        key = queue.interface, queue.kind
        found[key] = found.get(key, 0) + queue.drops
    return found


def _conntrack(host: str, before: ConntrackCounters, after: ConntrackCounters) -> Iterator[Lost]:
    failed = _more(before.insert_failed, after.insert_failed)
    # One whose place another one's entry has taken is counted as a drop, too; one for which a
    # chain was too long is not.
    clashed = max(0, failed - _more(before.chain_too_long, after.chain_too_long))
    full = _more(before.drop, after.drop) - clashed
    if full > 0:
        yield Lost(host, Cause.CONNTRACK_FULL, full, f"drop of connection tracking on {host}")
    if failed:
        witness = f"insert_failed of connection tracking on {host}"
        yield Lost(host, Cause.CONNTRACK_INVALID, failed, witness)


def _rules(
    host: str, before: Iterable[RuleCounter], after: Iterable[RuleCounter]
) -> Iterator[Lost]:
    then = {rule.name: rule.packets for rule in before}
    for rule in after:
        packets = _more(then.get(rule.name, 0), rule.packets)
        if packets:
            cause = Cause.CONNTRACK_INVALID if rule.invalid else Cause.RULE
            yield Lost(host, cause, packets, f"rule {rule.name} on {host}")


def _more(before: int, after: int) -> int:
    return after - before if after >= before else after


class Offered(NamedTuple):
    """How many packets were sent to a service past a host, from where, since when until when."""

    host: str
    service: ServiceKey
    origin: str
    packets: int


def not_taken(
    snapshots: Sequence[Snapshot], offered: Iterable[Offered], scene: Scene
) -> list[Count]:
    """Return how many packets for a virtual server of IPVS it has not counted.

    IPVS counts what it passes on, and nothing of what it drops. What did not come as far is
    among these; the account takes it off. Only for servers that were there all the time.
    """
    found = []
    for one in offered:
        looks = [look.hosts.get(one.host, NOTHING).services.get(one.service) for look in snapshots]
        if len(looks) < 2 or any(look is None for look in looks):
            continue
        there = [look for look in looks if look is not None]
        taken = there[-1].traffic.packets_in - there[0].traffic.packets_in
        if taken < 0 or one.packets <= taken:
            continue
        cause = cause_of_ipvs(there)
        found.append(
            Count(
                place=one.host,
                cause=cause,
                packets=one.packets - taken,
                witness=f"IPVS on {one.host} has counted {taken:,} of {one.packets:,}",
                since_ns=snapshots[0].ns,
                until_ns=snapshots[-1].until_ns,
                rank=rank(one.host, cause, scene),
                origins=frozenset({one.origin}),
                missing=True,
            )
        )
    return found


def cause_of_ipvs(looks: Sequence[ServiceTraffic]) -> Cause:
    """Return why a virtual server did not take a packet, by what it was at the time."""
    empty = any(not look.destinations for look in looks)
    return Cause.NO_DESTINATION if empty else Cause.GONE_DESTINATION


def services_at(
    snapshots: Sequence[Snapshot], host: str, key: ServiceKey, ns: int
) -> list[ServiceTraffic]:
    """Return a virtual server as it was in the looks just before and after a moment."""
    looks = [one.hosts.get(host, NOTHING).services.get(key) for one in _around(snapshots, ns)]
    return [look for look in looks if look is not None]


def is_cut(snapshots: Sequence[Snapshot], place: str, scene: Scene, ns: int) -> bool:
    """Whether what sends on a link had no carrier between the looks around a moment."""
    host = place.partition(">")[0]
    ends = [
        interface
        for look in _around(snapshots, ns)
        for name, interface in look.hosts.get(host, NOTHING).interfaces.items()
        if scene.link(host, name) == place
    ]
    changes = {interface.carrier_changes for interface in ends}
    return len(changes) > 1 or any(not interface.running for interface in ends)


def _around(snapshots: Sequence[Snapshot], ns: int) -> list[Snapshot]:
    before = [look for look in snapshots if look.ns <= ns][-1:]
    return [*before, *[look for look in snapshots if look.ns > ns][:1]]
