"""From measured durations to a cost model: medians per size, and terms fitted to them. Pure."""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy import costfile

TERMS = ("constant", "per_service", "per_endpoint")
DIGITS = 9
"""Nanoseconds: a term per endpoint may be a fraction of a microsecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How long a place took once, in seconds. Sizes are 0 where they make no difference."""

    process: str
    place: str
    mode: str
    services: int
    endpoints: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where samples were taken: kernel and machine in words, the day in ISO 8601.

    ``tools`` names what the modes need beside the kernel (``iptables-nft``).
    """

    kernel: str
    tools: str = ""
    machine: str
    date: str


def model(name: str, samples: Iterable[Sample], origin: Origin) -> costfile.Model:
    """Return the model that samples make: one entry per process, place and mode."""
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.process, sample.place, sample.mode), []).append(sample)
    entries = []
    for (process, place, mode), members in sorted(groups.items()):
        found = points(members)
        entries.append(
            costfile.Entry(
                process=process,
                place=place,
                mode=mode,
                seconds=fit(found),
                kernel=_kernel(origin, mode),
                machine=origin.machine,
                date=origin.date,
                points=found,
            )
        )
    return costfile.Model(name=name, entries=tuple(entries))


def _kernel(origin: Origin, mode: str) -> str:
    # Mode nftables talks to the kernel itself.
    uses_tools = mode in ("ipvs", "iptables") and origin.tools
    return f"{origin.kernel}, {origin.tools}" if uses_tools else origin.kernel


def points(samples: Iterable[Sample]) -> tuple[costfile.Point, ...]:
    """Return the median and the extremes at every size, in order of size."""
    sizes: dict[tuple[int, int], list[float]] = {}
    for sample in samples:
        sizes.setdefault((sample.services, sample.endpoints), []).append(sample.seconds)
    return tuple(
        costfile.Point(
            services=services,
            endpoints=endpoints,
            n=len(values),
            median=round(statistics.median(values), 6),
            min=round(min(values), 6),
            max=round(max(values), 6),
        )
        for (services, endpoints), values in sorted(sizes.items())
    )


def fit(found: Sequence[costfile.Point]) -> costfile.Terms:
    """Return the terms, none negative, that come nearest to the medians.

    Least squares of the *relative* errors, because a small cluster's cost is to be as right as a
    large one's. With three terms the best solution without negative ones is found by leaving out
    each set of terms in turn. Where two choices are equally near, that with fewer terms is taken.
    """
    best: tuple[float, tuple[float, ...]] = (float("inf"), (0.0, 0.0, 0.0))
    for count in range(1, len(TERMS) + 1):
        for chosen in itertools.combinations(range(len(TERMS)), count):
            solved = _solve(found, chosen)
            if solved is None or min(solved) < 0:
                continue
            off = _error(found, solved)
            if off < best[0] - 1e-12:
                best = off, solved
    return costfile.Terms(
        **{name: round(value, DIGITS) for name, value in zip(TERMS, best[1], strict=True)}
    )


def _row(point: costfile.Point) -> tuple[float, float, float]:
    """Return what the terms are multiplied by, as parts of the measured value."""
    return 1 / point.median, point.services / point.median, point.endpoints / point.median


def _error(found: Sequence[costfile.Point], terms: Sequence[float]) -> float:
    return sum(
        (sum(a * term for a, term in zip(_row(point), terms, strict=True)) - 1) ** 2
        for point in found
    )


def _solve(
    found: Sequence[costfile.Point], chosen: Sequence[int]
) -> tuple[float, float, float] | None:
    """Return the terms of least squares, those not chosen being 0; None if there is no answer."""
    rows = [[_row(point)[i] for i in chosen] for point in found]
    size = len(chosen)
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)]
        for i in range(size)
    ]
    solution = _eliminate(matrix)
    if solution is None:
        return None
    terms = [0.0, 0.0, 0.0]
    for i, value in zip(chosen, solution, strict=True):
        terms[i] = value
    return terms[0], terms[1], terms[2]


def _eliminate(matrix: list[list[float]]) -> list[float] | None:
    """Solve linear equations (Gauss, Jordan); None if they have no single solution."""
    size = len(matrix)
    scale = [max(abs(value) for value in row[:-1]) or 1.0 for row in matrix]
    for column in range(size):
        pivot = max(range(column, size), key=lambda r: abs(matrix[r][column]) / scale[r])
        if abs(matrix[pivot][column]) <= 1e-9 * scale[pivot]:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        scale[column], scale[pivot] = scale[pivot], scale[column]
        head = matrix[column][column]
        matrix[column] = [value / head for value in matrix[column]]
        for other in range(size):
            if other != column:
                factor = matrix[other][column]
                matrix[other] = [
                    a - factor * b for a, b in zip(matrix[other], matrix[column], strict=True)
                ]
    return [row[-1] for row in matrix]
