"""When to sync: soon after a change, not too often, and now and then without any.

A state machine that is told the time; the proxier waits until :meth:`Schedule.next_deadline`.
All times are seconds on one monotonic clock.
"""

import math


class Schedule:
    """Bounds how often something runs.

    * ``min_interval``: runs asked for are at least so far apart on average;
    * ``burst``: so many may follow each other at once after a quiet time;
    * ``max_interval``: it runs so long after the last run although nobody asked (0: never);
    * ``retry_interval``: after a failure it runs again so much later although nobody asked; while
      it keeps failing, twice as long each time, up to ``retry_max``. Who asks for a run waits for
      ``min_interval`` only: what was asked for may succeed although something else fails for ever.
    """

    def __init__(
        self,
        *,
        now: float,
        min_interval: float,
        max_interval: float = 0.0,
        retry_interval: float = 1.0,
        retry_max: float = 30.0,
        burst: int = 1,
    ) -> None:
        self._min = min_interval
        self._max = max_interval or math.inf
        self._retry = retry_interval
        self._retry_max = retry_max
        self._failures = 0
        self._slack = (burst - 1) * min_interval
        # Generic cell rate algorithm: the time of the next run if all runs were evenly spread.
        self._theoretical = now
        self._periodic = now + self._max
        self._retry_at = math.inf
        self._pending: float | None = None
        self._failed: float | None = None
        self._running_for: float | None = None

    @property
    def pending_since(self) -> float | None:
        """Return when the oldest request came that no run has answered, or None."""
        return self._pending if self._failed is None else self._failed

    def request(self, now: float) -> None:
        """Ask for a run; several requests before it are one."""
        if self._pending is None:
            self._pending = now

    def next_deadline(self) -> float:
        """Return when :meth:`due` becomes true if nothing more is asked (may be ``inf``)."""
        deadline = min(self._periodic, self._retry_at)
        if self._pending is not None:
            deadline = min(deadline, max(self._pending, self._theoretical - self._slack))
        return deadline

    def due(self, now: float) -> bool:
        """Return whether it should run now."""
        return now >= self.next_deadline()

    def started(self, now: float) -> None:
        """Tell that a run begins; requests from now on are for the next one."""
        self._theoretical = max(now, self._theoretical) + self._min
        self._periodic = now + self._max
        self._retry_at = math.inf
        self._running_for = self.pending_since
        self._pending = self._failed = None

    def succeeded(self, now: float) -> None:
        """Tell that the run has ended well."""
        self._periodic = now + self._max
        self._failures = 0

    def failed(self, now: float) -> float:
        """Tell that the run has failed: what it was asked for is still to be done.

        Return in how many seconds it is tried again at the latest.
        """
        self._failed = now if self._running_for is None else self._running_for
        # Bounded, so that a long trouble does not overflow.
        later = min(self._retry * 2.0 ** min(self._failures, 32), self._retry_max)
        self._failures += 1
        self._retry_at = now + later
        return later
