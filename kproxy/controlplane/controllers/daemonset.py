"""DaemonSets: keeps one pod on every node, and replaces them one by one for a new template.

As in Kubernetes, a pod that is being deleted keeps its place until it is gone (the new one may
need its ports); a pod that has failed is deleted and replaced. A rolling update goes through the
nodes in the order of their names. Either it never takes more than ``maxUnavailable`` (default 1)
out of service; or, with ``maxSurge``, it starts new pods *beside* the old ones, on at most so many
nodes at a time, and deletes an old one when the new one is ready.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kproxy import logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster

from . import owned

Object = dict[str, Any]

HASH_LABEL = "controller-revision-hash"
COUNTER = "lastPodNumber"


class DaemonSetController:
    """Makes the pods of DaemonSets what they should be, one DaemonSet at a time."""

    kind = catalog.DAEMON_SET

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._numbers: dict[str, int] = {}

    def reconcile(self, key: str) -> None:
        """Bring one DaemonSet nearer to what it should be. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        daemon_set = self._cluster.get(self.kind, namespace, name)
        found = self._cluster.list_objects(catalog.POD, namespace)
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
        digest = owned.template_hash(daemon_set["spec"]["template"])
        kept = self._clean(daemon_set, digest, nodes, pods)
        for node in nodes:
            if not kept[node]:
                kept[node] = [self._create(key, daemon_set, digest, node)]
        if _max_surge(daemon_set, len(nodes)):
            self._surge(key, daemon_set, digest, kept)
        else:
            self._roll(daemon_set, digest, kept)
        self._report(key, daemon_set, digest, kept)

    def _count(self, key: str, daemon_set: Object, pods: Sequence[Object]) -> None:
        name = daemon_set["metadata"]["name"]
        known = (daemon_set.get("status") or {}).get(COUNTER, 0)
        highest = max((owned.number(name, pod) for pod in pods), default=0)
        self._numbers[key] = max(self._numbers.get(key, 0), known, highest)

    def _clean(
        self, daemon_set: Object, digest: str, nodes: Sequence[str], pods: Sequence[Object]
    ) -> dict[str, list[Object]]:
        """Delete the pods that must go; return those that hold a place on each node.

        Where surge is allowed an old and a new pod may run side by side.
        """
        kept: dict[str, list[Object]] = {node: [] for node in nodes}
        surge = bool(_max_surge(daemon_set, len(nodes)))
        for pod in pods:
            node = pod["spec"].get("nodeName", "")
            if owned.owner(pod)["uid"] != daemon_set["metadata"]["uid"]:
                self._delete(pod, "owner is gone")
                kept.setdefault(node, []).append(pod)
            elif owned.finished(pod):
                # Nothing of it runs, so the API removes it at once and its place is free.
                self._delete(pod, "pod has ended")
            elif node not in kept:
                # Its kubelet may be gone with the node and would never confirm.
                self._delete(pod, "no such node", grace=0)
            elif owned.terminating(pod):
                kept[node].append(pod)
            elif _is_one_too_many(pod, kept[node], digest, surge=surge):
                self._delete(pod, "second pod of its node")
            else:
                kept[node].append(pod)
        return {node: kept[node] for node in nodes}

    def _roll(self, daemon_set: Object, digest: str, kept: Mapping[str, Sequence[Object]]) -> None:
        """Delete as many pods of an old template as may be out of service now."""
        if _strategy(daemon_set).get("type") == "OnDelete":
            return
        limits = _strategy(daemon_set).get("rollingUpdate") or {}
        limit = owned.share(limits.get("maxUnavailable"), len(kept), up=True, default=1)
        out = sum(not any(map(owned.ready, pods)) for pods in kept.values())
        for pods in kept.values():
            # One that is being deleted keeps the place of the next one.
            pod = pods[0]
            if any(map(owned.terminating, pods)) or _is_new(pod, digest):
                continue
            if owned.ready(pod):
                if out >= max(limit, 1):
                    continue
                out += 1
            self._delete(pod, "template has changed")

    def _surge(
        self, key: str, daemon_set: Object, digest: str, kept: Mapping[str, list[Object]]
    ) -> None:
        """Start new pods beside old ones, on as many nodes as allowed; delete what is replaced."""
        limit = _max_surge(daemon_set, len(kept))
        surging = sum(
            len(pods) > 1 and any(_is_new(pod, digest) for pod in pods) for pods in kept.values()
        )
        for node, pods in kept.items():
            old = [pod for pod in pods if not owned.terminating(pod) and not _is_new(pod, digest)]
            new = [pod for pod in pods if not owned.terminating(pod) and _is_new(pod, digest)]
            if not old:
                continue
            if any(map(owned.ready, new)):
                self._delete(old[0], "its successor is ready")
            elif not new and (surging < limit or not owned.ready(old[0])):
                # One that serves nobody is replaced without waiting for its turn.
                surging += owned.ready(old[0])
                pods.append(self._create(key, daemon_set, digest, node))

    def _create(self, key: str, daemon_set: Object, digest: str, node: str) -> Object:
        self._numbers[key] += 1
        name = f"{daemon_set['metadata']['name']}-{self._numbers[key]}"
        pod = owned.make(self.kind, daemon_set, name, node, {HASH_LABEL: digest})
        made = self._cluster.create(catalog.POD, pod)
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
            catalog.POD, meta["namespace"], meta["name"], grace=grace, uid=meta["uid"]
        )

    def _report(
        self, key: str, daemon_set: Object, digest: str, kept: Mapping[str, Sequence[Object]]
    ) -> None:
        ready = sum(any(map(owned.ready, pods)) for pods in kept.values())
        updated = sum(any(_is_new(pod, digest) for pod in pods) for pods in kept.values())
        status: Object = {
            "observedGeneration": daemon_set["metadata"]["generation"],
            "desiredNumberScheduled": len(kept),
            "currentNumberScheduled": len(kept),
            "updatedNumberScheduled": updated,
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(kept) - ready,
            "numberMisscheduled": 0,
            COUNTER: self._numbers[key],
        }
        if status != daemon_set.get("status"):
            self._cluster.update_status(self.kind, {**daemon_set, "status": status})


def _strategy(daemon_set: Object) -> Object:
    return daemon_set["spec"].get("updateStrategy") or {}


def _max_surge(daemon_set: Object, nodes: int) -> int:
    """Return on how many nodes two pods may run during an update; 0: replace them in place."""
    if _strategy(daemon_set).get("type") == "OnDelete":
        return 0
    limits = _strategy(daemon_set).get("rollingUpdate") or {}
    return owned.share(limits.get("maxSurge"), nodes, up=True, default=0)


def _is_new(pod: Object, digest: str) -> bool:
    return bool(pod["metadata"]["labels"].get(HASH_LABEL) == digest)


def _is_one_too_many(pod: Object, kept: Sequence[Object], digest: str, *, surge: bool) -> bool:
    """Return whether a pod's place on its node is taken by those that were kept before it."""
    if not surge:
        return bool(kept)
    alike = [one for one in kept if _is_new(one, digest) == _is_new(pod, digest)]
    return any(not owned.terminating(one) for one in alike)
