"""How far another host's clock is from ours, and how exactly that is known. Pure.

One exchange gives four times: sent and returned by our clock, received and answered by the other
one. Whatever the way there and the way back took, the offset (other minus ours) lies within half
of what the exchange took on the way (the clock filter of RFC 5905, section 10). So of many
exchanges the quickest one says most.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Exchange:
    """Nanoseconds: ``sent`` and ``returned`` by our clock, the others by the other host's."""

    sent: int
    received: int
    answered: int
    returned: int

    @property
    def on_the_way(self) -> int:
        """What it took on the way, there and back."""
        return (self.returned - self.sent) - (self.answered - self.received)

    @property
    def offset(self) -> int:
        """How far the other clock is ahead, if both ways take the same."""
        return ((self.received - self.sent) + (self.answered - self.returned)) // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """The other clock is ``offset_ns`` ahead, ± ``error_ns``, at ``at_ns`` of our clock."""

    at_ns: int
    offset_ns: int
    error_ns: int
    exchanges: int


SAME = Offset(at_ns=0, offset_ns=0, error_ns=0, exchanges=0)
"""Both hosts read the very same clock."""


def estimate(exchanges: Iterable[Exchange]) -> Offset:
    """Return what the quickest exchange says. ValueError: there is none that is possible."""
    possible = [one for one in exchanges if one.on_the_way >= 0 and one.answered >= one.received]
    if not possible:
        raise ValueError("no exchange of clocks is possible")
    best = min(possible, key=lambda one: one.on_the_way)
    return Offset(
        at_ns=(best.sent + best.returned) // 2,
        offset_ns=best.offset,
        error_ns=(best.on_the_way + 1) // 2,
        exchanges=len(possible),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Two estimates, before and after a run: between them the offset goes in a straight line.

    That is what is assumed: a clock whose rate changes within the run (a step, a governor) is not
    seen. ``after`` None: the run ended before the second one.
    """

    before: Offset
    after: Offset | None = None

    @property
    def same(self) -> bool:
        """Whether both hosts read the very same clock."""
        return self.before is SAME

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the other clock runs, in millionths; None if that is not known."""
        if self.same:
            return 0.0
        if self.after is None or self.after.at_ns <= self.before.at_ns:
            return None
        passed = self.after.at_ns - self.before.at_ns
        return (self.after.offset_ns - self.before.offset_ns) / passed * PPM

    @property
    def drift_error_ppm(self) -> float | None:
        """How exactly the drift is known; None if it is not."""
        if self.same:
            return 0.0
        if self.after is None or self.after.at_ns <= self.before.at_ns:
            return None
        passed = self.after.at_ns - self.before.at_ns
        return (self.after.error_ns + self.before.error_ns) / passed * PPM

    @property
    def error_ns(self) -> int:
        """The largest error of an offset between the two estimates."""
        return max(self.before.error_ns, self.after.error_ns if self.after else 0)

    def ours(self, theirs: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Return our times for those of the other clock."""
        drift = self.drift_ppm or 0.0
        level = theirs - self.before.offset_ns
        if self.same or not drift:
            return level
        # The rate is so near to ours that where on the line it is asked hardly matters.
        since = level - self.before.at_ns
        ours: NDArray[np.int64] = level - (since * (drift / PPM)).round().astype("i8")
        return ours
