"""Where packets died: their way through places, with what was lost at each and why. Pure.

Over all trials of a case. The accounts close: sent is received plus lost, and lost is the sum over
the places; what no counter accounts for is called unexplained, and shown.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kproxy.reports.chaintable import units
from kproxy.reports.document import Block, Cell, Fold, Grid, Hop, Path, Section, Side, Tone, Words
from kproxy.reports.view import Case, Shot, View
from kproxy.traffic.resultset import Cause, Loss, Measurement

A_POD = "a pod"
"""Stands for every pod on the way: each trial has others."""

THERE, BACK = "there", "back"
MOST_WITNESSES = 6
"""So many are told of one place and cause, those who saw most."""
_COUNTED = re.compile(r"(?P<who>.*): (?P<seen>[\d,]+)(?: \(and (?P<others>[\d,]+) others\))?")
"""How :mod:`kproxy.traffic.attribution` has a witness say how many it saw."""
FIRST_HOSTS = ("client", "outside", "node")
"""How hosts begin that come first on the way, where no link tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """All trials of one case and column, for one place of origin and kind of traffic."""

    column: str
    node: str
    traffic: str
    sent: int
    lost: int
    losses: tuple[Loss, ...]
    unexplained: int | None


def section(view: View) -> Section | None:
    """Return the section; None if the results do not say where packets were lost."""
    if not any(m.losses for m in _measurements(view.shots)):
        return None
    blocks: list[Block] = []
    quiet = []
    pods = _pods(view)
    for case in view.cases:
        accounts = [one for column in view.columns for one in _accounts(view, case, column)]
        losing = [one for one in accounts if one.lost]
        if not losing:
            quiet.append(case.title)
            continue
        blocks += _case(case, losing, pods)
    if quiet:
        blocks.append(Words((f"Nothing was lost in: {', '.join(quiet)}.",), Tone.GOOD))
    return Section(
        anchor="losses",
        title="Where packets died",
        intro="From sender to receiver, over all trials; places at which nothing was lost in any "
        "case are left out. What no counter accounts for is unexplained.",
        blocks=tuple(blocks),
    )


def _measurements(shots: Iterable[Shot]) -> Iterable[Measurement]:
    return (m for shot in shots for m in shot.measurements)


def _accounts(view: View, case: Case, column: str) -> Iterable[Account]:
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for one in _measurements(view.of(case, column)):
        groups.setdefault((one.node, one.traffic), []).append(one)
    for (node, traffic), found in groups.items():
        yield Account(
            column=column,
            node=node,
            traffic=traffic,
            sent=sum(m.tcp.attempted if m.tcp else m.sent or 0 for m in found),
            lost=sum(m.tcp.failed if m.tcp else m.lost or 0 for m in found),
            losses=added(loss for m in found for loss in m.losses),
            unexplained=_unexplained(found),
        )


def _pods(view: View) -> frozenset[str]:
    """Return the hosts of all pods that had packets, as they are called."""
    return frozenset(
        pod.replace("/", "-", 1)
        for one in _measurements(view.shots)
        for flow in one.flows
        for pod in (flow.pod_before, flow.pod_after)
        if pod
    )


def _unexplained(found: Iterable[Measurement]) -> int | None:
    known = [count for m in found if (count := unexplained(m)) is not None]
    return sum(known) if known else None


def unexplained(one: Measurement) -> int | None:
    """Return how many were lost without a place and a cause; None if nobody has looked."""
    if one.unexplained is not None:
        return one.unexplained
    if not one.losses:
        return None
    lost = one.tcp.failed if one.tcp else one.lost or 0
    known = sum(loss.packets for loss in one.losses if loss.cause != Cause.UNEXPLAINED)
    return max(0, lost - known)


