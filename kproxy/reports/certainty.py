"""How sure the comparison is: intervals, other methods, differences that the trials show. Pure.

A file of format 1 has none of this, and then there are no such tables.
"""

from collections.abc import Callable, Iterable

from kproxy.reports.document import Block, Cell, Fold, Grid, Tone, plain
from kproxy.reports.tables import spread_text
from kproxy.traffic import statistics
from kproxy.traffic.resultset import ResultSet, Row, Spread, Verdict

METHODS = (
    ("PLBM", "plbm_ms"),
    ("TBLM", "tblm_ms"),
    ("reset time", "reset_ms"),
    ("first route", "first_route_ms"),
    ("full", "full_ms"),
    ("kernel programmed", "programmed_ms"),
    ("recovered", "recovered_ms"),
)
FIGURES = {
    "failover_time_ms": "failover time",
    "failover_packet_loss": "packets lost",
    "restart_to_synced_ms": "proxy gone → synced",
    "failed": "requests or connections failed",
}


def blocks(results: ResultSet) -> list[Block]:
    """Return the tables that the rows have something for."""
    rows = [row for row in results.summary if row.valid]
    found = (_differences(rows), _confidence(rows), _methods(rows), _delays(rows))
    there = [grid for grid in found if grid is not None]
    return [there[0], *(Fold(one.title, (one,)) for one in there[1:])] if there else []


def _names(row: Row) -> tuple[str, str, str]:
    return (row.scenario, f"{row.node}, {row.traffic}", row.mode)


_HEAD = ("scenario", "from", "")


def _differences(rows: Iterable[Row]) -> Grid | None:
    """Return the differences that were shown, each once; None if nobody has looked for any."""
    told = [(row, one) for row in rows for one in row.differences]
    if not told:
        return None
    found = tuple(
        (
            Cell(row.scenario),
            Cell(f"{row.node}, {row.traffic}"),
            Cell(FIGURES.get(one.figure, one.figure)),
            Cell(f"{row.mode} less than {one.mode}", Tone.LOSS),
            Cell("–" if one.corrected_p is None else f"{one.corrected_p:.2g}"),
        )
        for row, one in told
        if one.verdict is Verdict.LESS
    )
    # Each pair of modes has been told from both sides.
    not_shown, too_few = (
        sum(one.verdict is verdict for _, one in told) // 2
        for verdict in (Verdict.NOT_SHOWN, Verdict.TOO_FEW)
    )
    return Grid(
        title="Differences that the trials show",
        head=("scenario", "from", "figure", "verdict", "p, corrected"),
        rows=found or (plain("–", "–", "–", "none", "–"),),
        headers=2,
        note="Exact permutation tests, corrected for their number; a difference is one below "
        f"p = {statistics.SIGNIFICANCE}. Comparisons in which none was shown: {not_shown}; with "
        f"too few trials: {too_few}.",
    )


def _confidence(rows: Iterable[Row]) -> Grid | None:
    """Return the medians with their intervals; None if there were too few trials for any."""
    found = []
    for row in rows:
        spreads = (row.failover_time_ms, row.failover_packet_loss, row.restart_to_synced_ms)
        if any(one is not None and one.confidence is not None for one in spreads):
            found.append(plain(*_names(row), *(_interval(one) for one in spreads)))
    if not found:
        return None
    head = (*_HEAD, "failover time (ms)", "packets lost", "proxy gone → synced (ms)")
    title = "Medians with their 95 % intervals of confidence"
    return Grid(title=title, head=head, rows=tuple(found), headers=3)


def _interval(spread: Spread | None) -> str:
    if spread is None or spread.confidence is None:
        return "–"
    median, low, high = (
        "beyond what was watched" if value is None else f"{value:,.1f}"
        for value in (spread.median, spread.confidence.low, spread.confidence.high)
    )
    return f"{median} ({low} to {high})"


def _time(spread: Spread | None) -> str:
    """Return median and range; a time that the middle trial did not come to an end of is none."""
    if spread is not None and spread.median is None:
        return "not recovered"
    return spread_text(spread)


def _methods(rows: Iterable[Row]) -> Grid | None:
    """Return the same outages by other methods; None if there are none."""
    found = []
    for row in rows:
        if row.methods is None or not row.lost:
            continue
        others = (_time(getattr(row.methods, name)) for _, name in METHODS)
        found.append(plain(*_names(row), _time(row.failover_time_ms), *others))
    if not found:
        return None
    return Grid(
        title="Outages by every method, ms: median (min–max)",
        head=(*_HEAD, "TBM", *(name for name, _ in METHODS)),
        rows=tuple(found),
        headers=3,
        note="RFC 6414: by time stamps (TBM), by lost packets (PLBM), by the tester's clock "
        "(TBLM). RFC 6201: reset time. RFC 6412, after the fault: first route and full "
        "convergence.",
    )


def _delays(rows: Iterable[Row]) -> Grid | None:
    """Return the one-way delays; None if they were not measured."""
    get: tuple[Callable[[Row], Spread | None], ...] = (
        lambda row: row.delay_ms.median_ms if row.delay_ms else None,
        lambda row: row.delay_ms.p99_ms if row.delay_ms else None,
        lambda row: row.delay_ms.pdv_ms if row.delay_ms else None,
    )
    found = [
        plain(*_names(row), *(_delay(one(row)) for one in get)) for row in rows if row.delay_ms
    ]
    if not found:
        return None
    return Grid(
        title="One-way delay, ms: median (min–max) over the trials",
        head=(*_HEAD, "median", "99 %", "variation (PDV)"),
        rows=tuple(found),
        headers=3,
        note="RFC 8219; the variation is the 99.9th percentile minus the least.",
    )


def _delay(spread: Spread | None) -> str:
    if spread is None or spread.median is None:
        return "–"
    known = (spread.median, spread.min or 0.0, spread.max or 0.0)
    return "{:.3f} ({:.3f}–{:.3f})".format(*known)
