"""Deployments: keeps the wanted number of pods, each bound to a node.

Simpler than Kubernetes: pods belong to the Deployment itself (no ReplicaSet; a label tells the
pods of one template from those of another), and this controller chooses their nodes (no
scheduler): the ready node with the fewest pods of the Deployment, then the first by name.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster

from . import owned

Object = dict[str, Any]

HASH_LABEL = "pod-template-hash"
COUNTER = "lastPodNumber"
"""Where the status keeps the highest number ever used in a pod's name: names are not reused."""


class DeploymentController:
    """Makes the pods of Deployments what they should be, one Deployment at a time."""

    kind = catalog.DEPLOYMENT

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log
        self._numbers: dict[str, int] = {}

    def reconcile(self, key: str) -> None:
        """Bring one Deployment nearer to what it should be. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        deployment = self._cluster.get(self.kind, namespace, name)
        pods = owned.owned_by(self.kind, name, self._cluster.list_objects(catalog.POD, namespace))
        uid = deployment["metadata"]["uid"] if deployment else ""
        for pod in pods:
            stray = owned.owner(pod)["uid"] != uid
            if (stray or owned.finished(pod)) and not owned.terminating(pod):
                self._delete(pod, "owner is gone" if stray else "pod has ended")
        if deployment is None:
            self._numbers.pop(key, None)
            return
        pods = [pod for pod in pods if owned.owner(pod)["uid"] == uid]
        self._count(key, deployment, pods)
        active = [pod for pod in pods if not owned.terminating(pod) and not owned.finished(pod)]
        made = self._roll(key, deployment, active)
        self._report(key, deployment, active + made)

    def _count(self, key: str, deployment: Object, pods: Iterable[Object]) -> None:
        name = deployment["metadata"]["name"]
        known = (deployment.get("status") or {}).get(COUNTER, 0)
        highest = max((owned.number(name, pod) for pod in pods), default=0)
        self._numbers[key] = max(self._numbers.get(key, 0), known, highest)

    def _roll(self, key: str, deployment: Object, active: Sequence[Object]) -> list[Object]:
        """Create and delete pods as far as the strategy allows now; return the new ones."""
        spec = deployment["spec"]
        wanted = spec["replicas"]
        digest = owned.template_hash(spec["template"])
        new = [pod for pod in active if pod["metadata"]["labels"].get(HASH_LABEL) == digest]
        old = [pod for pod in active if pod not in new]
        surge, unavailable = _limits(deployment)
        for pod in sorted(new, key=_worst_first)[: max(len(new) - wanted, 0)]:
            self._delete(pod, "too many replicas")
        room = wanted + surge - len(active)
        made = []
        nodes = self._places(key, deployment, active) if min(wanted - len(new), room) > 0 else {}
        for _ in range(min(wanted - len(new), room)):
            node = min(nodes, key=lambda name: (nodes[name], name))
            nodes[node] += 1
            made.append(self._create(key, deployment, digest, node))
        # Old pods that are not ready serve nobody; of the ready ones some must stay.
        spare = sum(owned.ready(pod) for pod in active) - (wanted - unavailable)
        for pod in old:
            if owned.ready(pod):
                if spare <= 0:
                    continue
                spare -= 1
            self._delete(pod, "template has changed" if wanted else "too many replicas")
        return made

    def _create(self, key: str, deployment: Object, digest: str, node: str) -> Object:
        self._numbers[key] += 1
        name = f"{deployment['metadata']['name']}-{self._numbers[key]}"
        pod = owned.make(self.kind, deployment, name, node, {HASH_LABEL: digest})
        made = self._cluster.create(catalog.POD, pod)
        self._log.info("pod created", pod=_label(made), node=node, uid=made["metadata"]["uid"])
        return made

    def _places(self, key: str, deployment: Object, active: Iterable[Object]) -> dict[str, int]:
        """Return the nodes that may be chosen, with their number of pods of the Deployment."""
        selector = deployment["spec"]["template"]["spec"].get("nodeSelector")
        nodes = self._cluster.list_objects(kinds.NODE, labels=selector)
        load = Counter(pod["spec"].get("nodeName") for pod in active)
        names = [node["metadata"]["name"] for node in nodes if schedulable(node)]
        if not names:
            raise errors.KproxyError(
                f"Deployment {key}: no node is ready for its pods",
                remedy="start a kubelet, or uncordon a node",
            )
        return {name: load[name] for name in names}

    def _delete(self, pod: Object, reason: str) -> None:
        meta = pod["metadata"]
        self._log.info("pod deleted", pod=_label(pod), uid=meta["uid"], reason=reason)
        self._cluster.delete(catalog.POD, meta["namespace"], meta["name"], uid=meta["uid"])

    def _report(self, key: str, deployment: Object, pods: Sequence[Object]) -> None:
        spec, wanted = deployment["spec"], deployment["spec"]["replicas"]
        digest = owned.template_hash(spec["template"])
        ready = sum(owned.ready(pod) for pod in pods)
        updated = sum(pod["metadata"]["labels"].get(HASH_LABEL) == digest for pod in pods)
        _, unavailable = _limits(deployment)
        available = "True" if ready >= wanted - unavailable else "False"
        status: Object = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(wanted - ready, 0),
            "conditions": [{"type": "Available", "status": available}],
            COUNTER: self._numbers[key],
        }
        if status != deployment.get("status"):
            self._cluster.update_status(self.kind, {**deployment, "status": status})


def schedulable(node: Object) -> bool:
    """Return whether a node takes new pods: ready, not cordoned, without a taint against it."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable") or not owned.condition(node, "Ready"):
        return False
    taints = spec.get("taints") or ()
    return not any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints)


def _limits(deployment: Object) -> tuple[int, int]:
    """Return how many pods there may be too many, and too few, during a rolling update."""
    strategy, wanted = deployment["spec"].get("strategy") or {}, deployment["spec"]["replicas"]
    if strategy.get("type") == "Recreate":
        return 0, wanted
    limits = strategy.get("rollingUpdate") or {}
    surge = owned.share(limits.get("maxSurge"), wanted, up=True, default=1)
    unavailable = owned.share(limits.get("maxUnavailable"), wanted, up=False, default=0)
    # Both zero could never make a step (Kubernetes refuses it, too).
    return surge, unavailable if surge or unavailable else 1


def _worst_first(pod: Object) -> tuple[bool, int]:
    name = owned.owner(pod)["name"]
    return owned.ready(pod), -owned.number(name, pod)


def _label(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
