"""From records of TCP requests and connections to numbers. Pure.

A *request* on an established connection, or a new connection with its one request, is what a
packet is for UDP: the failover time of a connection (of a target, for new connections) is the
time between the starts of the last good one before the first failure and the first good one
after the last failure. Unfinished ones (the run ended first) are set aside.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.traffic import records

STALL_NS = 200_000_000
"""The least time after which Linux sends a segment again (TCP_RTO_MIN): whoever waited so long
for an answer over a path of less than a millisecond has waited for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOutage:
    """The failures of one connection or target. ``failover_ns`` is None while not recovered."""

    target: int
    connection: int
    failed: int
    failover_ns: int | None
    accuracy_ns: int | None
    first_good_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAccount:
    """What became of the requests or of the new connections of one client in one trial.

    ``failed`` is every outcome but ``ok`` and includes ``reset``; ``reestablished`` counts the
    connections that had to be made again; ``connect_ns`` are the connect times of those made.
    ``outside_fault`` failures ended before the fault, or there was none; ``stalled`` are successes
    that took at least STALL_NS.
    """

    attempted: int
    failed: int
    reset: int
    reestablished: int
    unfinished: int
    outside_fault: int
    stalled: int
    outcomes: dict[str, int]
    connect_ns: tuple[int, ...]
    outages: tuple[TcpOutage, ...]


def account(
    everything: Iterable[records.TcpRecord], kind: str, *, fault_ns: int | None = None
) -> TcpAccount:
    """Count the records of one ``kind``: ``request`` (established) or ``connect``."""
    everything = list(everything)
    mine = sorted((r for r in everything if r.kind == kind), key=lambda r: r.start_ns)
    done = [r for r in mine if r.outcome != "unfinished"]
    outcomes = Counter(r.outcome for r in done)
    failed = [r for r in done if r.outcome != "ok"]
    again = [r for r in everything if r.kind == "establish" and r.seq and r.outcome == "ok"]
    return TcpAccount(
        attempted=len(done),
        failed=len(failed),
        reset=outcomes["reset"],
        reestablished=len(again) if kind == "request" else 0,
        unfinished=len(mine) - len(done),
        outside_fault=sum(1 for r in failed if fault_ns is None or r.end_ns < fault_ns),
        stalled=sum(1 for r in done if r.outcome == "ok" and r.end_ns - r.start_ns >= STALL_NS),
        outcomes=dict(sorted(outcomes.items())),
        connect_ns=tuple(
            r.connected_ns - r.start_ns for r in done if kind == "connect" and r.connected_ns
        ),
        outages=_outages(done + _refusals(everything, kind), kind),
    )


def _refusals(everything: list[records.TcpRecord], kind: str) -> list[records.TcpRecord]:
    """Return the failed attempts to replace a broken connection: it is still out of order then."""
    if kind != "request":
        return []
    return [r for r in everything if r.kind == "establish" and r.seq and r.outcome != "ok"]


def _outages(done: Sequence[records.TcpRecord], kind: str) -> tuple[TcpOutage, ...]:
    series: dict[tuple[int, int], list[records.TcpRecord]] = {}
    for record in sorted(done, key=lambda r: r.start_ns):
        connection = record.connection if kind == "request" else 0
        series.setdefault((record.target, connection), []).append(record)
    outages = []
    for (target, connection), items in sorted(series.items()):
        bad = [i for i, record in enumerate(items) if record.outcome != "ok"]
        if bad:
            outages.append(_outage(target, connection, items, bad))
    return tuple(outages)


def _outage(
    target: int, connection: int, items: list[records.TcpRecord], bad: list[int]
) -> TcpOutage:
    first, last = bad[0], bad[-1]
    failover = accuracy = good = None
    if last + 1 < len(items):
        good = items[last + 1].start_ns
    if good is not None and first > 0:
        failover = good - items[first - 1].start_ns
        accuracy = (items[first].start_ns - items[first - 1].start_ns) + (
            good - items[last].start_ns
        )
    return TcpOutage(
        target=target,
        connection=connection,
        failed=sum(1 for i in bad if items[i].kind != "establish"),
        failover_ns=failover,
        accuracy_ns=accuracy,
        first_good_ns=good,
    )
