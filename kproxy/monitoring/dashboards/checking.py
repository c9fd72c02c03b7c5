"""Asks every query of every panel of a real Prometheus: one without data is a mistake.

Either the metric is not what the dashboard believes, or nobody watches it, or a healthy cluster
has nothing to show there and the query does not say so with a zero. There are no exceptions.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kproxy import errors

from .reading import Asked, Choice, Choices, Kept, rendered

_POINTS = 60
_MOST_CHOICES = 200
"""Of variables that take one value at a time: so many are tried until there is data."""


class Source(Protocol):
    """What is asked; see :class:`kproxy.monitoring.promclient.Prometheus`."""

    def over_time(self, query: str, start: float, end: float, step: float) -> Any:
        """Return series with their values."""

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        """Return the values of a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """When there may be data: seconds since 1970, and the window of rates."""

    start: float
    end: float
    rate_interval: str

    @property
    def step(self) -> float:
        """Return the seconds between two values."""
        return max(1.0, (self.end - self.start) / _POINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a query. ``lines``: with a number in them; ``wrong``: why it was refused."""

    board: str
    asked: Asked
    expr: str
    lines: int = 0
    wrong: str = ""


def check(source: Source, boards: Sequence[Kept], span: Span) -> Iterator[Result]:
    """Yield what came of every query. Raises KproxyError if Prometheus is not there."""
    for board in boards:
        choices = list(itertools.islice(_choices(source, board.variables, span), _MOST_CHOICES))
        for asked in board.queries:
            yield _ask(source, board.title, asked, choices, span)


def _ask(
    source: Source, board: str, asked: Asked, choices: Sequence[Choice], span: Span
) -> Result:
    last = Result(board=board, asked=asked, expr=asked.expr, wrong="its variables have no values")
    # One without variables is the same for all choices.
    for expr in dict.fromkeys(rendered(asked.expr, one, span.rate_interval) for one in choices):
        try:
            lines = _with_numbers(source.over_time(expr, span.start, span.end, span.step))
        except errors.KproxyError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return Result(board=board, asked=asked, expr=expr, wrong=str(error))
        last = Result(board=board, asked=asked, expr=expr, lines=lines)
        if lines:
            break
    return last


def _with_numbers(series: Any) -> int:
    return sum(
        any(value not in ("NaN", "+Inf", "-Inf") for _, value in one["values"]) for one in series
    )


def _choices(source: Source, variables: Sequence[Choices], span: Span) -> Iterator[Choice]:
    """Yield what may be chosen: later variables depend on earlier ones, as in Grafana."""
    if not variables:
        yield {}
        return
    for earlier in _choices(source, variables[:-1], span):
        one = variables[-1]
        selector = rendered(one.selector, earlier, span.rate_interval)
        values = source.label_values(one.label, selector, span.start, span.end)
        found = [tuple(values)] if one.several and values else [(value,) for value in values]
        for some in found:
            yield {**earlier, one.name: some}
