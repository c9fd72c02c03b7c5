"""ReplicaSets: keeps a number of pods of one template.

A pod that has ended is replaced, but stays to be looked at (the pod garbage collector removes
it when there are very many). Where there are too many, those go first that will be missed least,
in Kubernetes' order.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events
from kproxy.rfc3339 import timestamp

from . import claims, conditions, names, owned, podcontrol

Object = dict[str, Any]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
REPLICA_FAILURE = "ReplicaFailure"
_PHASES = ("Pending", "Unknown", "Running")


class ReplicaSetController:
    """Makes the pods of ReplicaSets what they should be, one ReplicaSet at a time."""

    kind = catalog.REPLICA_SET

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._control = podcontrol.PodControl(self.kind, cluster, log, events, wall)
        self._wall = wall

    def reconcile(self, key: str) -> float | None:
        """Bring one ReplicaSet nearer to what it should be. Raises KproxyError: try again."""
        replica_set = self._cluster.get(self.kind, *owned.split(key))
        if replica_set is None:
            self._control.forget(key)
            return None
        found = self._control.pods(replica_set)
        pods = claims.claim(self._cluster, self.kind, replica_set, catalog.POD, found)
        active = [pod for pod in pods if owned.active(pod)]
        failure: errors.KproxyError | None = None
        if not owned.terminating(replica_set):
            try:
                active = self._scale(replica_set, pods, active, found)
            except errors.Conflict:
                raise
            except errors.KproxyError as error:
                failure = error
                # What was made before it failed is there all the same.
                again = owned.controlled(self._control.pods(replica_set), replica_set)
                active = [pod for pod in again if owned.active(pod)]
        self._report(replica_set, active, failure)
        if failure is not None:
            raise failure
        if not owned.terminating(replica_set) and len(active) != replicas(replica_set):
            return 0.0
        least = replica_set["spec"].get("minReadySeconds") or 0
        return podcontrol.look_again(
            owned.available_in(pod, least, self._wall()) for pod in active
        )

    def _scale(
        self,
        replica_set: Object,
        pods: Sequence[Object],
        active: Sequence[Object],
        found: Sequence[Object],
    ) -> list[Object]:
        """Create or delete what is missing or too many, as much as may be done in one round.

        Returns the active pods then.
        """
        missing = replicas(replica_set) - len(active)
        made: list[Object] = []
        for _ in range(min(missing, podcontrol.ROUND_MOST)):
            pod = podcontrol.from_template(self.kind, replica_set, {})
            made.append(self._control.create(replica_set, pods, pod))
        if missing >= 0:
            return [*active, *made]
        order = deletion_order(active, self._crowds(replica_set, found), owned.uid(replica_set))
        many = min(-missing, podcontrol.ROUND_MOST)
        for pod in order[:many]:
            self._control.delete(replica_set, pod, "too many replicas")
        return order[many:]

    def _crowds(self, replica_set: Object, found: Sequence[Object]) -> Counter[str]:
        """Return how many related pods each node has: those of all revisions of a Deployment."""
        related = {owned.uid(replica_set)}
        deployment = owned.owner(replica_set).get("uid")
        if deployment:
            namespace = replica_set["metadata"]["namespace"]
            for one in self._cluster.list_objects(self.kind, namespace):
                if owned.owner(one).get("uid") == deployment:
                    related.add(owned.uid(one))
        return Counter(
            pod["spec"].get("nodeName") or ""
            for pod in found
            if owned.active(pod) and owned.owner(pod).get("uid") in related
        )

    def _report(
        self, replica_set: Object, active: Sequence[Object], failure: errors.KproxyError | None
    ) -> None:
        labels = (replica_set["spec"]["template"].get("metadata") or {}).get("labels") or {}
        least, wall = replica_set["spec"].get("minReadySeconds") or 0, self._wall()
        old = replica_set.get("status") or {}
        status: Object = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active
            ),
            "readyReplicas": sum(map(owned.ready, active)),
            "availableReplicas": sum(
                owned.available_in(pod, least, wall) == 0.0 for pod in active
            ),
            "observedGeneration": replica_set["metadata"].get("generation", 0),
            podcontrol.COUNTER: self._control.number(replica_set, active),
        }
        if told := _conditions(old.get("conditions") or (), failure, timestamp(wall)):
            status["conditions"] = told
        if status != old:
            self._cluster.update_status(self.kind, {**replica_set, "status": status})


def replicas(obj: Object) -> int:
    """Return how many pods are wanted."""
    wanted = obj["spec"].get("replicas")
    return 1 if wanted is None else int(wanted)


def deletion_order(active: Sequence[Object], crowds: Counter[str], uid: str) -> list[Object]:
    """Return pods, those first that are to be deleted first."""

    def rank(pod: Object) -> tuple[Any, ...]:
        is_ready = owned.ready(pod)
        phase = owned.phase(pod)
        return (
            bool(pod["spec"].get("nodeName")),
            _PHASES.index(phase) if phase in _PHASES else 1,
            is_ready,
            _cost(pod),
            -crowds[pod["spec"].get("nodeName") or ""],
            -(owned.ready_since(pod) or 0.0) if is_ready else 0.0,
            -_restarts(pod),
            -owned.seconds(pod["metadata"].get("creationTimestamp") or ""),
            -names.number(uid, pod["metadata"]["name"]),
            pod["metadata"]["name"],
        )

    return sorted(active, key=rank)


def _cost(pod: Object) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((one.get("restartCount", 0) for one in statuses), default=0)


def _conditions(
    old: Sequence[Object], failure: errors.KproxyError | None, stamp: str
) -> list[Object]:
    """Return the conditions: ReplicaFailure while pods can be neither made nor deleted."""
    if failure is None:
        return conditions.without(old, REPLICA_FAILURE)
    before = conditions.find(old, REPLICA_FAILURE)
    new = {
        "type": REPLICA_FAILURE,
        "status": "True",
        "reason": "FailedCreate",
        "message": str(failure),
        "lastTransitionTime": before["lastTransitionTime"] if before else stamp,
    }
    return conditions.put(old, new)
