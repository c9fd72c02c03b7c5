"""What the prober counts: ``kproxy_probe_*`` by Service, and how well it keeps its own time."""

from kproxy.exposition import Registry

from .targets import Target

SECONDS = tuple(digit * 10.0**power for power in range(-4, 1) for digit in (1, 2, 5))
"""0.1 ms to 5 s."""

_LABELS = ("namespace", "service", "port", "protocol", "probe", "node")


class ProbeMetrics:
    """The instruments of one prober on a node. May be used from any thread."""

    def __init__(self, node: str) -> None:
        self.registry = registry = Registry()
        self._node = node
        self._sent = registry.counter("kproxy_probe_sent_total", "Probes sent.", *_LABELS)
        self._lost = registry.counter(
            "kproxy_probe_lost_total",
            "Probes without an answer in time, those that could not be sent among them.",
            *_LABELS,
        )
        self._seconds = registry.histogram(
            "kproxy_probe_duration_seconds",
            "How many seconds answers to probes took.",
            SECONDS,
            *_LABELS,
        )
        self.targets = registry.gauge(
            "kproxy_prober_targets", "What is probed: an address and port, by a kind of probe."
        )
        self.left_out = registry.gauge(
            "kproxy_prober_targets_left_out", "What is not probed because there is too much."
        )
        self.lag = registry.histogram(
            "kproxy_prober_lag_seconds",
            "How many seconds later than due probes were sent: the prober's own fault.",
            SECONDS,
        )

    def begin(self, target: Target) -> None:
        """Show a target, with zeros: a rate needs a beginning."""
        labels = self._labels(target)
        self._sent.add(*labels, by=0)
        self._lost.add(*labels, by=0)
        self._seconds.begin(*labels)

    def sent(self, target: Target) -> None:
        """Count a probe."""
        self._sent.add(*self._labels(target))

    def answered(self, target: Target, seconds: float) -> None:
        """Count an answer."""
        self._seconds.observe(seconds, *self._labels(target))

    def lost(self, target: Target) -> None:
        """Count a probe without an answer."""
        self._lost.add(*self._labels(target))

    def forget(self, target: Target) -> None:
        """Show a target, and those that have its labels, no more."""
        labels = self._labels(target)
        for each in (self._sent, self._lost, self._seconds):
            each.remove(*labels)

    def _labels(self, target: Target) -> tuple[str, ...]:
        return *target.labels, self._node
