"""Charts over time: the rates of one trial, and the events of many. Pure.

A chart has at most ``MOST_POINTS`` points to a line: of long trials neighbouring steps are added
up, and the axis says how long a step is then.
"""

import math
from collections.abc import Iterable, Sequence

from kproxy.reports import charts
from kproxy.reports.document import Figure
from kproxy.reports.view import Shot
from kproxy.traffic.resultset import Series, TimelineEvent

MOST_POINTS = 600
AROUND = 0.25
"""So much of the time between first and last event is shown before and after them, …"""
AROUND_LEAST_MS = 150.0
"""… and at least so much."""
MARKS = {
    "fault": "x",
    "process gone": "triangle-down",
    "endpoint gone": "triangle-down-open",
    "process started": "triangle-up",
    "lock released": "circle-open",
    "lock held": "circle",
    "noticed": "circle",
    "repaired": "star",
    "synced": "diamond",
    "first good packet": "star-square",
}
RECOVERY = "first good packet"


def rates(shot: Shot, shown: tuple[float, float]) -> Figure | None:
    """Return delivered packets per second above, lost packets below, and the events over both.

    Rates are of all services from a place together: each alone comes in bursts, because flows take
    turns, and would hide what is to be seen. Losses are told service by service. ``shown``: from
    when to when, at first. None if the trial has no packets over time.
    """
    sources = _sources(shot)
    if not sources:
        return None
    steps = {series.step_ms * _together(series) for _, series in sources}
    traces = []
    nodes = list(dict.fromkeys(node for node, _ in sources))
    services = list(dict.fromkeys(series.service for _, series in sources))
    for node in nodes:
        traces.append(_rate(node, nodes.index(node), [s for n, s in sources if n == node]))
    for node, series in sources:
        if any(series.lost):
            look = (services.index(series.service), nodes.index(node))
            traces.append(_losses(f"lost, {node}: {series.service}", series, look))
    losing = any(trace["type"] == "bar" for trace in traces)
    return charts.figure(
        [*traces, *_marks(shot.timeline)],
        height=360 if losing else 220,
        axes=_axes(f"{max(steps):g} ms", list(shown), losing=losing),
        shapes=[_line(ms) for ms in dict.fromkeys(event.ms for event in shot.timeline)],
        barmode="stack",
        bargap=0,
    )


def _sources(shot: Shot) -> list[tuple[str, Series]]:
    return [(m.node, series) for m in shot.measurements for series in m.series]


def span(shots: Iterable[Shot]) -> tuple[float, float]:
    """Return what charts of these trials show at first, alike, so that they can be compared.

    That are all events and losses, and some time around them; everything where there are none.
    """
    found = [_range(shot, sources) for shot in shots if (sources := _sources(shot))]
    return min((one[0] for one in found), default=0.0), max((one[1] for one in found), default=0.0)


def _axes(step: str, shown: list[float], *, losing: bool) -> dict[str, charts.Trace]:
    """Return the axes: events on top, rates below, losses below these if there are any."""
    time = charts.axis("ms after the fault", anchor="y2" if losing else "y", range=shown)
    found = {
        "xaxis": time,
        "yaxis": charts.axis(
            "delivered/s", domain=[0.46 if losing else 0, 0.9], rangemode="tozero"
        ),
        "yaxis3": charts.axis(domain=[0.92, 1], visible=False, range=[0, 1], fixedrange=True),
    }
    if losing:
        lost = charts.axis(f"lost per {step}", domain=[0, 0.36], rangemode="tozero")
        found["yaxis2"] = lost
    return found


def _together(series: Series) -> int:
    """Return how many steps are added up into one."""
    return max(1, math.ceil(len(series.sent) / MOST_POINTS))


def _rate(node: str, number: int, found: Sequence[Series]) -> charts.Trace:
    """Return the line of all that was delivered from a place."""
    first = found[0]
    many = _together(first)
    step = first.step_ms * many
    whole = min(len(series.sent) for series in found) // many
    good = [0] * whole
    for series in found:
        sent, lost = (_added(values, many) for values in (series.sent, series.lost))
        good = [total + s - d for total, s, d in zip(good, sent, lost, strict=False)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"delivered, {node}",
        "line": {
            "shape": "hv",
            "width": 1.8,
            "color": charts.GOOD[number % len(charts.GOOD)],
            "dash": charts.dash(number),
        },
        # The first step and the last have been watched in part only.
        "x0": first.start_ms + step,
        "dx": step,
        "y": [round(count * 1000 / step, 1) for count in good[1:-1]],
        "hovertemplate": "%{y:,.0f}/s",
    }


