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
