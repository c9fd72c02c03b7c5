"""What a scheduler counts, under the names of Kubernetes' scheduler."""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from kproxy.exposition import Family, Kind, Registry, Sample

BOUNDS = tuple(0.001 * 2**power for power in range(15))
"""Kubernetes': 1 ms to 16 s."""


class Result(StrEnum):
    """How an attempt to give a pod a node ended."""

    SCHEDULED = "scheduled"
    UNSCHEDULABLE = "unschedulable"
    ERROR = "error"


class SchedulerMetrics:
    """The instruments of one scheduler, which knows one profile: the scheduler's name."""

    def __init__(self, registry: Registry, profile: str) -> None:
        self._profile = profile
        self._registry = registry
        self._attempts = registry.counter(
            "scheduler_schedule_attempts_total",
            "Attempts to give a pod a node, by how they ended.",
            *("profile", "result"),
        )
        self._seconds = registry.histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "How many seconds attempts took, the binding among them.",
            BOUNDS,
            *("profile", "result"),
        )
        self.algorithm = registry.histogram(
            "scheduler_scheduling_algorithm_duration_seconds",
            "How many seconds it took to choose a node.",
            BOUNDS,
        )
        for result in Result:
            self._attempts.add(profile, result, by=0)
            self._seconds.begin(profile, result)

    def attempted(self, result: Result, seconds: float) -> None:
        """Count an attempt."""
        self._attempts.add(self._profile, result)
        self._seconds.observe(seconds, self._profile, result)

    def pending_by(self, ask: Callable[[], Mapping[str, int]]) -> None:
        """Expose how many pods wait; ``ask`` tells it by queue."""

        def collect() -> Iterable[Family]:
            samples = [Sample({"queue": queue}, count) for queue, count in ask().items()]
            words = "Pods that wait: to be looked at, for their back-off, or for a change."
            yield Family("scheduler_pending_pods", Kind.GAUGE, words, samples)

        self._registry.collect_by(collect)
