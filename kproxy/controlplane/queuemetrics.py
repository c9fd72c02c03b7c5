"""What a manager measures, under the names of Kubernetes' controller manager."""

from collections.abc import Callable, Iterable, Mapping

from kproxy import exposition
from kproxy.exposition import Family, Kind, Sample

_BOUNDS = tuple(10.0**power for power in range(-8, 4))
"""Kubernetes': 10 ns to 1000 s."""


class ManagerMetrics:
    """The instruments of one manager; all may be used by any thread."""

    def __init__(self) -> None:
        self.registry = registry = exposition.Registry()
        self.leader = registry.gauge(
            "leader_election_master_status",
            "Whether this process is the leader of the lease: 1, or 0.",
            "name",
        )
        self._depth = registry.gauge("workqueue_depth", "Keys that wait.", "name")
        self._adds = registry.counter("workqueue_adds_total", "Keys that were queued.", "name")
        self._retries = registry.counter("workqueue_retries_total", "Keys that failed.", "name")
        self._waited = registry.histogram(
            "workqueue_queue_duration_seconds", "How long keys waited.", _BOUNDS, "name"
        )
        self._worked = registry.histogram(
            "workqueue_work_duration_seconds", "How long keys were worked on.", _BOUNDS, "name"
        )

    def queue(self, name: str) -> "NamedQueue":
        """Return the metrics of one queue."""
        self._depth.set(0, name)
        self._adds.add(name, by=0)
        self._retries.add(name, by=0)
        return NamedQueue(self, name)

    def working(self, queues: Mapping[str, Callable[[], float]]) -> None:
        """Expose for how long each queue's present key has been worked on."""

        def collect() -> Iterable[Family]:
            samples = [Sample({"name": name}, ask()) for name, ask in sorted(queues.items())]
            for name, words in (
                ("unfinished_work", "How long keys that are in work have been."),
                ("longest_running_processor", "How long the slowest worker has been at its key."),
            ):
                yield Family(f"workqueue_{name}_seconds", Kind.GAUGE, words, samples)

        self.registry.collect_by(collect)


class NamedQueue:
    """Fulfils :class:`kproxy.controlplane.workqueue.QueueMetrics`."""

    def __init__(self, metrics: ManagerMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def added(self, depth: int) -> None:
        """See ``QueueMetrics``."""
        self._metrics._adds.add(self._name)
        self._metrics._depth.set(depth, self._name)

    def taken(self, depth: int, waited: float) -> None:
        """See ``QueueMetrics``."""
        self._metrics._depth.set(depth, self._name)
        self._metrics._waited.observe(waited, self._name)

    def done(self, worked: float) -> None:
        """See ``QueueMetrics``."""
        self._metrics._worked.observe(worked, self._name)

    def retried(self) -> None:
        """See ``QueueMetrics``."""
        self._metrics._retries.add(self._name)
