"""When to try again: back-off of crashed containers and of failed reconciles. No clock inside.

Times are seconds of a monotonic clock that the caller reads.
"""

from dataclasses import dataclass, field

CRASH_FIRST = 10.0
CRASH_MOST = 300.0
CRASH_RESET = 600.0
RETRY_FIRST = 0.05
RETRY_MOST = 30.0


@dataclass(slots=True)
class CrashBackoff:
    """The kubelet's rule for one container of one pod (Kubernetes docs, "Pod Lifecycle").

    Restarted at once after its first end, then after 10 s, 20 s, 40 s … 300 s; a container that
    ran for 10 minutes starts afresh.
    """

    _delay: float = 0.0

    def exited(self, *, started: float, now: float) -> float:
        """Note that a container started at ``started`` has ended; return when to start again."""
        if now - started >= CRASH_RESET:
            self._delay = 0.0
        due = now + self._delay
        self._delay = min(self._delay * 2, CRASH_MOST) if self._delay else CRASH_FIRST
        return due


@dataclass(slots=True)
class RetryBackoff:
    """How long something that failed waits before it is tried again: 50 ms, 100 ms … ``most``."""

    most: float = RETRY_MOST
    _failures: dict[str, int] = field(default_factory=dict)

    def failed(self, key: str) -> float:
        """Note a failure; return the seconds to wait."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        return min(RETRY_FIRST * 2.0 ** min(count, 20), self.most)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)


FAILURE_FIRST = 1.0
FAILURE_MOST = 900.0


@dataclass(slots=True)
class FailureBackoff:
    """How long a pod that has failed stays before it is replaced, for each place it may have.

    The first is replaced at once, the next ones 1 s, 2 s … 15 min after their failure was seen.
    A place that has had no failure for twice the longest wait starts afresh.
    """

    _places: dict[str, tuple[str, float, float]] = field(default_factory=dict)
    """Place -> pod seen last, how long it waits, when it was seen."""

    def failed(self, place: str, pod: str, now: float) -> float:
        """Return how many seconds the failed pod of a place has still to wait; 0: none."""
        known = self._places.get(place)
        if known is None or now - known[2] > 2 * FAILURE_MOST:
            self._places = {
                name: one for name, one in self._places.items() if now - one[2] <= 2 * FAILURE_MOST
            }
            self._places[place] = pod, 0.0, now
        elif known[0] != pod:
            wait = min(known[1] * 2, FAILURE_MOST) if known[1] else FAILURE_FIRST
            self._places[place] = pod, wait, now
        _, wait, since = self._places[place]
        return max(since + wait - now, 0.0)
