"""The kept dashboards as a user's Grafana sees them: queries, with variables put in. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LABEL_VALUES = re.compile(r"label_values\((?P<metric>.+),\s*(?P<label>\w+)\)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

Choice = Mapping[str, tuple[str, ...]]
"""What is chosen for each variable; several values are joined as Grafana joins them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of a panel. ``panel`` is its title, ``ref`` the query's letter in it."""

    panel: str
    ref: str
    expr: str


@dataclass(frozen=True, slots=True)
class Choices:
    """A variable: the values of a label of what a selector finds."""

    name: str
    selector: str
    label: str
    several: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """A dashboard's file, as far as questions go."""

    title: str
    variables: tuple[Choices, ...]
    queries: tuple[Asked, ...]


def kept(directory: Path) -> list[Kept]:
    """Return the dashboards of a directory, by the names of their files."""
    return [read(json.loads(path.read_text())) for path in sorted(directory.glob("*.json"))]


def read(document: Any) -> Kept:
    """Return what a dashboard asks."""
    listed = document["templating"]["list"]
    return Kept(
        document["title"],
        tuple(_choices(one) for one in listed if one["type"] == "query"),
        tuple(_asked(document["panels"])),
    )


def _asked(panels: list[Any]) -> Iterator[Asked]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield Asked(panel["title"], target["refId"], target["expr"])


def _choices(variable: Any) -> Choices:
    found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
    assert found is not None, variable
    return Choices(variable["name"], found["metric"], found["label"], bool(variable.get("multi")))


def rendered(expr: str, choice: Choice, rate_interval: str) -> str:
    """Return an expression with its variables replaced, as Grafana sends it.

    Raises KeyError for a variable that nobody knows.
    """
    known = {"__rate_interval": rate_interval}

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return known[name] if name in known else "|".join(choice[name])

    return _VARIABLE.sub(value, expr)
