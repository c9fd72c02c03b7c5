"""Where each lost packet was lost, and why: from witnesses to losses that add up. Pure.

Three kinds of witnesses are heard, the most exact first:

1. who names the packet: it came too late, another pod has it, the drop monitor or an ICMP error
   quotes it (:class:`Sighting`);
2. counters, which say how many at a place of a cause between two looks (:class:`Count`), in the
   order of the path. A counter explains at most what is left to be explained; that it counted
   more is said, and it is never scaled;
3. the time line, which tells what those causes mean: a packet that found no route to a pod
   which was gone was delivered to a dead backend, and after its node had forgotten that pod it
   was a stale connection entry that sent it there (:class:`Story`).

What is left is unexplained, and counted as that.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kproxy.traffic.resultset import Cause, Loss

THERE, BACK = "there", "back"

REACH_NS = 50_000_000
"""A packet may be counted so much later than it was sent: it waits in queues, and a look at all
counters takes its time."""

_ARRIVED = sys.maxsize
"""The rank of a packet that came all the way."""

_UNREACHED = frozenset(
    {Cause.NO_ROUTE, Cause.NO_NEIGHBOUR, Cause.REFUSED, Cause.LINK, Cause.NOT_FORWARDED}
)
"""What happens to packets for a pod that is gone."""


class Missing(NamedTuple):
    """A lost packet. ``origin``: from where it was sent; ``backend``: who had its flow's last one.

    ``late``: it came, but too late.
    """

    origin: str
    flow: int
    seq: int
    sent_ns: int
    backend: str = ""
    late: bool = False


class Sighting(NamedTuple):
    """Somebody saw what became of one packet.

    ``target``: the pod that it was addressed to by then; "": to none yet; None: that is not
    known, and the one that had its flow until then is the likeliest. ``open``: the cause is the
    least that is known, and a counter there, or at ``perhaps``, may know better. ``rank``: as
    that of a :class:`Count`.
    """

    flow: int
    seq: int
    place: str
    cause: Cause
    witness: str
    target: str | None = None
    direction: str = THERE
    open: bool = False
    perhaps: str = ""
    rank: int = 0


class Count(NamedTuple):
    """So many packets were lost at a place between two looks at a counter.

    ``rank`` gives the order of the path, and of counters at one place. ``origins``: only packets
    from there can have passed; empty: from everywhere. ``target``: only those of flows which that
    pod had. ``missing``: it is not of drops, but the difference between what was sent and what
    has passed there, so it includes what was lost before.
    """

    place: str
    cause: Cause
    packets: int
    witness: str
    since_ns: int
    until_ns: int
    rank: int
    origins: frozenset[str] = frozenset()
    target: str = ""
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened meanwhile, by pod.

    ``gone``: since when a pod was being destroyed. ``forgotten``: since when the rules of a place
    of origin no longer name it; by (origin, pod).
    """

    gone: Mapping[str, int] = field(default_factory=dict)
    forgotten: Mapping[tuple[str, str], int] = field(default_factory=dict)


class _Verdict(NamedTuple):
    place: str
    cause: Cause
    direction: str


@dataclass(slots=True)
class _Case:
    """A lost packet and what is known of it by now."""

    packet: Missing
    verdict: _Verdict | None = None
    target: str | None = None
    places: tuple[str, ...] = ()
    """Where a counter may know better why; none: nobody does."""
    witnesses: tuple[str, ...] = ()
    rank: int = 0


def attribute(
    lost: Sequence[Missing], sightings: Iterable[Sighting], counts: Iterable[Count], story: Story
) -> dict[str, tuple[Loss, ...]]:
    """Return the losses of each origin; their packets add up to those that it lost.

    Counters are of hosts, not of one sender's packets: so all senders of a trial are accounted
    for at once, and no count is used twice.
    """
    cases = [_Case(packet) for packet in sorted(lost, key=lambda one: one.sent_ns)]
    _see(cases, sightings)
    extra: Counter[str] = Counter()
    for count in sorted(counts, key=lambda one: (one.rank, one.since_ns)):
        _explain(cases, count, extra)
    found: dict[str, Counter[_Verdict]] = {}
    witnesses: dict[tuple[str, _Verdict], Counter[str]] = {}
    for case in cases:
        verdict = _judged(case, story)
        origin = case.packet.origin
        found.setdefault(origin, Counter())[verdict] += 1
        witnesses.setdefault((origin, verdict), Counter()).update(case.witnesses)
    return {
        origin: tuple(
            Loss(
                place=verdict.place,
                cause=verdict.cause,
                packets=packets,
                direction=verdict.direction,
                witness=_told(witnesses[origin, verdict], extra),
            )
            for verdict, packets in sorted(verdicts.items())
        )
        for origin, verdicts in found.items()
    }


def _see(cases: list[_Case], sightings: Iterable[Sighting]) -> None:
    """Hear who names packets; the first who names one is believed."""
    wanted = {(case.packet.flow, case.packet.seq): case for case in cases}
    for case in cases:
        if case.packet.late:
            case.verdict = _Verdict(case.packet.backend, Cause.LATE, THERE)
            case.witnesses = ("its arrival, after Tmax",)
            case.rank = _ARRIVED
    for sighting in sightings:
        seen = wanted.get((sighting.flow, sighting.seq))
        if seen is None:
            continue
        if sighting.witness not in seen.witnesses:
            seen.witnesses += (sighting.witness,)
        if seen.verdict is None:
            seen.verdict = _Verdict(sighting.place, sighting.cause, sighting.direction)
            seen.target = sighting.target
            seen.rank = sighting.rank
            seen.places = (sighting.place, sighting.perhaps) if sighting.open else ()


