"""What an API server counts, by the names that kube-apiserver uses."""

import time

from kproxy import exposition

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The instruments of one server. May be used from several threads."""

    def __init__(self) -> None:
        self._registry = exposition.Registry()
        labels = ("verb", "group", "version", "resource", "subresource")
        self.requests = self._registry.counter(
            "apiserver_request_total",
            "Requests by verb, resource and HTTP status.",
            *labels,
            "code",
        )
        self.durations = self._registry.histogram(
            "apiserver_request_duration_seconds",
            "Seconds from the head of a request to its answer, watches left out.",
            SECONDS,
            "verb",
            "resource",
        )
        self.watches = self._registry.gauge(
            "apiserver_longrunning_requests", "Open watches and streams.", "verb", "resource"
        )
        self.inflight = self._registry.gauge(
            "apiserver_current_inflight_requests", "Requests that are being answered."
        )
        self.connections = self._registry.gauge(
            "apiserver_open_connections", "Connections of clients."
        )
        self.refused = self._registry.counter(
            "apiserver_rejected_total", "What was turned away because of a limit.", "reason"
        )

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return self._registry.text().encode()


class Stopwatch:
    """Measures one request."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return time.monotonic() - self._start
