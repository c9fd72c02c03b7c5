"""What a dashboard is made of, and where its panels go. Pure.

A panel has a unit and says what it shows: somebody looks at it at night who did not make it. Where
a healthy cluster has nothing to show, the query says so with a zero; an empty panel always means
that something is not watched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

WIDTH = 24
"""Columns of Grafana's grid."""
RATE = "$__rate_interval"
"""The window of rates: Grafana makes it long enough for the interval of scrapes."""
PROXIES = 'job="kube-proxy",node=~"$node"'
SERVICES = 'namespace=~"$namespace",service=~"$service"'


class Look(StrEnum):
    """How a panel shows its queries."""

    LINES = "lines"
    FIGURE = "figure"
    STATES = "states"


class Unit(StrEnum):
    """Units, by Grafana's names."""

    NUMBER = "short"
    SHARE = "percentunit"
    SECONDS = "s"
    BYTES = "bytes"
    PER_SECOND = "ops"
    REQUESTS = "reqps"
    PACKETS = "pps"
    CORES = "none"
    STATE = "bool_on_off"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression of PromQL, and the name of each line: ``{{label}}`` is a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """From this value on (None: from the beginning) a value has this colour."""

    colour: str
    value: float | None = None


GOOD_IF_ZERO = (Step("green"), Step("red", 0.000001))
GOOD_IF_ALL = (Step("red"), Step("orange", 0.5), Step("green", 1))
NEUTRAL = (Step("text"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture. ``words`` are shown instead of values, as ``{0: "down", 1: "up"}``."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    look: Look = Look.LINES
    width: int = 8
    height: int = 7
    steps: tuple[Step, ...] = NEUTRAL
    words: tuple[tuple[float, str], ...] = ()
    most: float | None = None
    """The top of the axis; None: as the values want it."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together, below a title."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: values of a label of a metric."""

    name: str
    label: str
    metric: str
    of: str
    several: bool = True

    @property
    def query(self) -> str:
        """Return how Grafana asks for the choices."""
        return f"label_values({self.metric}, {self.of})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard. ``uid`` is also the name of its file, and stays: links use it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        """Yield all panels, from top to bottom."""
        for row in self.rows:
            yield from row.panels


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is on Grafana's grid."""

    x: int
    y: int
    width: int
    height: int


ROW_HEIGHT = 1


def layout(board: Board) -> Iterator[tuple[Row | Panel, Place]]:
    """Yield rows and their panels with their places: from left to right, then below."""
    y = 0
    for row in board.rows:
        yield row, Place(0, y, WIDTH, ROW_HEIGHT)
        y += ROW_HEIGHT
        x = highest = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, highest = 0, y + highest, 0
            yield panel, Place(x, y, panel.width, panel.height)
            x += panel.width
            highest = max(highest, panel.height)
        y += highest


def rate(metric: str, by: str, labels: str = "") -> str:
    """Return the sum of a counter's rates."""
    return f"sum by ({by}) (rate({metric}{_braces(labels)}[{RATE}]))"


def increase(metric: str, by: str, labels: str = "") -> str:
    """Return by how much a counter has grown in the window."""
    return f"sum by ({by}) (increase({metric}{_braces(labels)}[{RATE}]))"


def quantile(share: float, metric: str, by: str, labels: str = "") -> str:
    """Return a quantile of a histogram in the window; nothing where nothing was observed."""
    buckets = f"rate({metric}_bucket{_braces(labels)}[{RATE}])"
    return f"histogram_quantile({share:g}, sum by ({by}, le) ({buckets}))"


def quantile_ever(share: float, metric: str, by: str, labels: str = "") -> str:
    """Return the same; where nothing was observed in the window, since the process began."""
    buckets = f"{metric}_bucket{_braces(labels)}"
    ever = f"histogram_quantile({share:g}, sum by ({by}, le) ({buckets}))"
    return f"(({quantile(share, metric, by, labels)} >= 0) or {ever}) >= 0"


def or_zero(expr: str, by: str = "", labels: str = "") -> str:
    """Return an expression that is 0 where there is nothing, for each target, or once."""
    return f"{expr} or 0 * max by ({by}) (up{_braces(labels)})" if by else f"{expr} or vector(0)"


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
