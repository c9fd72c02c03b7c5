"""The time line: packets around the event, and when what happened. Pure.

For every case (what was done) a chart of all trials' events, and for every column (mode, result)
the rates of one trial: the one in the middle, by what it lost. A result without rates over time
has the events only.
"""

import statistics
from collections.abc import Iterable, Sequence

from kproxy.reports import timechart
from kproxy.reports.document import (
    Block,
    Chart,
    Fold,
    Grid,
    Part,
    Section,
    Side,
    Words,
    plain,
)
from kproxy.reports.view import Case, Shot, View, typical, worst

MOST_FLOWS = 40
"""So many flows of a trial are listed, those that lost most."""


def section(view: View) -> Section:
    """Return the section: a part for every case, without those in which nothing was done."""
    blocks: list[Block] = [Part(case.title, tuple(_case(view, case))) for case in view.cases]
    rates = any(m.series for shot in view.shots for m in shot.measurements)
    intro = (
        "Packets by the time they were sent, in milliseconds after the fault. Of several trials "
        "the one in the middle is shown, by what it lost."
        if rates
        else "When what happened, in milliseconds after the fault. These results hold no packets "
        "over time, so there are no rates to be shown."
    )
    return Section(anchor="time-line", title="Time line", intro=intro, blocks=tuple(blocks))


def _case(view: View, case: Case) -> Iterable[Block]:
    there = [(column, shots) for column in view.columns if (shots := view.of(case, column))]
    shown = [(column, shot) for column, shots in there if (shot := typical(shots))]
    charted = _side(shown, there)
    eventful = any(shot.timeline for _, shots in there for shot in shots)
    if not eventful:
        yield Words(("Nothing was done here: traffic as it is without a fault.",))
    if charted and eventful:
        yield charted
    elif charted:
        yield Fold("Rates", (charted,))
    most = [(column, shot) for column, shots in there if (shot := worst(shots))]
    others = [pair for pair in most if _differs(pair[1], dict(shown)[pair[0]])]
    if losing := _side(others, there):
        yield Fold("The trial that lost most", (losing,))
    yield from _events(there)
    flows = [grid for column, shot in shown if (grid := _flows(column, shot))]
    if flows:
        yield Fold("Flows that lost packets", tuple(flows))
    services = [grid for column, shot in shown if (grid := _services(column, shot))]
    if services:
        yield Fold("Services", tuple(services))


def _differs(one: Shot, other: Shot) -> bool:
    return (one.lost, one.problems) != (other.lost, other.problems)


def _side(
    shown: Sequence[tuple[str, Shot]], there: Sequence[tuple[str, list[Shot]]]
) -> Side | None:
    """Return charts of one trial of each column; None if there are no rates."""
    span = timechart.span(shot for _, shot in shown)
    counts = {column: len(shots) for column, shots in there}
    charts = [
        chart
        for column, shot in shown
        if (chart := _rates(column, shot, counts[column], span)) is not None
    ]
    return Side(tuple(charts)) if charts else None


def _rates(column: str, shot: Shot, trials: int, span: tuple[float, float]) -> Chart | None:
    """Return the chart of one trial; None if the result has no rates."""
    figure = timechart.rates(shot, span)
    if figure is None:
        return None
    valid = "; NOT VALID" if shot.problems else ""
    return Chart(
        title=f"{column}: trial {shot.number} of {trials}: {shot.lost_in_words}{valid}",
        description="Packets delivered per second, and lost packets, by time of sending; "
        + ", ".join(f"{timechart.called(e.name)} at {e.ms:.1f} ms" for e in shot.timeline),
        figure=figure,
        grid=_rates_grid(shot),
    )


def _rates_grid(shot: Shot) -> Grid:
    """Return for each service what was sent and lost, and between when the lost were sent."""
    rows = []
    for one in shot.measurements:
        for series in one.series:
            bad = [i for i, lost in enumerate(series.lost) if lost]
            first, last = (bad[0], bad[-1] + 1) if bad else (0, 0)
            when = (
                f"{series.start_ms + first * series.step_ms:,.0f} to "
                f"{series.start_ms + last * series.step_ms:,.0f}"
                if bad
                else "–"
            )
            rows.append(
                plain(
                    f"{one.node}: {series.service}",
                    f"{sum(series.sent):,}",
                    f"{sum(series.lost):,}",
                    when,
                )
            )
    return Grid(
        title="",
        head=("from, service", "sent", "lost", "lost ones sent (ms)"),
        rows=tuple(rows),
    )


