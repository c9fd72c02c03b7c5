"""Promtool's tests of the rules: what they cover, and the same tests for a profile of a lab.

A lab's tests are production's with a minute made a second, as its rules are: durations, and the
values of series that are seconds themselves. Tests named ``production: …`` are left out.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from kproxy.monitoring import profiles

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "deploy" / "monitoring" / "tests"
ONLY_PRODUCTION = "production: "
DIVIDE = 60
SECONDS = re.compile(r"_(timestamp|draining|processor|start_time)_seconds$")
"""Names of series whose values pass as time does."""

Document = dict[str, Any]


class Expectation(NamedTuple):
    """What a test says of an alert: with which labels it fires; None: it does not."""

    alert: str
    labels: dict[str, str] | None


def alerts(profile: str = profiles.Profile.PRODUCTION) -> Iterator[Document]:
    """Yield all alerting rules."""
    for document in profiles.rules(profile).values():
        for group in document["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


def names() -> list[str]:
    """Return the names of all alerts, each once."""
    return sorted({rule["alert"] for rule in alerts()})


@cache
def expectations() -> tuple[Expectation, ...]:
    """Return what the tests say of alerts."""
    return tuple(
        said
        for path in sorted(TESTS.glob("*.yaml"))
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test["promql_expr_test"]
        for said in _expected(check)
    )


def fired(name: str) -> list[dict[str, str]]:
    """Return the labels with which an alert fires in tests."""
    return [one.labels for one in expectations() if one.alert == name and one.labels is not None]


def _expected(check: Document) -> Iterator[Expectation]:
    for sample in check.get("exp_samples", ()):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
        if labels.pop("alertstate", "") == "firing":
            yield Expectation(labels["alertname"], labels)
    if "exp_samples" not in check:
        negated, matched = re.findall(r'alertname(!?)=~?"([^"]+)"', check["expr"])[0]
        said = matched.split("|")
        meant = [name for name in names() if name not in said] if negated else said
        yield from (Expectation(name, None) for name in meant)


def for_lab(document: Document, rules: Path) -> Document:
    """Return production's tests of a file as a lab's; its rules are in the directory ``rules``."""
    return {
        "rule_files": [str(rules / Path(file).name) for file in document["rule_files"]],
        "evaluation_interval": _shorter(document["evaluation_interval"]),
        "tests": [
            {
                "name": test["name"],
                "interval": _shorter(test["interval"]),
                "input_series": [_series(one) for one in test["input_series"]],
                "promql_expr_test": [
                    {**check, "eval_time": _shorter(check["eval_time"])}
                    for check in test["promql_expr_test"]
                ],
            }
            for test in document["tests"]
            if not test["name"].startswith(ONLY_PRODUCTION)
        ],
    }


def _shorter(text: str) -> str:
    return profiles.duration(profiles.milliseconds(text) // DIVIDE)


def _series(one: Document) -> Document:
    name = one["series"].partition("{")[0]
    if not SECONDS.search(name):
        return one
    return {**one, "values": " ".join(map(_values, one["values"].split()))}


def _values(text: str) -> str:
    """Return ``a+bxn`` with a and b divided."""
    numbers, times, count = text.partition("x")
    return re.sub(r"\d+", lambda found: f"{int(found[0]) / DIVIDE:g}", numbers) + times + count
