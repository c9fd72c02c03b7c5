"""When the k-th of a series is due, in whole numbers that are exact both ways.

A series is even, or a Poisson process that a seed determines. A deadline that rounding puts
before "due" would let a generator wake for nothing, again and again: in virtual time, where
computing does not move the clock, for ever.
"""

import bisect
from array import array
from dataclasses import dataclass
from typing import Protocol

_SCALE = 1000 * 1_000_000_000
_BLOCK = 1024


class Due(Protocol):
    """When each of a series is due, in nanoseconds. ``rate_mhz``: 0 if it is not even."""

    @property
    def rate_mhz(self) -> int:
        """The rate in thousandths per second."""

    def due(self, k: int) -> int:
        """Return when number ``k`` (from 0) is due."""

    def due_by(self, now: int) -> int:
        """Return how many are due at ``now``: all with ``due(k) <= now``."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A series at ``rate_mhz`` thousandths per second, the first at ``t0`` (nanoseconds)."""

    t0: int
    rate_mhz: int

    @classmethod
    def at_rate(cls, t0: int, per_second: float) -> "Schedule":
        """Return the schedule of a rate, rounded to a thousandth per second, at least one."""
        return cls(t0, max(1, round(per_second * 1000)))

    def due(self, k: int) -> int:
        """Return when number ``k`` (from 0) is due."""
        return self.t0 + k * _SCALE // self.rate_mhz

    def due_by(self, now: int) -> int:
        """Return how many are due at ``now``: all with ``due(k) <= now``."""
        return max(0, ((now - self.t0 + 1) * self.rate_mhz - 1) // _SCALE + 1)

    def seconds(self, number: int) -> float:
        """Return how long ``number`` of them take."""
        return number * 1000 / self.rate_mhz


class Poisson:
    """A Poisson process: gaps are independent and exponential, ``per_second`` on average.

    The first is due at ``t0``. The same seed gives the same gaps. Only what lies ahead is kept:
    numbers that :meth:`due` is asked for may not decrease by more than a block (1,024).
    """

    rate_mhz = 0

    def __init__(self, t0: int, per_second: float, seed: int) -> None:
        import random  # dear to import, and mostly not needed

        self._lots = random.Random(seed)  # noqa: S311  nothing secret is drawn
        self._per_ns = per_second / 1e9
        self._times = array("q", [t0])
        self._exact = float(t0)
        self._first = 0
        self._asked = 0

    def _extend(self) -> None:
        # After a stall what is due may be far ahead of what is asked for next: that is kept.
        behind = self._asked - self._first - _BLOCK
        if behind > 8 * _BLOCK:
            del self._times[:behind]
            self._first += behind
        for _ in range(_BLOCK):
            self._exact += self._lots.expovariate(self._per_ns)
            self._times.append(round(self._exact))

    def due(self, k: int) -> int:
        """Return when number ``k`` (from 0) is due."""
        self._asked = k
        while k >= self._first + len(self._times):
            self._extend()
        return self._times[k - self._first]

    def due_by(self, now: int) -> int:
        """Return how many are due at ``now``: all with ``due(k) <= now``."""
        while self._times[-1] <= now:
            self._extend()
        return self._first + bisect.bisect_right(self._times, now)
