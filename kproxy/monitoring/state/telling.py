"""How what is told of objects becomes families of samples. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kproxy.exposition import Family, Kind, Sample


class Told(NamedTuple):
    """One value of one object: the family's name, labels, and what it is."""

    name: str
    labels: Mapping[str, str]
    value: float


Tell = Callable[[Any], Iterator[Told]]
"""Yields what is to be told of an object."""


def families(words: Mapping[str, str], tell: Tell, objects: Iterable[Any]) -> Iterator[Family]:
    """Yield the families of a kind, in the order of ``words``: their names, with what they mean.

    What is told twice with the same labels counts once, as the last time.
    """
    found: dict[str, dict[tuple[str, ...], Sample]] = {name: {} for name in words}
    for obj in objects:
        for name, labels, value in tell(obj):
            found[name][tuple(labels.values())] = Sample(labels, value)
    for name, samples in found.items():
        kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
        yield Family(name, kind, words[name], samples.values())


def conditions(
    name: str, labels: Mapping[str, str], condition: str, status: str
) -> Iterator[Told]:
    """Yield a condition as kube-state-metrics does: of the three statuses, one is 1."""
    for one in ("true", "false", "unknown"):
        told = {**labels, "condition": condition, "status": one}
        yield Told(name, told, float(status.lower() == one))


def time(name: str, labels: Mapping[str, str], text: str | None) -> Iterator[Told]:
    """Yield a time as seconds since 1970; nothing if it is none."""
    try:
        seconds = datetime.fromisoformat(text or "").timestamp()
    except ValueError:
        return
    yield Told(name, labels, seconds)
