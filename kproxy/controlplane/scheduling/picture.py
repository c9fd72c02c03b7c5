"""The scheduler's picture of nodes and of the pods that have a place on them.

Fed by informers and by the scheduler itself, which knows a pod's place as soon as it has bound it,
some time before the watch tells. Any thread may call.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kproxy.api import catalog
from kproxy.controlplane.controllers import owned

from . import terms

Object = dict[str, Any]

HostPort = tuple[str, str, int]
"""Address (empty: all), protocol and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedPod:
    """What matters of a pod that is somewhere, for where others go."""

    uid: str
    namespace: str
    labels: Mapping[str, str]
    owner: str
    """Uid of its controller, or empty."""
    daemon_set: bool
    leaving: bool
    ports: frozenset[HostPort]
    keeps_away: tuple[terms.PodTerm, ...]
    """Its required anti-affinity, which others must respect."""


@dataclass(slots=True)
class NodeInfo:
    """A node and the pods on it that have not ended."""

    node: Object
    pods: dict[str, PlacedPod] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the node's name."""
        return str(self.node["metadata"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        """Return the node's labels."""
        return self.node["metadata"].get("labels") or {}


def placed(pod: Object) -> PlacedPod:
    """Return what matters of a pod."""
    owner = owned.owner(pod)
    return PlacedPod(
        uid=owned.uid(pod),
        namespace=pod["metadata"].get("namespace", ""),
        labels=pod["metadata"].get("labels") or {},
        owner=str(owner.get("uid") or ""),
        daemon_set=owner.get("kind") == catalog.DAEMON_SET.name,
        leaving=owned.terminating(pod),
        ports=frozenset(_host_ports(pod["spec"])),
        keeps_away=tuple(terms.required(pod, "podAntiAffinity")),
    )


def _host_ports(spec: Object) -> list[HostPort]:
    """Return the ports of the node that a pod takes: in its network every port is the node's."""
    found = []
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            number = port.get("hostPort")
            if not number and spec.get("hostNetwork"):
                number = port.get("containerPort")
            if number:
                address = port.get("hostIP") or ""
                wild = address in ("0.0.0.0", "::")  # noqa: S104  compared, not bound
                found.append(("" if wild else address, port.get("protocol") or "TCP", number))
    return found


class Picture:
    """Nodes by name, each with its pods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, Object] = {}
        self._pods: dict[str, dict[str, PlacedPod]] = {}
        self._place: dict[str, str] = {}
        """Node of each pod, by the pod's uid."""
        self._assumed: set[str] = set()
        """Uids of those whose place the watch has not told yet."""

    def heard_node(self, old: Object | None, new: Object | None) -> None:
        """Take what the watch tells of a node."""
        with self._lock:
            if new is not None:
                self._nodes[new["metadata"]["name"]] = new
            elif old is not None:
                self._nodes.pop(old["metadata"]["name"], None)

    def heard_pod(self, old: Object | None, new: Object | None) -> None:
        """Take what the watch tells of a pod."""
        with self._lock:
            if old is not None and (new is None or owned.uid(old) != owned.uid(new)):
                self._remove(owned.uid(old))
            if new is None:
                return
            node = new["spec"].get("nodeName")
            if owned.finished(new):
                self._remove(owned.uid(new))
            elif node:
                self._put(new, node)

    def assume(self, pod: Object, node: str) -> None:
        """Take note that a pod is about to be bound, which the watch will tell, too."""
        with self._lock:
            if owned.uid(pod) not in self._place:
                self._put(pod, node)
                self._assumed.add(owned.uid(pod))

    def forget(self, uid: str) -> None:
        """Take note that a pod was not bound after all."""
        with self._lock:
            if uid in self._assumed:
                self._remove(uid)

    def knows(self, uid: str) -> bool:
        """Return whether a pod has a place already."""
        with self._lock:
            return uid in self._place

    def nodes(self) -> list[NodeInfo]:
        """Return all nodes by name."""
        with self._lock:
            return [
                NodeInfo(self._nodes[name], dict(self._pods.get(name, {})))
                for name in sorted(self._nodes)
            ]

    def _put(self, pod: Object, node: str) -> None:
        self._remove(owned.uid(pod))
        self._pods.setdefault(node, {})[owned.uid(pod)] = placed(pod)
        self._place[owned.uid(pod)] = node

    def _remove(self, uid: str) -> None:
        self._assumed.discard(uid)
        node = self._place.pop(uid, None)
        if node is not None:
            del self._pods[node][uid]