def _events(there: Sequence[tuple[str, list[Shot]]]) -> Iterable[Block]:
    """Return when what happened, in all trials of all columns."""
    if not any(shot.timeline for _, shots in there for shot in shots):
        return
    rows = []
    for column, shots in there:
        for (name, detail), times in _times(shots).items():
            what = timechart.called(name) + (f" ({detail})" if detail else "")
            text = f"{statistics.median(times):,.1f}"
            if len(times) > 1 and min(times) != max(times):
                text += f" ({min(times):,.1f}–{max(times):,.1f})"
            rows.append(plain(column, what, text, f"{len(times)} of {len(shots)}"))
    head = ("", "event", "ms after the fault: median (min–max)", "trials")
    grid = Grid(title="", head=head, rows=tuple(rows), headers=2)
    yield Chart(
        title="Events of all trials",
        description="When each event happened in every trial, in milliseconds after the fault.",
        figure=timechart.events(there),
        grid=grid,
    )


def _times(shots: Sequence[Shot]) -> dict[tuple[str, str], list[float]]:
    """Return when each event was, the first of its name and detail in each trial; in order."""
    found: dict[tuple[str, str], list[float]] = {}
    for shot in shots:
        seen = set()
        for event in shot.timeline:
            # A pod has another name in every trial, which says nothing here.
            key = (event.name, "" if event.name == "endpoint gone" else event.detail)
            if key not in seen:
                seen.add(key)
                found.setdefault(key, []).append(event.ms)
    return dict(sorted(found.items(), key=lambda item: statistics.median(item[1])))


def _flows(column: str, shot: Shot) -> Grid | None:
    """Return the flows of one trial that lost packets, those that lost most first."""
    found = [(m, flow) for m in shot.measurements for flow in m.flows if flow.lost]
    if not found:
        return None
    found.sort(key=lambda pair: -pair[1].lost)
    rows = tuple(
        plain(
            f"{one.node} {flow.flow}",
            f"{flow.lost:,} of {flow.sent:,}",
            "not recovered"
            if flow.failover_time_ms is None
            else f"{flow.failover_time_ms:,.1f} ± {flow.accuracy_ms:,.1f}",
            str(flow.loss_periods),
            flow.pod_before or "–",
            flow.pod_after or "–",
        )
        for one, flow in found[:MOST_FLOWS]
    )
    more = len(found) - len(rows)
    return Grid(
        title=f"{column}, trial {shot.number}",
        head=("from, flow", "lost", "failover time (ms)", "periods", "pod before", "pod after"),
        rows=rows,
        note=f"{more} more flows lost packets." if more else "",
    )


def _services(column: str, shot: Shot) -> Grid | None:
    """Return what each service lost in one trial; None if the result does not say."""
    rows = []
    for one in shot.measurements:
        for service in one.services:
            derived = service.loss_derived_ms
            times = (
                f"{derived.median:,.1f} ({derived.min:,.1f}–{derived.max:,.1f}), "
                f"mean {derived.mean:,.1f}"
                if derived
                else "–"
            )
            rows.append(
                plain(
                    f"{one.node}: {service.service}",
                    f"{service.lost:,} of {service.sent:,}",
                    f"{service.affected_flows} of {service.flows}",
                    times,
                    f"± {service.accuracy_ms:,.1f}",
                )
            )
    if not rows:
        return None
    return Grid(
        title=f"{column}, trial {shot.number}",
        head=("from, service", "lost", "flows hit", "loss-derived time (ms)", "accuracy (ms)"),
        rows=tuple(rows),
        note="The route-specific loss-derived time of RFC 6412, over the flows that were hit: "
        "median (min–max).",
    )
