"""What actions ask the API server before they act: pods of proxies, nodes, who leads."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kproxy import rfc3339
from kproxy.api import catalog, kinds
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.errors import UsageError

Object = dict[str, Any]

SYSTEM = "kube-system"
MANAGER = "kube-controller-manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Which pods are the nodes' proxies."""

    namespace: str = SYSTEM
    labels: Mapping[str, str] = field(default_factory=lambda: {"k8s-app": "kube-proxy"})

    @classmethod
    def of(cls, options: Mapping[str, str]) -> "Proxies":
        """Read ``proxyNamespace`` and ``proxyLabels`` (``a=b,c=d``). Raises UsageError."""
        namespace = options.get("proxyNamespace", SYSTEM)
        text = options.get("proxyLabels", "k8s-app=kube-proxy")
        pairs = [one.partition("=") for one in text.split(",")]
        if any(not name or not equals for name, equals, _ in pairs):
            raise UsageError(
                f"proxyLabels: {text!r} are no labels", remedy="write name=value,name=value"
            )
        return cls(namespace=namespace, labels={name: value for name, _, value in pairs})


class ClusterFacts:
    """Asks each time. Methods raise ApiError, Unreachable."""

    def __init__(
        self, rest: Rest, proxies: Proxies, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._objects = ObjectClient(rest)
        self._proxies = proxies
        self._wall = wall

    @property
    def objects(self) -> ObjectClient:
        """Return what reads and writes objects."""
        return self._objects

    def proxy_pods(self, node: str) -> list[Object]:
        """Return the pods of the proxy on a node."""
        pods = self._objects.list_objects(
            catalog.POD, self._proxies.namespace, self._proxies.labels
        )
        return [pod for pod in pods if (pod.get("spec") or {}).get("nodeName") == node]

    def node(self, name: str) -> Object | None:
        """Return a node; None: there is none."""
        return self._objects.get(kinds.NODE, "", name)

    def nodes(self) -> Sequence[Object]:
        """Return all nodes."""
        return self._objects.list_objects(kinds.NODE)

    def daemon_set_of(self, pod: Object) -> Object | None:
        """Return the DaemonSet that made a pod and would make it again; None: there is none."""
        meta = pod["metadata"]
        for owner in meta.get("ownerReferences") or ():
            if owner.get("kind") == "DaemonSet" and owner.get("controller"):
                found = self._objects.get(catalog.DAEMON_SET, meta["namespace"], owner["name"])
                alive = found is not None and not found["metadata"].get("deletionTimestamp")
                same = alive and found is not None and found["metadata"]["uid"] == owner["uid"]
                return found if same else None
        return None

    def leadership(self, component: str = MANAGER) -> "Leadership":
        """Return what the Lease of a component's replicas says."""
        lease = self._objects.get(catalog.LEASE, SYSTEM, component)
        spec = (lease or {}).get("spec") or {}
        return Leadership(
            holder=str(spec.get("holderIdentity") or ""),
            acquired=rfc3339.seconds_of(spec.get("acquireTime")) or 0.0,
            renewed=rfc3339.seconds_of(spec.get("renewTime")) or 0.0,
            lasts=float(spec.get("leaseDurationSeconds") or 15),
        )

    def leader(self, component: str = MANAGER) -> str:
        """Return who leads the replicas of a component now; empty: nobody does."""
        found = self.leadership(component)
        return found.holder if self._wall() - found.renewed <= found.lasts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """A Lease. Times are seconds since 1970; 0: never."""

    holder: str
    acquired: float
    renewed: float
    lasts: float

    @property
    def host(self) -> str:
        """Return the host of the holder: identities begin with it, by convention."""
        return self.holder.partition("_")[0]


def is_ready(node: Object) -> bool:
    """Return whether a node's kubelet says that it is ready, and is heard."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def is_schedulable(node: Object) -> bool:
    """Return whether pods without tolerations may be placed there."""
    spec = node.get("spec") or {}
    closed = [
        taint
        for taint in spec.get("taints") or ()
        if taint.get("effect") in ("NoSchedule", "NoExecute")
    ]
    return not spec.get("unschedulable") and not closed
