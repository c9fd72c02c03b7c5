"""What the kubelet counts, under the names of Kubernetes' kubelet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kproxy import exposition, processmetrics
from kproxy.client import rest, watchmetrics
from kproxy.client.informer import Informer
from kproxy.client.requestmetrics import RequestMetrics

_START_BOUNDS = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600)
_STEP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class KubeletMetrics:
    """The instruments of one kubelet; all may be used by any thread."""

    def __init__(self) -> None:
        self.registry = registry = exposition.Registry()
        self.running_pods = registry.gauge("kubelet_running_pods", "Pods with a running sandbox.")
        self.running_containers = registry.gauge(
            "kubelet_running_containers", "Containers by state.", "container_state"
        )
        self.started_pods = registry.counter("kubelet_started_pods_total", "Sandboxes made.")
        self.pod_errors = registry.counter(
            "kubelet_started_pods_errors_total", "Sandboxes that could not be made."
        )
        self.started_containers = registry.counter(
            "kubelet_started_containers_total", "Containers started.", "container_type"
        )
        self.container_errors = registry.counter(
            "kubelet_started_containers_errors_total",
            "Containers that could not be started.",
            "container_type",
            "code",
        )
        self.pod_start = registry.histogram(
            "kubelet_pod_start_duration_seconds",
            "From the first sight of a pod to the first start of all its containers.",
            _START_BOUNDS,
        )
        self.step = registry.histogram(
            "kubelet_pleg_relist_duration_seconds",
            "How long one round of the kubelet took: there is no PLEG, ends of processes are "
            "events, and a round looks at every pod.",
            _STEP_BOUNDS,
        )
        self.probes = registry.counter(
            "prober_probe_total",
            "Probes by result.",
            *("probe_type", "result", "container", "pod", "namespace", "pod_uid"),
        )
        self._of_server(registry)

    def of_process(
        self, node: str, client: rest.Rest | None, informers: Sequence[Informer[Any]]
    ) -> None:
        """Expose what is known of the kubelet's process, and of what it asks an API server."""
        registry = self.registry
        registry.gauge("kubelet_node_name", "The node's name; always 1.", "node").set(1, node)
        registry.collect_by(processmetrics.collect)
        registry.collect_by(lambda: watchmetrics.families(informers))
        if client is not None:
            client.exchanges.listen(RequestMetrics(registry, client.host).observe)

    def _of_server(self, registry: exposition.Registry) -> None:
        self.server_requests = registry.counter(
            "kubelet_http_requests_total", "Requests to the kubelet.", "method", "path"
        )
        self.refused_connections = registry.counter(
            "kubelet_http_refused_connections_total", "Connections for which there was no room."
        )


@dataclass(slots=True)
class Census:
    """How many pods and containers there are in which state."""

    pods: int = 0
    containers: dict[str, int] = field(default_factory=dict)

    def count(self, sandbox: bool, states: Iterable[str]) -> None:
        """Count a pod."""
        self.pods += sandbox
        for state in states:
            self.containers[state] = self.containers.get(state, 0) + 1

    def tell(self, metrics: KubeletMetrics) -> None:
        """Set the gauges."""
        metrics.running_pods.set(self.pods)
        for state in ("created", "running", "exited"):
            metrics.running_containers.set(self.containers.get(state, 0), state)
