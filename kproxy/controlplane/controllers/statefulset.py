"""StatefulSets: pods with ordinals, whose names stay when they are replaced.

One after the other: pod N+1 is made when pod N is available, the highest goes first, and an
update goes from the highest down to ``partition``. With ``podManagementPolicy: Parallel`` creation
and deletion do not wait; an update does all the same. There are never two pods of one ordinal: the
name is the ordinal, and a pod that is being deleted keeps it until it is gone.

As in Kubernetes a pod of a bad template that never becomes ready stops the update for good until
somebody deletes it, also after the template has been corrected.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kproxy import logs
from kproxy.api import catalog
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events

from . import claims, owned, podcontrol, revisions
from .replicaset import replicas

Object = dict[str, Any]

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True, slots=True)
class _Plan:
    """The revisions of one reconcile: names, and the templates that new pods are made from."""

    stateful_set: Object
    history: Sequence[Object]
    current: str
    update: str
    still_current: int
    """``status.currentReplicas``: so many ordinals are replaced in the old revision still."""

    @property
    def first(self) -> int:
        """Return the lowest ordinal."""
        return int((self.stateful_set["spec"].get("ordinals") or {}).get("start") or 0)

    @property
    def in_order(self) -> bool:
        """Return whether each pod waits for the one before."""
        return bool(self.stateful_set["spec"].get("podManagementPolicy") != "Parallel")

    @property
    def partition(self) -> int | None:
        """Return how many pods, counted from the first, stay old; None: it is not said."""
        strategy = self.stateful_set["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return None
        found = (strategy.get("rollingUpdate") or {}).get("partition")
        return None if found is None else int(found)

    @property
    def rolls(self) -> bool:
        """Return whether pods are replaced without being asked to."""
        strategy = self.stateful_set["spec"].get("updateStrategy") or {}
        return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")

    def revision(self, ordinal: int) -> str:
        """Return the revision that a new pod of this ordinal has."""
        place = ordinal - self.first
        kept = self.still_current if self.partition is None else self.partition
        return self.current if self.rolls and place < kept else self.update


class StatefulSetController:
    """Makes the pods of StatefulSets what they should be, one StatefulSet at a time."""

    kind = catalog.STATEFUL_SET

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
        """Bring one StatefulSet nearer to what it should be. Raises KproxyError: try again."""
        stateful_set = self._cluster.get(self.kind, *owned.split(key))
        if stateful_set is None or owned.terminating(stateful_set):
            return None
        name, listed = stateful_set["metadata"]["name"], self._control.pods(stateful_set)
        found = [pod for pod in listed if ordinal(name, pod) is not None]
        mine = claims.claim(self._cluster, self.kind, stateful_set, catalog.POD, found)
        pods = {ordinal(name, pod) or 0: pod for pod in mine}
        history = revisions.of(self._cluster, self.kind, stateful_set)
        newest = revisions.current(self._cluster, self.kind, stateful_set, history)
        history = [*(one for one in history if owned.uid(one) != owned.uid(newest)), newest]
        plan = _plan(stateful_set, history, newest)
        before = len(pods)
        self._step(plan, pods)
        self._report(plan, pods)
        self._forget(plan, pods)
        if len(pods) - before == podcontrol.ROUND_MOST:
            return 0.0
        least = stateful_set["spec"].get("minReadySeconds") or 0
        return podcontrol.look_again(
            owned.available_in(pod, least, self._wall()) for pod in pods.values()
        )

    def _step(self, plan: _Plan, pods: dict[int, Object]) -> None:
        """Do as much as may be done now. ``pods`` follows what is done."""
        last = plan.first + replicas(plan.stateful_set)
        most = len(pods) + podcontrol.ROUND_MOST
        for number in range(plan.first, last):
            if len(pods) == most:
                return
            if not self._settle(plan, pods, number) and plan.in_order:
                return
        condemned = sorted((n for n in pods if not plan.first <= n < last), reverse=True)
        for number in condemned:
            pod = pods[number]
            if owned.terminating(pod):
                if plan.in_order:
                    return
                continue
            self._delete(plan, pods, number, "too many replicas")
            if plan.in_order:
                return
        if plan.rolls:
            self._roll(plan, pods, last)

    def _settle(self, plan: _Plan, pods: dict[int, Object], number: int) -> bool:
        """See that there is a pod of an ordinal; return whether the next one may be looked at."""
        pod = pods.get(number)
        if pod is None:
            pods[number] = self._create(plan, number)
            return False
        if owned.terminating(pod):
            return False
        if owned.finished(pod):
            self._delete(plan, pods, number, "pod has ended")
            return False
        return self._healthy(plan, pod)

    def _roll(self, plan: _Plan, pods: dict[int, Object], last: int) -> None:
        """Replace the highest pod of an old revision; those above it must be well."""
        lowest = plan.first + (plan.partition or 0)
        for number in range(last - 1, lowest - 1, -1):
            pod = pods.get(number)
            if pod is None:
                return
            if revisions.digest(pod) != plan.update and not owned.terminating(pod):
                self._delete(plan, pods, number, "template has changed")
                return
            if not self._healthy(plan, pod):
                return

    def _healthy(self, plan: _Plan, pod: Object) -> bool:
        least = plan.stateful_set["spec"].get("minReadySeconds") or 0
        running = owned.phase(pod) == "Running"
        return running and owned.available_in(pod, least, self._wall()) == 0.0

    def _create(self, plan: _Plan, number: int) -> Object:
        name = f"{plan.stateful_set['metadata']['name']}-{number}"
        revision = plan.revision(number)
        labels = {
            revisions.HASH_LABEL: revision,
            POD_NAME_LABEL: name,
            INDEX_LABEL: str(number),
        }
        template = revisions.template_of(plan.history, revision)
        pod = podcontrol.from_template(self.kind, plan.stateful_set, labels, template)
        pod["spec"]["hostname"] = name
        service = plan.stateful_set["spec"].get("serviceName")
        if service:
            pod["spec"]["subdomain"] = service
        claims = _claims(plan.stateful_set, name)
        if claims:
            own = [one for one in pod["spec"].get("volumes") or () if one["name"] not in claims]
            pod["spec"]["volumes"] = [*claims.values(), *own]
        return self._control.create_named(plan.stateful_set, pod, name)

    def _delete(self, plan: _Plan, pods: dict[int, Object], number: int, reason: str) -> None:
        pods[number] = self._control.delete(plan.stateful_set, pods[number], reason)

    def _report(self, plan: _Plan, pods: Mapping[int, Object]) -> None:
        old = plan.stateful_set.get("status") or {}
        status: Object = {
            "observedGeneration": plan.stateful_set["metadata"].get("generation", 0),
            "replicas": len(pods),
            "readyReplicas": sum(map(owned.ready, pods.values())),
            "availableReplicas": sum(self._healthy(plan, pod) for pod in pods.values()),
            "currentReplicas": _staying(pods, plan.current),
            "updatedReplicas": _staying(pods, plan.update),
            "currentRevision": plan.current,
            "updateRevision": plan.update,
            "collisionCount": 0,
        }
        counts = (status["updatedReplicas"], status["readyReplicas"])
        if plan.rolls and counts == (len(pods), len(pods)) == (replicas(plan.stateful_set),) * 2:
            status["currentRevision"] = plan.update
            status["currentReplicas"] = status["updatedReplicas"]
        if status != old:
            self._cluster.update_status(self.kind, {**plan.stateful_set, "status": status})

    def _forget(self, plan: _Plan, pods: Mapping[int, Object]) -> None:
        live = {plan.current, plan.update, *map(revisions.digest, pods.values())}
        dead = [one for one in plan.history if one["metadata"]["name"] not in live]
        revisions.forget(self._cluster, plan.stateful_set, dead)


def ordinal(name: str, pod: Object) -> int | None:
    """Return the ordinal in a pod's name; None if it is not a pod of this StatefulSet."""
    text = pod["metadata"]["name"].removeprefix(f"{name}-")
    whole = text.isascii() and text.isdigit() and text == str(int(text))
    return int(text) if whole and pod["metadata"]["name"] == f"{name}-{text}" else None


def _plan(stateful_set: Object, history: Sequence[Object], newest: Object) -> _Plan:
    status = stateful_set.get("status") or {}
    update = newest["metadata"]["name"]
    current = status.get("currentRevision") or update
    if revisions.template_of(history, current) is None:
        current = update
    return _Plan(stateful_set, history, current, update, status.get("currentReplicas") or 0)


def _staying(pods: Mapping[int, Object], revision: str) -> int:
    """Return how many pods have a revision and keep it."""
    return sum(
        revisions.digest(pod) == revision and not owned.terminating(pod) for pod in pods.values()
    )


def _claims(stateful_set: Object, pod: str) -> dict[str, Object]:
    """Return the volumes of a pod that its set's claims stand for, by name."""
    named = (
        claim["metadata"]["name"]
        for claim in stateful_set["spec"].get("volumeClaimTemplates") or ()
    )
    return {
        name: {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-{pod}"}}
        for name in named
    }
