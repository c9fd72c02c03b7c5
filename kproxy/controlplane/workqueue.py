"""Keys that a controller has to look at: each waits at most once, failed ones come back later."""

import heapq
import threading
import time
from collections import deque

from .backoff import RetryBackoff


class WorkQueue:
    """A queue of distinct keys for one worker thread. Any thread may add."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._later: list[tuple[float, str]] = []
        self._backoff = RetryBackoff()
        self._stopped = False

    def add(self, key: str) -> None:
        """Queue a key, unless it is queued already. One being worked on is queued again."""
        with self._changed:
            self._add(key)

    def retry(self, key: str) -> float:
        """Queue a key that failed after its back-off; return that in seconds."""
        with self._changed:
            wait = self._backoff.failed(key)
            heapq.heappush(self._later, (time.monotonic() + wait, key))
            self._changed.notify()
        return wait

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._changed:
            self._backoff.succeeded(key)

    def get(self, timeout: float | None = None) -> str | None:
        """Return the next key, waiting for it; None after ``timeout`` seconds or :meth:`stop`."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._add(heapq.heappop(self._later)[1])
                if self._ready:
                    key = self._ready.popleft()
                    self._queued.discard(key)
                    return key
                moments = [self._later[0][0]] if self._later else []
                if end is not None:
                    if now >= end:
                        return None
                    moments.append(end)
                self._changed.wait(min(moments) - now if moments else None)
        return None

    def stop(self) -> None:
        """Make every :meth:`get` return None."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _add(self, key: str) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._changed.notify()
