"""When the k-th of an even series is due, in whole numbers that are exact both ways. Pure.

A deadline that rounding puts before "due" would let a generator wake for nothing, again and
again: in virtual time, where computing does not move the clock, for ever.
"""

from dataclasses import dataclass

_SCALE = 1000 * 1_000_000_000


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
