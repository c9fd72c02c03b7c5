"""How long to wait before trying again: a state machine that is told the time and the lots."""

import math
import zlib
from collections.abc import Iterator
from itertools import count

import msgspec


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Delays in seconds: the first, how they grow, and the longest.

    The defaults are quick: a change made right after the API server has come back must reach the
    nodes in well under two seconds, so the longest delay is 0.8 s. A server that answers, but goes
    on refusing (overload, lacking rights), is asked less and less often instead.
    """

    initial: float = 0.05
    factor: float = 2.0
    maximum: float = 0.8
    healthy_after: float = 1.0
    """What has worked so long has recovered: the next failure is a first one."""
    patience: int = 3
    """So many refusals in a row are like other failures; then delays begin at ``refused``."""
    refused: float = 1.0
    refused_maximum: float = 10.0


class Backoff:
    """The state of one thing that is tried again and again."""

    def __init__(self, policy: BackoffPolicy | None = None) -> None:
        self._policy = policy or BackoffPolicy()
        self._failures = 0
        self._refusals = 0
        self._started = math.inf

    @property
    def failures(self) -> int:
        """Return how often it has failed in a row."""
        return self._failures

    @property
    def impatient(self) -> bool:
        """Return whether it has been refused so often that asking otherwise may help."""
        return self._refusals >= self._policy.patience

    def started(self, now: float) -> None:
        """Tell that it works from now on."""
        self._started = now

    def failed(self, now: float, lot: float, *, refused: bool = False) -> float:
        """Tell that it failed or ended; return for how many seconds to wait.

        ``refused``: by a server that answered. ``lot`` is a random number from 0 to 1. It spreads
        the delay over its upper half, so that a thousand nodes do not come back as one.
        """
        if now - self._started >= self._policy.healthy_after:
            self._failures = self._refusals = 0
        self._started = math.inf
        self._refusals = self._refusals + 1 if refused else 0
        policy, beyond = self._policy, self._refusals - self._policy.patience
        if beyond > 0:
            longest = min(_grown(policy.refused, policy, beyond - 1), policy.refused_maximum)
        else:
            longest = min(_grown(policy.initial, policy, self._failures), policy.maximum)
        self._failures += 1
        return longest * (0.5 + lot / 2)


def _grown(delay: float, policy: BackoffPolicy, times: int) -> float:
    return delay * policy.factor ** min(times, 64)


def lots(seed: str) -> Iterator[float]:
    """Return numbers from 0 to 1 without end, the same ones for the same seed.

    They only have to differ between nodes. ``random`` would lengthen every start of a proxy, and
    make a lab in virtual time differ from run to run.
    """
    for number in count():
        yield zlib.crc32(f"{seed} {number}".encode()) / 0xFFFFFFFF
