"""How long to wait before trying again: a state machine that is told the time and the lots."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffPolicy:
    """Delays in seconds: the first, how they grow, and the longest.

    The defaults are quick: a change made right after the API server has come back must reach the
    nodes in well under two seconds, so the longest delay is 0.8 s.
    """

    initial: float = 0.05
    factor: float = 2.0
    maximum: float = 0.8
    healthy_after: float = 1.0
    """What has worked so long has recovered: the next failure is a first one."""


class Backoff:
    """The state of one thing that is tried again and again."""

    def __init__(self, policy: BackoffPolicy | None = None) -> None:
        self._policy = policy or BackoffPolicy()
        self._failures = 0
        self._started = math.inf

    @property
    def failures(self) -> int:
        """Return how often it has failed in a row."""
        return self._failures

    def started(self, now: float) -> None:
        """Tell that it works from now on."""
        self._started = now

    def failed(self, now: float, lot: float) -> float:
        """Tell that it failed or ended; return for how many seconds to wait.

        ``lot`` is a random number from 0 to 1. It spreads the delay over its upper half, so that
        a thousand nodes do not come back as one.
        """
        if now - self._started >= self._policy.healthy_after:
            self._failures = 0
        self._started = math.inf
        longest = self._policy.initial * self._policy.factor ** min(self._failures, 64)
        self._failures += 1
        return min(longest, self._policy.maximum) * (0.5 + lot / 2)


def lots(seed: str) -> Iterator[float]:
    """Return numbers from 0 to 1 without end, the same ones for the same seed.

    They only have to differ between nodes. ``random`` would lengthen every start of a proxy, and
    make a lab in virtual time differ from run to run.
    """
    for number in count():
        yield zlib.crc32(f"{seed} {number}".encode()) / 0xFFFFFFFF
