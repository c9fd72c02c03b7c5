"""DaemonSets: keeps one pod on every node, and replaces them one by one for a new template.

As in Kubernetes, a pod that is being deleted keeps its place until it is gone (the new one may
need its ports); a pod that has failed is deleted and replaced. A rolling update goes through the
nodes in the order of their names and never takes more than ``maxUnavailable`` (default 1) out of
service.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kproxy import logs
from kproxy.api import kinds
from kproxy.controlplane.cluster import Cluster

from . import owned

Object = dict[str, Any]

HASH_LABEL = "controller-revision-hash"
COUNTER = "lastPodNumber"


class DaemonSetController:
    """Makes the pods of DaemonSets what they should be, one DaemonSet at a time."""

    kind = kinds.DAEMON_SET

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._numbers: dict[str, int] = {}

    def reconcile(self, key: str) -> None:
        """Bring one DaemonSet nearer to what it should be. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        daemon_set = self._cluster.get(self.kind, namespace, name)
        found = self._cluster.list_objects(kinds.POD, namespace)
        pods = owned.owned_by(self.kind, name, found)
        if daemon_set is None:
            self._numbers.pop(key, None)
            for pod in pods:
                self._delete(pod, "owner is gone")
            return
        self._count(key, daemon_set, pods)
        selector = daemon_set["spec"]["template"]["spec"].get("nodeSelector")
        nodes = sorted(
            node["metadata"]["name"]
            for node in self._cluster.list_objects(kinds.NODE, labels=selector)
        )
        kept = self._clean(daemon_set, nodes, pods)
        digest = owned.template_hash(daemon_set["spec"]["template"])
        for node in nodes:
            if node not in kept:
                kept[node] = self._create(key, daemon_set, digest, node)
        self._roll(daemon_set, digest, nodes, kept)
        self._report(key, daemon_set, digest, nodes, kept)

    def _count(self, key: str, daemon_set: Object, pods: Sequence[Object]) -> None:
        name = daemon_set["metadata"]["name"]
        known = (daemon_set.get("status") or {}).get(COUNTER, 0)
        highest = max((owned.number(name, pod) for pod in pods), default=0)
        self._numbers[key] = max(self._numbers.get(key, 0), known, highest)

    def _clean(
        self, daemon_set: Object, nodes: Sequence[str], pods: Sequence[Object]
    ) -> dict[str, Object]:
        """Delete the pods that must go; return those that hold a node's place."""
        kept: dict[str, Object] = {}
        for pod in pods:
            node = pod["spec"].get("nodeName", "")
            if owned.owner(pod)["uid"] != daemon_set["metadata"]["uid"]:
                self._delete(pod, "owner is gone")
                kept.setdefault(node, pod)
            elif owned.finished(pod):
                # Nothing of it runs, so the API removes it at once and its place is free.
                self._delete(pod, "pod has ended")
            elif node not in nodes:
                # Its kubelet may be gone with the node and would never confirm.
                self._delete(pod, "no such node", grace=0)
            elif node in kept and not owned.terminating(pod):
                self._delete(pod, "second pod of its node")
            else:
                kept.setdefault(node, pod)
        return kept

    def _roll(
        self, daemon_set: Object, digest: str, nodes: Sequence[str], kept: Mapping[str, Object]
    ) -> None:
        """Delete as many pods of an old template as may be out of service now."""
        strategy = daemon_set["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        limits = strategy.get("rollingUpdate") or {}
        limit = owned.share(limits.get("maxUnavailable"), len(nodes), up=True, default=1)
        out = sum(not owned.ready(kept[node]) for node in nodes)
        for node in nodes:
            pod = kept[node]
            if owned.terminating(pod) or pod["metadata"]["labels"].get(HASH_LABEL) == digest:
                continue
            if owned.ready(pod):
                if out >= max(limit, 1):
                    continue
                out += 1
            self._delete(pod, "template has changed")

    def _create(self, key: str, daemon_set: Object, digest: str, node: str) -> Object:
        self._numbers[key] += 1
        name = f"{daemon_set['metadata']['name']}-{self._numbers[key]}"
        pod = owned.make(self.kind, daemon_set, name, node, {HASH_LABEL: digest})
        made = self._cluster.create(kinds.POD, pod)
        self._log.info(
            "pod created",
            pod=f"{made['metadata']['namespace']}/{name}",
            node=node,
            uid=made["metadata"]["uid"],
        )
        return made

    def _delete(self, pod: Object, reason: str, grace: int | None = None) -> None:
        meta = pod["metadata"]
        if owned.terminating(pod) and grace is None:
            return
        self._log.info(
            "pod deleted",
            pod=f"{meta['namespace']}/{meta['name']}",
            uid=meta["uid"],
            reason=reason,
        )
        self._cluster.delete(
            kinds.POD, meta["namespace"], meta["name"], grace=grace, uid=meta["uid"]
        )

    def _report(
        self,
        key: str,
        daemon_set: Object,
        digest: str,
        nodes: Sequence[str],
        kept: Mapping[str, Object],
    ) -> None:
        pods = [kept[node] for node in nodes]
        ready = sum(owned.ready(pod) for pod in pods)
        updated = sum(pod["metadata"]["labels"].get(HASH_LABEL) == digest for pod in pods)
        status: Object = {
            "observedGeneration": daemon_set["metadata"]["generation"],
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(pods),
            "updatedNumberScheduled": updated,
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(nodes) - ready,
            "numberMisscheduled": 0,
            COUNTER: self._numbers[key],
        }
        if status != daemon_set.get("status"):
            self._cluster.update_status(self.kind, {**daemon_set, "status": status})
