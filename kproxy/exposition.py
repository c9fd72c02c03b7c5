"""Counters, gauges and histograms, and the text in which Prometheus reads them (format 0.0.4).

Our own, because importing the client library costs more than all the rest of a restart. The
instruments may be used from several threads.
"""

import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
"""Values, in the order of the family's label names."""


class Kind(StrEnum):
    """What a family of samples is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; ``suffix`` follows the family's name, as histograms have it."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: Kind
    help: str
    samples: Iterable[Sample]


class Value:
    """A counter or a gauge, with a value for each combination of labels."""

    def __init__(self, name: str, kind: Kind, words: str, labels: Sequence[str] = ()) -> None:
        self._name = name
        self._kind = kind
        self._help = words
        self._labels = tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + by

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[labels] = value

    def remove(self, *labels: str) -> None:
        """Expose a combination of labels no more; one that is not there is fine."""
        with self._lock:
            self._values.pop(labels, None)

    def collect(self) -> Family:
        """Return the samples as they are now."""
        with self._lock:
            values = sorted(self._values.items())
        names = self._labels
        samples = [Sample(dict(zip(names, key, strict=True)), value) for key, value in values]
        return Family(self._name, self._kind, self._help, samples)


class Histogram:
    """Counts observations by size; ``bounds`` are the upper ends of the buckets, ascending."""

    def __init__(
        self, name: str, words: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._help = words
        self._labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._observed: dict[Labels, tuple[list[int], float]] = {}
        self._lock = threading.Lock()
        if not labels:
            self._observed[()] = self._nothing(), 0.0

    def observe(self, value: float, *labels: str) -> None:
        """Count an observation."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            counts, total = self._observed.get(labels) or (self._nothing(), 0.0)
            counts[place] += 1
            self._observed[labels] = counts, total + value

    def begin(self, *labels: str) -> None:
        """Expose a combination of labels, also before anything is observed."""
        with self._lock:
            self._observed.setdefault(labels, (self._nothing(), 0.0))

    def remove(self, *labels: str) -> None:
        """Expose a combination of labels no more; one that is not there is fine."""
        with self._lock:
            self._observed.pop(labels, None)

    def collect(self) -> Family:
        """Return the samples as they are now."""
        with self._lock:
            observed = [
                (key, list(counts), total) for key, (counts, total) in self._observed.items()
            ]
        samples = list(self._samples(sorted(observed)))
        return Family(self._name, Kind.HISTOGRAM, self._help, samples)

    def _samples(self, observed: Iterable[tuple[Labels, list[int], float]]) -> Iterator[Sample]:
        for key, counts, total in observed:
            labels = dict(zip(self._labels, key, strict=True))
            bounds = [*map(number, self._bounds), "+Inf"]
            for bound, count in zip(bounds, accumulate(counts), strict=True):
                yield Sample({**labels, "le": bound}, count, "_bucket")
            yield Sample(labels, total, "_sum")
            yield Sample(labels, sum(counts), "_count")

    def _nothing(self) -> list[int]:
        return [0] * (len(self._bounds) + 1)


class Registry:
    """All that is exposed at one place, in the order in which it was added."""

    def __init__(self) -> None:
        self._collectors: list[Callable[[], Iterable[Family]]] = []

    def counter(self, name: str, words: str, *labels: str) -> Value:
        """Make a counter."""
        return self._value(Value(name, Kind.COUNTER, words, labels))

    def gauge(self, name: str, words: str, *labels: str) -> Value:
        """Make a gauge."""
        return self._value(Value(name, Kind.GAUGE, words, labels))

    def histogram(self, name: str, words: str, bounds: Sequence[float], *labels: str) -> Histogram:
        """Make a histogram."""
        made = Histogram(name, words, bounds, labels)
        self._collectors.append(lambda: [made.collect()])
        return made

    def collect_by(self, collector: Callable[[], Iterable[Family]]) -> None:
        """Expose what a function finds out whenever it is asked."""
        self._collectors.append(collector)

    def text(self) -> str:
        """Return everything in the text format."""
        families = [family for collector in self._collectors for family in collector()]
        return "".join(line for family in families for line in lines(family))

    def _value(self, made: Value) -> Value:
        self._collectors.append(lambda: [made.collect()])
        return made


def lines(family: Family) -> Iterator[str]:
    """Yield the lines of a family; none if it has no samples."""
    samples = iter(family.samples)
    first = next(samples, None)
    if first is None:
        return
    words = family.help.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name} {words}\n# TYPE {family.name} {family.kind}\n"
    yield _line(family.name, first)
    for sample in samples:
        yield _line(family.name, sample)


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    braces = f"{{{labels}}}" if labels else ""
    return f"{name}{sample.suffix}{braces} {number(sample.value)}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Return a number as Prometheus writes it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
