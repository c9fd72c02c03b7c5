"""The losses of a trial, from all that was observed of it. Pure.

Puts together who saw which packet (:mod:`hopdrops`), what counters say (:mod:`hopcounts`) and the
time line, and lets :mod:`kproxy.traffic.attribution` decide.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.kernel.ipvs.types import ServiceKey
from kproxy.lab import hopcounts, hopdrops
from kproxy.lab.hopcounts import Offered
from kproxy.lab.hopdrops import Seen
from kproxy.lab.hops import Observed
from kproxy.lab.hopscene import Scene
from kproxy.traffic import attribution
from kproxy.traffic.attribution import REACH_NS, Count, Missing, Sighting, Story
from kproxy.traffic.resultset import Cause, Loss

_NETFILTER = frozenset({Cause.RULE, Cause.CONNTRACK_FULL, Cause.CONNTRACK_INVALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What happened in a trial. Nanoseconds of the monotonic clock; None: nothing was done.

    ``settled``: when the rules of a place of origin no longer named pods that are gone.
    """

    fault_ns: int | None = None
    settled: Mapping[str, int] = field(default_factory=dict)


def pod_host(pod: str) -> str:
    """Return the host of a pod that calls itself ``namespace/name``."""
    return pod.replace("/", "-", 1)


def losses(
    observed: Observed,
    scene: Scene,
    *,
    trial: int,
    lost: Sequence[Missing],
    events: Events,
    strayed: Iterable[Sighting] = (),
    offered: Iterable[Offered] = (),
) -> dict[str, tuple[Loss, ...]]:
    """Return the losses of each place of origin that add up to its lost packets.

    ``strayed``: packets that somebody got who should not. ``offered``: what was sent to services.
    """
    at_hosts = [one._replace(backend=pod_host(one.backend)) for one in lost]
    drops = hopdrops.seen(observed.drops, scene)
    probes = {(trial, one.flow, one.seq) for one in lost}
    ours = [one for one in drops if one.probe in probes]
    # Other traffic, and copies of packets that arrived all the same.
    others = [one for one in drops if one.probe not in probes]
    sightings = [
        *strayed,
        *(refined(one, observed, scene).sighting() for one in ours),
        *hopdrops.quoted(observed.answers, trial, scene),
    ]
    counts = [
        *_without(hopcounts.counts(observed.snapshots, scene), others, observed.clock_ns),
        *hopcounts.not_taken(observed.snapshots, offered, scene),
    ]
    ranked = [one._replace(rank=hopcounts.rank(one.place, one.cause, scene)) for one in sightings]
    found = attribution.attribute(at_hosts, ranked, counts, story(observed, scene, events))
    return {origin: _with_excuse(some, observed.blind) for origin, some in found.items()}


def _with_excuse(losses: tuple[Loss, ...], blind: str) -> tuple[Loss, ...]:
    """Say of what is unexplained that the best witness was not there, if it was not."""
    excuse = f"without the drop monitor: {blind}" if blind else ""
    return tuple(
        dataclasses.replace(one, witness=excuse) if one.cause is Cause.UNEXPLAINED else one
        for one in losses
    )


def story(observed: Observed, scene: Scene, events: Events) -> Story:
    """Return which pods went, and since when nobody should send to them any more."""
    gone: dict[str, int] = {}
    last_seen: dict[str, int] = {}
    for look in observed.snapshots:
        for host in last_seen.keys() - look.hosts.keys():
            if scene.is_pod(host):
                gone.setdefault(host, _since(last_seen[host], look.ns, events.fault_ns))
        last_seen |= dict.fromkeys(look.hosts, look.ns)
    forgotten = {(origin, pod): ns for origin, ns in events.settled.items() for pod in gone}
    return Story(gone=gone, forgotten=forgotten)


def _since(last_seen_ns: int, missed_ns: int, fault_ns: int | None) -> int:
    """Return when a pod's end began: at the fault, if it was there until then."""
    if fault_ns is not None and last_seen_ns <= fault_ns <= missed_ns:
        return fault_ns
    return last_seen_ns


def refined(one: Seen, observed: Observed, scene: Scene) -> Seen:
    """Say of a packet what is known of the place where it was dropped at that time."""
    for place in (one.perhaps, one.place):
        if hopcounts.is_cut(observed.snapshots, place, scene, _when(one, observed)):
            return one._replace(place=place, cause=Cause.LINK, open=False)
    if one.cause is not Cause.RULE:
        return one
    # Netfilter dropped it, perhaps because IPVS chose no server.
    key = ServiceKey.of(
        one.protocol, one.destination.packed, one.destination_port.to_bytes(2, "big")
    )
    looks = hopcounts.services_at(observed.snapshots, one.place, key, _when(one, observed))
    if not looks:
        return one
    return one._replace(cause=hopcounts.cause_of_ipvs(looks), witness=f"{one.witness} at IPVS")


def _when(one: Seen, observed: Observed) -> int:
    return one.ns + observed.clock_ns


def _without(counts: Iterable[Count], others: Sequence[Seen], clock_ns: int) -> list[Count]:
    """Take off what the drop monitor saw of other traffic."""
    found = []
    for count in counts:
        same = [
            one
            for one in others
            if one.place == count.place
            and _alike(one.cause, count.cause)
            and count.since_ns - REACH_NS <= one.ns + clock_ns <= count.until_ns
        ]
        packets = count.packets - len(same)
        if packets > 0:
            found.append(count._replace(packets=packets))
    return found


def _alike(seen: Cause, counted: Cause) -> bool:
    """Whether a counter of a cause counts what the drop monitor sees as another one."""
    if seen in _NETFILTER:
        return counted in _NETFILTER
    if seen in (Cause.LINK, Cause.QUEUE):
        return counted in (Cause.LINK, Cause.QUEUE)
    return seen is counted