def _losses(name: str, series: Series, look: tuple[int, int]) -> charts.Trace:
    """Return the bars of what was lost of a service."""
    many = _together(series)
    step = series.step_ms * many
    return {
        "type": "bar",
        "yaxis": "y2",
        "name": name,
        "x0": series.start_ms + step / 2,
        "dx": step,
        "y": _added(series.lost, many),
        "marker": {
            "color": charts.LOST[look[0] % len(charts.LOST)],
            "pattern": {"shape": charts.HATCHES[look[1] % len(charts.HATCHES)]},
        },
        "hovertemplate": "%{y} lost",
    }


def _added(values: Sequence[int], many: int) -> list[int]:
    return [sum(values[at : at + many]) for at in range(0, len(values), many)]


def _range(shot: Shot, sources: Sequence[tuple[str, Series]]) -> list[float]:
    """Return what is shown at first: all events and losses, and some time around them."""
    begin = min(series.start_ms for _, series in sources)
    end = max(series.start_ms + series.step_ms * len(series.sent) for _, series in sources)
    times = [event.ms for event in shot.timeline if begin <= event.ms <= end]
    for _, series in sources:
        at = [i for i, lost in enumerate(series.lost) if lost]
        times += [series.start_ms + series.step_ms * i for i in (at[:1] + at[-1:])]
    if not times:
        return [begin, end]
    around = max(AROUND_LEAST_MS, AROUND * (max(times) - min(times)))
    return [max(begin, min(times) - around), min(end, max(times) + around)]


def _line(ms: float) -> dict[str, object]:
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": ms,
        "x1": ms,
        "y0": 0,
        "y1": 0.95,
        "line": {"color": charts.NEUTRAL, "width": 1, "dash": "dot"},
    }


def _marks(timeline: Sequence[TimelineEvent]) -> list[charts.Trace]:
    """Return a marker for every event, above the lines; one entry of the legend for each name."""
    found: list[charts.Trace] = []
    for name in dict.fromkeys(event.name for event in timeline):
        mine = [event for event in timeline if event.name == name]
        found.append(
            {
                "type": "scatter",
                "mode": "markers",
                "yaxis": "y3",
                "cliponaxis": False,
                "name": called(name),
                "x": [event.ms for event in mine],
                "y": [0.5] * len(mine),
                "text": [event.detail for event in mine],
                "marker": _marker(name, 9),
                "hovertemplate": "%{x:.1f} ms %{text}",
            }
        )
    return found


def called(name: str) -> str:
    """Return what an event is called: the first good packet is the recovery."""
    return "recovered" if name == RECOVERY else name


def _marker(name: str, size: int) -> charts.Trace:
    bad = name in ("fault", "process gone", "endpoint gone")
    good = name.startswith("synced") or name in ("repaired", RECOVERY)
    colour = charts.PALETTE[1] if bad else charts.PALETTE[2] if good else charts.NEUTRAL
    return {
        "symbol": MARKS.get(name, "diamond-open" if good else "hexagon"),
        "size": size,
        "color": colour,
    }


def events(there: Sequence[tuple[str, Sequence[Shot]]]) -> Figure:
    """Return a line for each column, with a marker for every event of every trial."""
    columns = [column for column, _ in there]
    found = [(column, e) for column, shots in there for shot in shots for e in shot.timeline]
    traces = []
    for name in dict.fromkeys(event.name for _, event in found):
        mine = [(column, event) for column, event in found if event.name == name]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": called(name),
                "x": [event.ms for _, event in mine],
                "y": [column for column, _ in mine],
                "text": [event.detail for _, event in mine],
                "marker": _marker(name, 10),
                "hovertemplate": "%{x:.1f} ms %{text}",
            }
        )
    axes = {
        "xaxis": charts.axis("ms after the fault"),
        "yaxis": charts.axis(
            type="category", categoryarray=columns[::-1], range=[-0.6, len(columns) - 0.4]
        ),
    }
    return charts.figure(traces, height=130 + 34 * len(columns), axes=axes)
