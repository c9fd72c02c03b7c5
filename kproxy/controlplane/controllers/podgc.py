"""Removes pods that no kubelet will remove: of nodes that are gone, never bound, or ended.

Looks at all pods every 20 seconds, as Kubernetes does.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster
from kproxy.rfc3339 import timestamp

from . import conditions, owned, taints
from .times import DEFAULT, Times

Object = dict[str, Any]

KEY = "pods"


class PodGarbageCollector:
    """Looks at all pods together. ``now`` is monotonic, ``wall`` the time of day; seconds."""

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        *,
        times: Times = DEFAULT,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._times = times
        self._now = now
        self._wall = wall
        self._missing: dict[str, float] = {}
        """Nodes that pods name and nobody knows, and since when that was seen."""

    def reconcile(self, key: str) -> float | None:
        """Remove what nobody needs; return in how many seconds to look again."""
        pods = self._cluster.list_objects(catalog.POD)
        nodes = {one["metadata"]["name"]: one for one in self._cluster.list_objects(kinds.NODE)}
        gone = self._gone_nodes(pods, nodes)
        for pod in ended(pods, self._times.terminated_pods):
            self._remove(pod, "ended", fail=False)
        for pod in pods:
            name = pod["spec"].get("nodeName")
            if name in gone:
                self._remove(pod, "its node is gone")
            elif owned.terminating(pod) and not name:
                self._remove(pod, "deleted before it was bound")
            elif owned.terminating(pod) and name in nodes and _out_of_service(nodes[name]):
                self._remove(pod, "its node is out of service")
        return self._times.pod_gc

    def _gone_nodes(self, pods: Iterable[Object], nodes: dict[str, Object]) -> set[str]:
        """Return the nodes that are missing for long enough, and not only in our picture."""
        named = {pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")}
        now = self._now()
        missing = named - nodes.keys()
        self._missing = {name: self._missing.get(name, now) for name in missing}
        quarantine = self._times.orphan_quarantine
        due = [name for name, since in self._missing.items() if now - since >= quarantine]
        return {name for name in due if self._cluster.fresh(kinds.NODE, "", name) is None}

    def _remove(self, pod: Object, why: str, *, fail: bool = True) -> None:
        """Remove a pod at once; its trouble is not the others', and is met again."""
        meta = pod["metadata"]
        try:
            if fail and not owned.finished(pod):
                self._fail(pod, why)
            self._cluster.delete(
                catalog.POD, meta["namespace"], meta["name"], grace=0, uid=meta["uid"]
            )
        except errors.KproxyError as error:
            self._log.warning("pod not removed", pod=owned.key_of(pod), error=str(error))
        else:
            self._log.info("pod removed", pod=owned.key_of(pod), uid=meta["uid"], why=why)

    def _fail(self, pod: Object, why: str) -> None:
        """Mark a pod as failed, so that whoever counts it sees its end."""
        told = conditions.disrupted(
            pod, "DeletionByPodGC", f"PodGC: {why}", timestamp(self._wall())
        )
        new = {**(pod.get("status") or {}), "phase": "Failed", "conditions": told}
        self._cluster.update_status(catalog.POD, {**pod, "status": new})


def ended(pods: Iterable[Object], most: int) -> list[Object]:
    """Return the pods that have ended beyond the number that is kept, the oldest first."""
    found = [pod for pod in pods if owned.finished(pod) and not owned.terminating(pod)]
    found.sort(key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", owned.key_of(pod)))
    return found[: max(len(found) - most, 0)] if most > 0 else []


def _out_of_service(node: Object) -> bool:
    lost = taints.condition(node, "Ready") != "True"
    return lost and any(one.get("key") == taints.OUT_OF_SERVICE for one in taints.of(node))
