"""Keys that a controller has to look at: each waits at most once, failed ones come back later."""

import heapq
import threading
import time
from collections import deque
from typing import Protocol

from .backoff import RetryBackoff


class QueueMetrics(Protocol):
    """What is told of a queue. Times are seconds."""

    def added(self, depth: int) -> None:
        """Take note that a key was queued; so many wait now."""
        ...

    def taken(self, depth: int, waited: float) -> None:
        """Take note that a key was taken after so many seconds; so many wait still."""
        ...

    def done(self, worked: float) -> None:
        """Take note that a key was worked on for so many seconds."""
        ...

    def retried(self) -> None:
        """Take note that a key has failed and will come back."""
        ...


class WorkQueue:
    """A queue of distinct keys for one worker thread. Any thread may add.

    A key that is worked on may be queued again; then it is worked on once more.
    """

    def __init__(self, metrics: QueueMetrics | None = None) -> None:
        self._changed = threading.Condition()
        self._ready: deque[str] = deque()
        self._queued: dict[str, float] = {}
        """Since when each of the keys that are ready waits."""
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        """When each key comes back; an entry of ``_later`` that says otherwise is void."""
        self._backoff = RetryBackoff()
        self._metrics = metrics
        self._taken_at: float | None = None
        self._stopped = False

    def add(self, key: str) -> None:
        """Queue a key, unless it is queued already. One being worked on is queued again."""
        with self._changed:
            self._add(key)

    def add_after(self, key: str, seconds: float) -> None:
        """Queue a key in so many seconds, or earlier if it is to come back earlier anyway."""
        with self._changed:
            self._add_later(key, time.monotonic() + seconds)

    def retry(self, key: str) -> float:
        """Queue a key that failed after its back-off; return that in seconds."""
        with self._changed:
            if self._metrics is not None:
                self._metrics.retried()
            wait = self._backoff.failed(key)
            self._add_later(key, time.monotonic() + wait)
        return wait

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key."""
        with self._changed:
            self._backoff.succeeded(key)

    def done(self) -> None:
        """Tell that the key taken last is no longer worked on."""
        with self._changed:
            if self._taken_at is not None and self._metrics is not None:
                self._metrics.done(time.monotonic() - self._taken_at)
            self._taken_at = None

    def working_for(self) -> float:
        """Return for how many seconds the present key has been worked on; 0: none is."""
        with self._changed:
            return 0.0 if self._taken_at is None else time.monotonic() - self._taken_at

    def get(self, timeout: float | None = None) -> str | None:
        """Return the next key, waiting for it; None after ``timeout`` seconds or :meth:`stop`."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                self._bring_back(now)
                if self._ready:
                    return self._take(now)
                moments = [self._later[0][0]] if self._later else []
                if end is not None:
                    if now >= end:
                        return None
                    moments.append(end)
                wait = min(moments) - now if moments else None
                self._changed.wait(None if wait is None else min(wait, threading.TIMEOUT_MAX))
        return None

    def stop(self) -> None:
        """Make every :meth:`get` return None."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _bring_back(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            due, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)

    def _take(self, now: float) -> str:
        key = self._ready.popleft()
        waited = now - self._queued.pop(key)
        self._taken_at = now
        if self._metrics is not None:
            self._metrics.taken(len(self._ready), waited)
        return key

    def _add(self, key: str) -> None:
        if key in self._queued:
            return
        self._queued[key] = time.monotonic()
        self._ready.append(key)
        if self._metrics is not None:
            self._metrics.added(len(self._ready))
        self._changed.notify()

    def _add_later(self, key: str, due: float) -> None:
        if due < self._due.get(key, due + 1.0):
            self._due[key] = due
            heapq.heappush(self._later, (due, key))
            self._changed.notify()
