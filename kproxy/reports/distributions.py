"""How figures are spread over the trials: every trial is a point. Pure."""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kproxy.reports import charts
from kproxy.reports.document import Block, Cell, Chart, Grid, Part, Section, Side, Words
from kproxy.reports.view import Case, Shot, View
from kproxy.traffic.summary import percentile

MOST_SAMPLES = 2000
"""So many connect times are drawn, evenly chosen of the sorted ones."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that trials have: its title, its unit, and where it is taken from.

    A value of None: the trial has none, or an infinite one.
    """

    title: str
    unit: str
    values: Callable[[Shot], Iterable[tuple[str, float | None]]]


def _failover(shot: Shot) -> Iterable[tuple[str, float | None]]:
    for one in shot.measurements:
        if one.traffic == "udp" and (one.failover_time_ms is not None or not one.recovered):
            yield one.node, one.failover_time_ms


def _lost(shot: Shot) -> Iterable[tuple[str, float | None]]:
    for one in shot.measurements:
        if one.failover_packet_loss is not None:
            yield one.node, float(one.failover_packet_loss)


def _restart(shot: Shot) -> Iterable[tuple[str, float | None]]:
    if shot.restart_ms is not None:
        yield "proxy gone → synced", shot.restart_ms


FIGURES = (
    Figure("Failover time", "ms", _failover),
    Figure("Packets lost", "packets", _lost),
    Figure("Restart of the proxy", "ms", _restart),
)


def section(view: View) -> Section:
    """Return the section."""
    blocks: list[Block] = []
    for figure in FIGURES:
        found: list[Block] = []
        nothing = []
        for case in view.cases:
            groups = _groups(view, case, figure)
            if any(value != 0 for values in groups.values() for value in values):
                found.append(_chart(case, figure, groups))
            elif groups:
                nothing.append(case.title)
        if nothing:
            found.append(Words((f"0 {figure.unit} in every trial of: {', '.join(nothing)}.",)))
        if found:
            blocks.append(Part(figure.title, (Side(tuple(found)),)))
    connects = _connects(view)
    if connects is not None:
        blocks.append(Part("Connect time", (Side((connects,)),)))
    return Section(
        anchor="distributions",
        title="Distributions",
        intro="Every point is one valid trial; what did not recover has none, and is counted "
        "in the table. The line across the box is the median of the points.",
        blocks=tuple(blocks),
    )


def _groups(view: View, case: Case, figure: Figure) -> dict[tuple[str, str], list[float | None]]:
    """Return the values of all valid trials by column and node."""
    found: dict[tuple[str, str], list[float | None]] = {}
    for column in view.columns:
        for shot in view.of(case, column):
            if shot.problems:
                continue
            for node, value in figure.values(shot):
                found.setdefault((column, node), []).append(value)
    return found


def _chart(case: Case, figure: Figure, groups: dict[tuple[str, str], list[float | None]]) -> Chart:
    columns = list(dict.fromkeys(column for column, _ in groups))
    nodes = list(dict.fromkeys(node for _, node in groups))
    traces = []
    for number, node in enumerate(nodes):
        points = [(c, v) for (c, n), values in groups.items() if n == node for v in values]
        known = [(c, v) for c, v in points if v is not None]
        traces.append(
            {
                "type": "box",
                "name": node,
                "orientation": "h",
                "x": [value for _, value in known],
                "y": [column for column, _ in known],
                "boxpoints": "all",
                "jitter": 0.5,
                "pointpos": 0,
                "line": {"width": 1.4, "color": charts.colour(number)},
                "marker": {
                    "size": 6,
                    "color": charts.colour(number),
                    "symbol": charts.symbol(number),
                },
                "fillcolor": "rgba(0,0,0,0)",
                "hovertemplate": "%{x:,.1f}",
            }
        )
    axes = {
        "xaxis": charts.axis(figure.unit, rangemode="tozero"),
        "yaxis": charts.axis(type="category", categoryarray=columns, autorange="reversed"),
    }
    return Chart(
        title=case.title,
        description=f"{figure.title} of every trial, in {figure.unit}, by column and node.",
        figure=charts.figure(
            traces, height=120 + 34 * len(columns) * len(nodes), axes=axes, boxmode="group"
        ),
        grid=_grid(figure, groups),
    )


def _grid(figure: Figure, groups: dict[tuple[str, str], list[float | None]]) -> Grid:
    rows = []
    for (column, node), values in groups.items():
        # What did not recover counts as longer than every number, as in the comparison.
        ordered = sorted(math.inf if value is None else value for value in values)
        marks = (ordered[0], statistics.median(ordered), ordered[-1])
        texts = (f"{value:,.1f}" if math.isfinite(value) else "–" for value in marks)
        never = values.count(None)
        rows.append(
            (
                Cell(column),
                Cell(node),
                Cell(str(len(values))),
                *(Cell(text) for text in texts),
                Cell(f"{never} did not recover" if never else ""),
            )
        )
    head = ("", "from", "trials", "least", "median", f"greatest ({figure.unit})", "")
    return Grid(title="", head=head, rows=tuple(rows), headers=2)


def _connects(view: View) -> Chart | None:
    """Return how long TCP connections took, all valid trials together; None without samples."""
    found = {column: _samples(view, column) for column in view.columns}
    found = {column: values for column, values in found.items() if values}
    if not found:
        return None
    traces, rows = [], []
    for number, (column, values) in enumerate(found.items()):
        every = max(1, len(values) // MOST_SAMPLES)
        thinned = values[::every]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": column,
                "x": thinned,
                "y": [round(100 * (i + 1) / len(thinned), 2) for i in range(len(thinned))],
                "line": {
                    "color": charts.colour(number),
                    "dash": charts.dash(number),
                    "width": 1.8,
                    "shape": "hv",
                },
                "hovertemplate": "%{y:.0f} % within %{x:.2f} ms",
            }
        )
        marks = (percentile(values, percent) for percent in (50, 90, 99))
        texts = (f"{len(values):,}", *(f"{value:,.2f}" for value in marks))
        rows.append((Cell(column), *(Cell(text) for text in texts)))
    axes = {
        "xaxis": charts.axis("ms", type="log"),
        "yaxis": charts.axis("% of connections", range=[0, 101]),
    }
    head = ("", "connections", "p50 (ms)", "p90 (ms)", "p99 (ms)")
    return Chart(
        title="Share of new connections that were made within a time",
        description="Cumulative distribution of TCP connect times, all cases together.",
        figure=charts.figure(traces, height=340, axes=axes),
        grid=Grid(title="", head=head, rows=tuple(rows)),
    )


def _samples(view: View, column: str) -> list[float]:
    return sorted(
        sample
        for shot in view.shots
        if shot.column == column and not shot.problems
        for one in shot.measurements
        if one.tcp is not None
        for sample in one.tcp.connect_samples_ms
    )