def added(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """Return losses of several trials, added up by place, cause and direction."""
    groups: dict[tuple[str, Cause, str], list[Loss]] = {}
    for one in losses:
        groups.setdefault((one.place, one.cause, one.direction), []).append(one)
    return tuple(
        Loss(
            place=place,
            cause=cause,
            packets=sum(one.packets for one in group),
            direction=direction,
            witness=heard(one.witness for one in group),
        )
        for (place, cause, direction), group in groups.items()
    )


def heard(witnesses: Iterable[str]) -> str:
    """Return what the witnesses of several trials say together, with their counts added up."""
    counts: dict[str, list[int]] = {}
    for part in (part for text in witnesses if text for part in text.split("; ")):
        told = _COUNTED.fullmatch(part)
        if told is None:
            counts.setdefault(part, [])
            continue
        total = counts.setdefault(told["who"], [])
        numbers = [int((told[name] or "0").replace(",", "")) for name in ("seen", "others")]
        total[:] = [a + b for a, b in zip(total or [0, 0], numbers, strict=True)]
    ordered = sorted(counts.items(), key=lambda item: -sum(item[1][:1]))
    said = [_said(who, *numbers) for who, numbers in ordered[:MOST_WITNESSES]]
    more = len(ordered) - len(said)
    return "; ".join([*said, f"and {more} more"] if more else said)


def _said(who: str, seen: int | None = None, others: int = 0) -> str:
    if seen is None:
        return who
    return f"{who}: {seen:,}" + (f" (and {others:,} others)" if others else "")


def _case(case: Case, accounts: Sequence[Account], pods: Collection[str]) -> Iterable[Block]:
    rows = tuple(_row(one) for one in accounts)
    told = [one for one in accounts if one.losses]
    if not told:
        note = "These results do not say where."
        yield Grid(title=case.title, head=_HEAD, rows=rows, headers=2, note=note)
        return
    yield Grid(title=case.title, head=_HEAD, rows=rows, headers=2)
    order = ranks(loss.place for one in told for loss in one.losses if loss.direction == THERE)
    packets, others = (
        tuple(_path(one, order, pods) for one in told if (one.traffic == "udp") == udp)
        for udp in (True, False)
    )
    if packets:
        yield Side(packets)
    if others:
        title = f"{case.title}: the same of TCP requests and connections"
        yield Fold(title, (Side(others),))
    found = tuple(row for one in told for row in _rows(one, order))
    head = ("", "from", "place", "cause", "lost", "known by")
    grid = Grid(title="", head=head, rows=found, headers=2)
    yield Fold(f"{case.title}: every place and cause, with the counters", (grid,))


_HEAD = ("", "from", "sent", "lost", "unexplained")


def _row(one: Account) -> tuple[Cell, ...]:
    unknown = one.unexplained
    text = "–" if unknown is None else f"{unknown:,}"
    return (
        Cell(one.column),
        Cell(f"{one.node}, {units(one.traffic)}"),
        Cell(f"{one.sent:,}"),
        Cell(f"{one.lost:,}", Tone.LOSS),
        Cell(text, Tone.BAD if unknown else Tone.PLAIN if unknown is None else Tone.GOOD),
    )


def _path(one: Account, order: Mapping[str, int], pods: Collection[str]) -> Path:
    return Path(
        title=f"{one.column}, from {one.node}: {units(one.traffic)}",
        sent=one.sent,
        received=one.sent - one.lost,
        hops=_hops(one, THERE, order, pods),
        back=_hops(one, BACK, order, pods)[::-1],
        unexplained=one.unexplained or 0,
    )


def _hops(
    one: Account, direction: str, order: Mapping[str, int], pods: Collection[str]
) -> tuple[Hop, ...]:
    mine = [
        loss
        for loss in one.losses
        if loss.direction == direction and loss.cause != Cause.UNEXPLAINED
    ]
    mine.sort(key=lambda loss: (order.get(loss.place, len(order)), loss.place))
    groups: dict[str, list[Loss]] = {}
    for loss in mine:
        groups.setdefault(general(loss.place, pods), []).append(loss)
    return tuple(
        Hop(place, sum(loss.packets for loss in group), _causes(group))
        for place, group in groups.items()
    )


def _causes(group: Iterable[Loss]) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    for loss in group:
        counts[loss.cause] = counts.get(loss.cause, 0) + loss.packets
    return tuple(f"{count:,} {cause}" for cause, count in counts.items())


def general(place: str, pods: Collection[str]) -> str:
    """Return a place with any pod for a pod."""
    return ">".join(A_POD if host in pods else host for host in place.split(">"))


def where(loss: Loss) -> str:
    """Return the place of a loss, and whether it was a reply that was lost there."""
    return loss.place + (", on the way back" if loss.direction == BACK else "")


def _rows(one: Account, order: Mapping[str, int]) -> Iterable[tuple[Cell, ...]]:
    for loss in sorted(one.losses, key=lambda loss: order.get(loss.place, len(order))):
        bad = loss.cause == Cause.UNEXPLAINED
        yield (
            Cell(one.column),
            Cell(f"{one.node}, {units(one.traffic)}"),
            Cell(where(loss) or "–"),
            Cell(str(loss.cause), Tone.BAD if bad else Tone.PLAIN),
            Cell(f"{loss.packets:,}"),
            Cell(loss.witness or "–"),
        )


def ranks(places: Iterable[str]) -> dict[str, int]:
    """Return the order of places on the way: a link ``A>B`` comes after A and before B.

    Hosts that no link mentions stand where hosts of such names do.
    """
    names = list(dict.fromkeys(places))
    links = [(name, *name.split(">", 1)) for name in names if ">" in name]
    rank: dict[str, int] = {}
    for name in [*names, *(host for _, *ends in links for host in ends)]:
        if ">" not in name:
            at = next((i for i, word in enumerate(FIRST_HOSTS) if name.startswith(word)), 3)
            rank[name] = 2 * max(0, at - 1)
    for _ in links:  # as long as the longest way there can be
        for _, begin, end in links:
            rank[end] = min(max(rank[end], rank[begin] + 2), 2 * len(rank) + 6)
    for name, begin, _ in links:
        rank[name] = rank[begin] + 1
    return rank
