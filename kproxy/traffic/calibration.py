"""Which rate the tester itself holds: the highest without loss through an untouched path. Pure.

The idea is the throughput test of RFC 2544, 26.1. A comparison at a rate above it would measure
the tester.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kproxy.errors import UsageError

LEAST_PPS = 100.0
_STEP_DOWN = 0.85
_WIDE_STEP = 0.6
_FIRST_STEP = 0.95
_MOST_STEP = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one rate. ``lost`` includes what was not sent; ``why`` is "" if it was held."""

    offered_pps: float
    achieved_pps: float
    lost: int
    why: str = ""

    @property
    def held(self) -> bool:
        """Whether the rate was offered and everything arrived."""
        return not self.why


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The attempts of a calibration, in their order, and the highest rate that was held (or 0)."""

    attempts: tuple[Attempt, ...]

    @property
    def pps(self) -> float:
        """Packets per second, all flows together."""
        return max((one.offered_pps for one in self.attempts if one.held), default=0.0)

    def require(self, rate: float, option: str) -> None:
        """Raise UsageError if a rate is more than was held."""
        if rate > self.pps:
            found = f"up to {self.pps:,.0f} packets/s" if self.pps else "no rate at all"
            why = next((one.why for one in self.attempts if one.why), "")
            raise UsageError(
                f"{option} {rate:g}: calibration found that this machine holds {found} without "
                f"a loss of its own ({why})",
                remedy="take a lower rate, or keep the machine free of other work",
            )


def highest(
    attempt: Callable[[float], Attempt],
    most_pps: float,
    *,
    step: float = _STEP_DOWN,
    halvings: int = 5,
) -> Calibration:
    """Find the highest rate, at most ``most_pps``, that is held: from above, then by halving.

    The first step down is to what was achieved (an eighth, if that is more: far beyond what a
    machine can do it achieves next to nothing): a sender that falls behind shows what it can do,
    but less than it could do undisturbed. So ``halvings`` times a rate between the highest that
    was held and the lowest that was not is tried. ``step``: the other steps down.
    """
    attempts: list[Attempt] = []
    rate = most_pps
    while rate >= LEAST_PPS or not attempts:
        found = attempt(rate)
        attempts.append(found)
        if found.held:
            break
        rate = min(rate * step, max(found.achieved_pps * _FIRST_STEP, rate / _MOST_STEP))
        rate = float(int(rate))
    held = attempts[-1].offered_pps
    failed = min((one.offered_pps for one in attempts if not one.held), default=held)
    for _ in range(halvings if attempts[-1].held and failed > held else 0):
        rate = float(int((held * failed) ** 0.5))
        attempts.append(attempt(rate))
        held, failed = (rate, failed) if attempts[-1].held else (held, rate)
    return Calibration(attempts=tuple(attempts))


def check(attempt: Callable[[float], Attempt], wanted_pps: float, times: int = 3) -> Calibration:
    """Try a rate that is wanted, a few times if need be, and only then look for a lower one.

    One attempt may be spoilt by what else the machine does just then; one that achieves less than
    half is not. The lower rate is looked for in wide steps: it is only told.
    """
    attempts: list[Attempt] = []
    for _ in range(times):
        attempts.append(attempt(wanted_pps))
        if attempts[-1].held:
            return Calibration(attempts=tuple(attempts))
        if attempts[-1].achieved_pps < wanted_pps / 2:
            break
    below = max(attempts[-1].achieved_pps, wanted_pps / _MOST_STEP) * _WIDE_STEP
    lower = highest(attempt, below, step=_WIDE_STEP, halvings=0)
    return Calibration(attempts=(*attempts, *lower.attempts))
