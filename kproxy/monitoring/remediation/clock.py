"""The receiver's time: seconds since the epoch that never go back, also not over a restart.

Cool-downs and ages must hold over a restart, so the monotonic clock alone will not do; and the
time of day may be set back under a running program, so that alone will not do either.
"""

import time


class Clock:
    """Begins at the time of day, or at ``least`` if that is later; from there it only passes."""

    def __init__(self, least: float = 0.0) -> None:
        self._offset = max(time.time(), least) - time.monotonic()

    def now(self) -> float:
        """Return the time."""
        return self._offset + time.monotonic()
