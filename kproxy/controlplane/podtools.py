"""What the workers of all pods of a kubelet share: the machine, the clock, whom to tell."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kproxy import logs
from kproxy.api.pods import Pod

from .actions import Performer
from .images import Images
from .kubeletmetrics import KubeletMetrics
from .resolving import ClusterNames
from .runtime import PodRuntime

Object = dict[str, Any]


class Recorder(Protocol):
    """Takes Events about pods (what ``kubectl describe`` shows)."""

    def note(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """Take an Event; never waits."""
        ...


class Silent:
    """Takes Events and tells nobody."""

    def note(self, pod: Pod, reason: str, message: str, *, warning: bool = False) -> None:
        """See :class:`Recorder`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """``today`` returns the wall clock as Kubernetes writes it; ``host_ips``: the node's."""

    node_name: str
    runtime: PodRuntime
    performer: Performer
    log: logs.Log
    today: Callable[[], str]
    host_ips: tuple[str, ...] = ()
    resolving: ClusterNames = field(default_factory=ClusterNames)
    images: Images = field(default_factory=Images)
    events: Recorder = field(default_factory=Silent)
    metrics: KubeletMetrics = field(default_factory=KubeletMetrics)


def names(pod: Pod) -> dict[str, str]:
    """Return by which fields log lines name a pod."""
    meta = pod.metadata
    return {"pod": f"{meta.namespace}/{meta.name}", "uid": meta.uid}
