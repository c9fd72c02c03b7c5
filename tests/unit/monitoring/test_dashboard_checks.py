"""Which queries of a dashboard are told to have no data, asked of a Prometheus that is none."""

from typing import Any

import pytest

from kproxy import errors
from kproxy.monitoring.dashboards import checking, reading

SPAN = checking.Span(start=0.0, end=600.0, rate_interval="2m")


class Series:
    """A Prometheus that knows expressions, and the values of labels of selectors."""

    def __init__(self, known: dict[str, list[str]], labels: dict[str, list[str]]) -> None:
        self.known = known
        self.labels = labels
        self.asked: list[str] = []

    def over_time(self, query: str, start: float, end: float, step: float) -> Any:
        self.asked.append(query)
        if query == "bad":
            raise errors.KproxyError("bad: parse error")
        if query not in self.known:
            return []
        return [{"metric": {}, "values": [[1, value] for value in self.known[query]]}]

    def label_values(self, label: str, selector: str, start: float, end: float) -> list[str]:
        return self.labels[selector]


def board(*exprs: str, **variables: tuple[str, bool]) -> reading.Kept:
    listed = [
        {"type": "datasource", "name": "datasource"},
        *(
            {
                "type": "query",
                "name": name,
                "multi": several,
                "query": {"query": f"label_values({selector}, {name})"},
            }
            for name, (selector, several) in variables.items()
        ),
    ]
    targets = [{"refId": chr(65 + number), "expr": expr} for number, expr in enumerate(exprs)]
    rows = [{"type": "row", "title": "a row"}, {"title": "a panel", "targets": targets}]
    return reading.read({"title": "a board", "templating": {"list": listed}, "panels": rows})


def check(source: Series, kept: reading.Kept) -> list[tuple[str, int, str]]:
    return [(one.expr, one.lines, one.wrong) for one in checking.check(source, [kept], SPAN)]


def test_a_number_is_data_and_neither_nothing_nor_nan_is() -> None:
    source = Series({"a": ["NaN", "1"], "b": ["NaN", "+Inf"]}, {})
    assert check(source, board("a", "b", "c")) == [("a", 1, ""), ("b", 0, ""), ("c", 0, "")]


def test_what_is_wrong_with_a_query_is_told_and_the_others_are_asked() -> None:
    source = Series({"a": ["0"]}, {})
    assert check(source, board("bad", "a")) == [("bad", 0, "bad: parse error"), ("a", 1, "")]


def test_variables_are_put_in_as_grafana_does() -> None:
    rendered = 'rate(x{node=~"n1|n2"}[2m])'
    source = Series({rendered: ["1"]}, {"up": ["n1", "n2"]})
    kept = board('rate(x{node=~"$node"}[$__rate_interval])', node=("up", True))
    assert check(source, kept) == [(rendered, 1, "")]


def test_of_a_variable_with_one_value_each_is_tried_until_there_is_data() -> None:
    source = Series({"x b2": ["1"]}, {"up": ["a", "b"], "up a": ["a1"], "up b": ["b1", "b2"]})
    kept = board("x $service", "y", namespace=("up", False), service=("up $namespace", False))
    assert check(source, kept) == [("x b2", 1, ""), ("y", 0, "")]
    assert source.asked == ["x a1", "x b1", "x b2", "y"]


def test_a_variable_without_values_is_told() -> None:
    source = Series({}, {"up": []})
    kept = board("x $node", node=("up", True))
    assert check(source, kept) == [("x $node", 0, "its variables have no values")]


def test_a_prometheus_that_is_not_there_ends_it() -> None:
    class Gone(Series):
        def over_time(self, query: str, start: float, end: float, step: float) -> Any:
            raise errors.KproxyError("nobody") from ConnectionRefusedError()

    with pytest.raises(errors.KproxyError, match="nobody"):
        check(Gone({}, {}), board("a"))


def test_a_variable_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(KeyError, match="nodes"):
        reading.rendered("up{node=$nodes}", {"node": ("a",)}, "2m")
