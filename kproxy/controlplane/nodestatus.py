"""What a kubelet tells of its node: the Node object, and a Lease that says it is alive.

The Lease is renewed every 10 s; the Node is written when something about it changes, and every 5
minutes (Kubernetes docs, "Nodes", "Heartbeats"). Intervals are varied a little, by a draw from the
node's name, so that after an outage not all nodes come in the same moment.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kproxy import errors
from kproxy.api import catalog, kinds

from .cluster import Cluster
from .presentation.openapi import VERSION
from .probes import draw

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
KUBELET_PORT = 10250
PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds, as production Kubernetes has them."""

    lease_renew: float = 10.0
    lease_duration: int = 40
    report: float = 300.0
    """An unchanged node is reported again after so long."""
    jitter: float = 0.04
    """So large a part of an interval is drawn by lot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is told of a node; ``info``: of the machine, for ``nodeInfo``."""

    name: str
    addresses: Sequence[str]
    pod_cidrs: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, str] = field(default_factory=dict)
    pods: int = 110
    port: int = KUBELET_PORT
    cpus: int = 1
    memory: str = "1048576Ki"


def intervals(name: str, seconds: float, jitter: float) -> Iterator[float]:
    """Yield the lengths of a node's intervals, ever new ones, the same in every run."""
    number = 0
    while True:
        yield seconds * (1 + jitter * draw(name, str(number)))
        number += 1


class NodeObject:
    """The Node object of a kubelet."""

    def __init__(self, cluster: Cluster, facts: NodeFacts) -> None:
        self._cluster = cluster
        self._facts = facts

    def report(self, today: str, trouble: str = "") -> None:
        """Create the Node if it is missing, and say how it is. Raises KproxyError.

        ``trouble``: why pods cannot run on it now; empty: they can.
        """
        facts = self._facts
        node = self._cluster.get(kinds.NODE, "", facts.name)
        if node is None:
            new = self._new(today, trouble)
            node = self._cluster.create(kinds.NODE, new)
            if (node.get("status") or {}).get("addresses"):
                return  # it took the status, too
        status = self._status(node, today, trouble)
        self._cluster.update_status(kinds.NODE, {**node, "status": status})

    def _new(self, today: str, trouble: str) -> Object:
        facts = self._facts
        system = {"os": "linux", "arch": facts.info.get("architecture", "amd64")}
        labels = {
            "kubernetes.io/hostname": facts.name,
            # Under the old names too, as Kubernetes has it: many manifests still select by them.
            **{f"kubernetes.io/{key}": value for key, value in system.items()},
            **{f"beta.kubernetes.io/{key}": value for key, value in system.items()},
            **facts.labels,
        }
        spec: Object = {}
        if facts.pod_cidrs:
            spec = {"podCIDR": facts.pod_cidrs[0], "podCIDRs": list(facts.pod_cidrs)}
        status = self._status(None, today, trouble)
        return {"metadata": {"name": facts.name, "labels": labels}, "spec": spec, "status": status}

    def _status(self, node: Object | None, today: str, trouble: str) -> Object:
        facts = self._facts
        before = (node or {}).get("status") or {}
        capacity = {"cpu": str(facts.cpus), "memory": facts.memory, "pods": str(facts.pods)}
        addresses = [{"type": "InternalIP", "address": one} for one in facts.addresses]
        return {
            **before,
            "addresses": [*addresses, {"type": "Hostname", "address": facts.name}],
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": _conditions(before.get("conditions") or (), today, trouble),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
            "nodeInfo": {
                "operatingSystem": "linux",
                "architecture": "amd64",
                "kubeletVersion": VERSION,
                "kubeProxyVersion": VERSION,
                **facts.info,
            },
        }


def _conditions(before: Sequence[Object], today: str, trouble: str) -> list[Object]:
    """Return the conditions; those of others stay as they are."""
    known = {one["type"]: one for one in before}
    wanted = [(name, False, reason, words) for name, reason, words in PRESSURES]
    if trouble:
        wanted.append(("Ready", False, "KubeletNotReady", trouble))
    else:
        wanted.append(("Ready", True, "KubeletReady", "kubelet is posting ready status"))
    own = {name for name, *_ in wanted}
    result = [dict(one) for one in before if one["type"] not in own]
    for name, value, reason, words in wanted:
        status = "True" if value else "False"
        old = known.get(name, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        result.append(
            {
                "type": name,
                "status": status,
                "reason": reason,
                "message": words,
                "lastHeartbeatTime": today,
                "lastTransitionTime": since or today,
            }
        )
    return result


class NodeLease:
    """The Lease of a node."""

    def __init__(self, cluster: Cluster, name: str, duration: int) -> None:
        self._cluster = cluster
        self._name = name
        self._duration = duration
        self._known: Object | None = None

    def renew(self, now: str) -> None:
        """Say that the node is alive. ``now``: RFC 3339 with microseconds. Raises KproxyError.

        Usually one write; after a conflict it is read again the next time.
        """
        lease, self._known = self._known, None
        if lease is None:
            lease = self._cluster.get(catalog.LEASE, LEASE_NAMESPACE, self._name)
        spec = {
            "holderIdentity": self._name,
            "leaseDurationSeconds": self._duration,
            "renewTime": now,
        }
        if lease is None:
            lease = self._new(spec)
            self._known = self._cluster.create(catalog.LEASE, lease)
            return
        self._known = self._cluster.update(catalog.LEASE, {**lease, "spec": spec})

    def _new(self, spec: Object) -> Object:
        meta: Object = {"namespace": LEASE_NAMESPACE, "name": self._name}
        node = self._cluster.get(kinds.NODE, "", self._name)
        if node is None:
            raise errors.KproxyError(f"node {self._name} is not registered yet")
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": self._name,
            "uid": node["metadata"]["uid"],
        }
        return {"metadata": {**meta, "ownerReferences": [owner]}, "spec": spec}