def _explain(cases: list[_Case], count: Count, extra: Counter[str]) -> None:
    """Let a counter explain what it can."""
    left = count.packets
    seen_here: list[_Case] = []
    unseen: list[_Case] = []
    for case in cases:
        if not _may_have_met(case.packet, count):
            continue
        verdict = case.verdict
        if verdict is None:
            unseen.append(case)
        elif count.place in case.places:
            seen_here.append(case)
        elif (verdict.place, verdict.cause) == (count.place, count.cause):
            # It has been seen to be lost here, so this counter has counted it: once.
            if count.witness not in case.witnesses:
                left -= 1
                case.witnesses += (count.witness,)
        elif count.missing and case.rank < count.rank:
            left -= 1
    # What is known to have been lost here comes before what may have been.
    for case in (seen_here + unseen)[: max(left, 0)]:
        direction = THERE if case.verdict is None else case.verdict.direction
        case.verdict = _Verdict(count.place, count.cause, direction)
        case.witnesses += (count.witness,)
        case.places, case.rank = (), count.rank
    if not count.missing:
        extra[count.witness] += max(0, left - len(seen_here) - len(unseen))


def _may_have_met(packet: Missing, count: Count) -> bool:
    return (
        count.since_ns - REACH_NS <= packet.sent_ns <= count.until_ns
        and (not count.origins or packet.origin in count.origins)
        and (not count.target or packet.backend in ("", count.target))
    )


def _judged(case: _Case, story: Story) -> _Verdict:
    """Say what a cause means, given what had happened by then."""
    packet, verdict = case.packet, case.verdict
    if verdict is None:
        return _Verdict("", Cause.UNEXPLAINED, THERE)
    if verdict.cause not in _UNREACHED:
        return verdict
    pod = packet.backend if case.target is None else case.target
    since = story.gone.get(pod)
    if since is None or packet.sent_ns < since - REACH_NS:
        return verdict
    case.witnesses += (f"{pod} was gone",)
    forgotten = story.forgotten.get((packet.origin, pod))
    if forgotten is not None and packet.sent_ns > forgotten:
        return verdict._replace(cause=Cause.CONNTRACK_STALE)
    return verdict._replace(cause=Cause.DEAD_BACKEND)


def _told(witnesses: Counter[str], extra: Counter[str]) -> str:
    """Return who says so of how many packets, and which of their counters say more than that."""
    return "; ".join(
        f"{witness}: {packets:,}" + (f" (and {extra[witness]:,} others)" if extra[witness] else "")
        for witness, packets in sorted(witnesses.items())
    )


class Finder:
    """Finds the lost packets of one sender among its records, which may come in parts.

    ``end_ns``: packets sent after it are not judged. A packet is lost by the definition of
    :mod:`accounting`, whose account of the same records has as many.
    """

    def __init__(self, origin: str, *, end_ns: int, tmax_ns: int) -> None:
        self.found: list[Missing] = []
        self._origin = origin
        self._end_ns = end_ns
        self._tmax_ns = tmax_ns
        self._last_pods: dict[int, str] = {}

    def add(self, sent: Any, received: Mapping[str, Any]) -> None:
        """Take packets that were sent after the ones before, and what arrived of them, by pod.

        Arrays of :func:`records.sent_array` and :func:`records.received_array`.
        """
        import numpy as np

        from kproxy.traffic import matching
        from kproxy.traffic.records import STATUS_SENT

        went = sent[sent["status"] == STATUS_SENT]
        pods = list(received)
        keys, times, whose = _first_arrivals([received[pod] for pod in pods])
        wanted = matching.keys(went["flow"], went["seq"])
        at = np.searchsorted(keys, wanted)
        there = np.zeros(len(went), bool)
        inside = at < len(keys)
        there[inside] = keys[at[inside]] == wanted[inside]
        late = there.copy()
        late[there] = times[at[there]] - went["ns"][there] > self._tmax_ns
        for index in np.flatnonzero(((~there) | late) & (went["ns"] <= self._end_ns)):
            flow, place = int(went["flow"][index]), int(at[index])
            if late[index]:
                backend = pods[whose[place]]
            else:
                # Who had the last one before it of the same flow.
                same = place > 0 and int(keys[place - 1]) >> matching.SEQ_BITS == flow
                backend = pods[whose[place - 1]] if same else self._last_pods.get(flow, "")
            self.found.append(
                Missing(
                    self._origin,
                    flow,
                    int(went["seq"][index]),
                    int(went["ns"][index]),
                    backend,
                    bool(late[index]),
                )
            )
        flows = keys >> matching.SEQ_BITS
        for last in np.flatnonzero(np.append(flows[1:] != flows[:-1], len(flows) > 0)):
            self._last_pods[int(flows[last])] = pods[whose[last]]


def _first_arrivals(received: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return keys, times and pods of all first arrivals, by key."""
    import numpy as np

    from kproxy.traffic import matching

    if not received:
        return np.zeros(0, "u8"), np.zeros(0, "i8"), np.zeros(0, "i8")
    keys = np.concatenate([matching.keys(one["flow"], one["seq"]) for one in received])
    times = np.concatenate([one["received_ns"] for one in received])
    whose = np.repeat(np.arange(len(received)), [len(one) for one in received])
    order = np.lexsort((times, keys))
    keys, first = np.unique(keys[order], return_index=True)
    return keys, times[order][first], whose[order][first]
