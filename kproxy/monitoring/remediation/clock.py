"""The receiver's time: seconds since the epoch that never go back, also not over a restart.

Cool-downs and ages must hold over a restart, so the monotonic clock alone will not do; and the
time of day may be set back under a running program, so that alone will not do either.
"""

import time

APART_MOST_S = 60.0
"""Further apart they are only where one was wrong, or has been set."""


class Clock:
    """Begins at the time of day, or at ``least`` if that is later; from there it only passes."""

    def __init__(self, least: float = 0.0) -> None:
        self._offset = max(time.time(), least) - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset + time.monotonic()

    def ahead(self) -> float:
        """Return by how many seconds it is later than the time of day; less than 0: earlier."""
        return self.now() - time.time()

    def time_of_day(self, at: float) -> float:
        """Return when by the time of day something was that was ``at`` by this clock.

        Where they are far apart, the time of day has been set since, or was wrong once. Who
        compares with his own clock then learns how long ago it was.
        """
        ahead = self.ahead()
        return max(at - ahead, 0.0) if abs(ahead) > APART_MOST_S else at
