"""What an API server counts, by the names that kube-apiserver uses."""

import time
from collections.abc import Iterator

from kproxy import exposition, processmetrics
from kproxy.exposition import Family, Kind, Sample

from ..store import Store

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The instruments of one server. May be used from several threads."""

    def __init__(self) -> None:
        self.registry = exposition.Registry()
        labels = ("verb", "group", "version", "resource", "subresource")
        self.requests = self.registry.counter(
            "apiserver_request_total",
            "Requests by verb, resource and HTTP status.",
            *labels,
            "code",
        )
        self.durations = self.registry.histogram(
            "apiserver_request_duration_seconds",
            "Seconds from the head of a request to its answer, watches left out.",
            SECONDS,
            "verb",
            "resource",
        )
        self.watches = self.registry.gauge(
            "apiserver_longrunning_requests", "Open watches and streams.", "verb", "resource"
        )
        self.inflight = self.registry.gauge(
            "apiserver_current_inflight_requests", "Requests that are being answered."
        )
        self.connections = self.registry.gauge(
            "apiserver_open_connections", "Connections of clients."
        )
        self.refused = self.registry.counter(
            "apiserver_rejected_total", "What was turned away because of a limit.", "reason"
        )
        self.watchers = self.registry.gauge(
            "apiserver_registered_watchers", "Open watches.", "group", "version", "kind"
        )
        self.registry.collect_by(processmetrics.collect)

    def of_store(self, store: Store) -> None:
        """Expose what a server remembers of its store, and how fresh that is."""

        def collect() -> Iterator[Family]:
            for name, words, found in (
                (
                    "apiserver_storage_objects",
                    "Objects that are stored, by resource.",
                    {name: count for name, (count, _) in store.sizes().items()},
                ),
                (
                    "apiserver_watch_cache_resource_version",
                    "The version of the last change of a resource that this server knows of.",
                    store.versions(),
                ),
            ):
                samples = [Sample({"resource": one}, value) for one, value in found.items()]
                yield Family(name, Kind.GAUGE, words, samples)
            for name, words, value in (
                (
                    "followed",
                    "Whether the store's changes are followed: 1, or 0, and watches are stale.",
                    float(not store.trouble),
                ),
                (
                    "last_event_timestamp_seconds",
                    "When the store last told of a change, in seconds since 1970; 0: never.",
                    store.heard_at,
                ),
            ):
                name = f"kproxy_watch_cache_{name}"
                yield Family(name, Kind.GAUGE, words, [Sample({}, value)])

        self.registry.collect_by(collect)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return self.registry.text().encode()


class Stopwatch:
    """Measures one request."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return how long it has taken so far."""
        return time.monotonic() - self._start
