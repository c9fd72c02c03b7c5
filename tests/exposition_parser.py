"""A parser of Prometheus' text format 0.0.4 that takes nothing but what the format allows."""

import re
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"(?P<name>{_NAME})(?:\{{(?P<labels>.*)\}})? (?P<value>\S+)")
_LABEL = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\\n]|\\[\\n"])*)"(,|$)')
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}

Labels = tuple[tuple[str, str], ...]


class Parsed(NamedTuple):
    """One family: its type, its words, its samples by name and labels."""

    kind: str
    words: str
    samples: dict[tuple[str, Labels], float]


def parse(text: str) -> dict[str, Parsed]:
    """Return all families. Raises ValueError at the first thing that is not allowed."""
    if text and not text.endswith("\n"):
        raise ValueError("the last line is not ended")
    found: dict[str, Parsed] = {}
    helped = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            words = line.split(" ", 3)[3]
            if helped in found:
                raise ValueError(f"{helped} comes twice")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != helped or kind not in ("counter", "gauge", "histogram"):
                raise ValueError(f"wrong line: {line}")
            found[name] = Parsed(kind, words, {})
        else:
            _sample(line, found, helped)
    for name, family in found.items():
        _check(name, family)
    return found


def _sample(line: str, found: dict[str, Parsed], current: str) -> None:
    match = _SAMPLE.fullmatch(line)
    if match is None or current not in found:
        raise ValueError(f"no sample, or of no family: {line!r}")
    name, family = match["name"], found[current]
    if name not in {current + suffix for suffix in _SUFFIXES.get(family.kind, ("",))}:
        raise ValueError(f"{name} is no sample of {current}")
    key = name, _labels(match["labels"] or "")
    if key in family.samples:
        raise ValueError(f"twice: {line}")
    family.samples[key] = float(match["value"].replace("Inf", "inf"))


def _labels(text: str) -> Labels:
    labels: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None:
            raise ValueError(f"wrong labels: {text!r}")
        labels.append((match["name"], match["value"]))
        position = match.end()
    if len({name for name, _value in labels}) < len(labels):
        raise ValueError(f"a label comes twice: {text!r}")
    return tuple(sorted(labels))


def _check(name: str, family: Parsed) -> None:
    """Check what a type promises."""
    if not family.samples:
        raise ValueError(f"{name} has no samples")
    for key, value in family.samples.items():
        if family.kind == "counter" and not value >= 0:
            raise ValueError(f"counter {key} is {value}")
    if family.kind != "histogram":
        return
    buckets: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            bounds = dict(labels)
            bound = float(bounds.pop("le").replace("Inf", "inf"))
            buckets.setdefault(tuple(sorted(bounds.items())), []).append((bound, value))
    for labels, counted in buckets.items():
        counts = [count for _bound, count in counted]
        if counted != sorted(counted) or counts != sorted(counts):
            raise ValueError(f"buckets of {name} do not grow: {counted}")
        if counted[-1] != (float("inf"), family.samples[f"{name}_count", labels]):
            raise ValueError(f"the last bucket of {name} does not have all")
        if (f"{name}_sum", labels) not in family.samples:
            raise ValueError(f"{name} has no sum")
