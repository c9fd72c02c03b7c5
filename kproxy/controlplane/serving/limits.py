"""How much an API server takes on at once; what is more is turned away, not queued."""

import contextlib
import threading
from collections.abc import Iterator

from kproxy import errors

from .metrics import Metrics

REQUESTS = 400
"""Requests that are answered at once, watches left out (kube-apiserver's default)."""
CONNECTIONS = 4000
RETRY_AFTER_SECONDS = 1.0


class Limits:
    """Counts requests and connections of one server. May be used from several threads."""

    def __init__(
        self, metrics: Metrics, *, requests: int = REQUESTS, connections: int = CONNECTIONS
    ) -> None:
        self._metrics = metrics
        self._requests = requests
        self._connections = connections
        self._lock = threading.Lock()
        self._now = 0
        self._open = 0

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Answer a request within. Raises ApiError 429 if there are too many already."""
        with self._lock:
            is_too_much = self._now >= self._requests
            self._now += not is_too_much
        if is_too_much:
            self._metrics.refused.add("requests")
            error = errors.ApiError(429, "TooManyRequests", "Too many requests, please try again")
            error.retry_after = RETRY_AFTER_SECONDS
            raise error
        self._metrics.inflight.set(self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def connect(self) -> bool:
        """Count a new connection; return whether there is room for it."""
        with self._lock:
            if self._open >= self._connections:
                self._metrics.refused.add("connections")
                return False
            self._open += 1
            self._metrics.connections.set(self._open)
            return True

    def disconnect(self) -> None:
        """Count a connection that has ended."""
        with self._lock:
            self._open -= 1
            self._metrics.connections.set(self._open)
