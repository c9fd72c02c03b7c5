"""The scheduler's loop over single pods: choose a node, bind; or say why not, and wait.

A pod without a fitting node is looked at again when something has changed that may help (a node,
a pod with a place), but not before its back-off is over: 1 s, 2 s … 10 s; and after five minutes
in any case. Pods are bound one at a time, and a place is taken as soon as it has been bound, also
while nobody knows whether it was; the API server binds no pod twice.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.controllers import conditions, owned
from kproxy.controlplane.eventrecorder import Events
from kproxy.exposition import Registry
from kproxy.rfc3339 import timestamp

from . import placement
from .metrics import Result, SchedulerMetrics
from .picture import Picture

Object = dict[str, Any]

NAME = "default-scheduler"
"""As which pods name it in ``schedulerName``; an empty name means it, too."""
BACKOFF_FIRST = 1.0
BACKOFF_MOST = 10.0
LOOK_AGAIN = 300.0


@dataclass(slots=True)
class _Parked:
    """A pod that found no place."""

    uid: str
    attempts: int
    due: float
    """Not to be tried before."""


class Scheduler:
    """Binds pods. The ``…_changed`` methods are told of changes, in any thread, and return keys.

    ``now`` is a monotonic clock in seconds, ``wall`` the time of day.
    """

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        metrics: SchedulerMetrics | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._events = events
        self._now = now
        self._wall = wall
        self._picture = Picture()
        self._lock = threading.Lock()
        self._parked: dict[str, _Parked] = {}
        self._changes = 0
        """How often something has changed that may help those that are parked."""
        self._doubtful: set[str] = set()
        """Uids of pods that may or may not be bound: the answer was lost."""
        self._pending: set[str] = set()
        """Keys of pods that wait, whether parked or not."""
        self._metrics = metrics or SchedulerMetrics(Registry(), NAME)
        self._metrics.pending_by(self._pending_by_queue)

    def pod_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        """Note a change of a pod; return the pods to look at."""
        self._picture.heard_pod(old, new)
        self._note_pending(old, new)
        keys = set()
        if new is not None and waits(new) and (old is None or _wish(old) != _wish(new)):
            keys.add(owned.key_of(new))
            self._unpark(owned.key_of(new))
        if _place(old) != _place(new):
            keys |= self._waiting()
        return keys

    def node_changed(self, old: Object | None, new: Object | None) -> Iterable[str]:
        """Note a change of a node; return the pods to look at."""
        self._picture.heard_node(old, new)
        if old is not None and new is not None and _offer(old) == _offer(new):
            return ()
        return self._waiting()

    def reconcile(self, key: str) -> float | None:
        """Bind a pod if it waits; return in how many seconds to look again (None: no need).

        Raises KproxyError: try again.
        """
        namespace, name = owned.split(key)
        pod = self._cluster.get(catalog.POD, namespace, name)
        if pod is not None and owned.uid(pod) in self._doubtful:
            pod = self._resolve(pod)
        if pod is None or not waits(pod) or self._picture.knows(owned.uid(pod)):
            self._unpark(key)
            return None
        parked = self._parked_of(key, owned.uid(pod))
        if parked is not None and self._now() < parked.due:
            return parked.due - self._now()
        began = self._now()
        try:
            again = self._attempt(key, pod)
        except errors.KproxyError:
            self._metrics.attempted(Result.ERROR, self._now() - began)
            raise
        result = Result.SCHEDULED if again is None else Result.UNSCHEDULABLE
        self._metrics.attempted(result, self._now() - began)
        return again

    def _attempt(self, key: str, pod: Object) -> float | None:
        """Choose a node and bind; return in how many seconds to try again if there is none."""
        services = self._cluster.list_objects(kinds.SERVICE, pod["metadata"]["namespace"])
        changes = self._changes
        began = self._now()
        decision = placement.decide(pod, self._picture.nodes(), services)
        self._metrics.algorithm.observe(self._now() - began)
        if not decision.node:
            wait = self._park(key, owned.uid(pod))
            self._tell_failure(pod, decision.message)
            # A change from which nobody has learnt that this one waits: it was not parked yet.
            return LOOK_AGAIN if changes == self._changes else wait
        self._bind(pod, decision.node)
        self._unpark(key)
        self._log.info("pod bound", pod=key, uid=owned.uid(pod), node=decision.node)
        text = f"Successfully assigned {key} to {decision.node}"
        self._events.event(catalog.POD, pod, "Scheduled", text)
        return None

    def _bind(self, pod: Object, node: str) -> None:
        meta = pod["metadata"]
        self._picture.assume(pod, node)
        try:
            self._cluster.bind(meta["namespace"], meta["name"], meta["uid"], node)
        except errors.KproxyError as error:
            if isinstance(error, errors.ApiError) and error.code < 500:
                self._picture.forget(meta["uid"])
            else:
                self._doubtful.add(meta["uid"])
            raise

    def _resolve(self, pod: Object) -> Object | None:
        """Find out what became of a binding whose answer was lost; return the pod as it is."""
        meta = pod["metadata"]
        now = self._cluster.fresh(catalog.POD, meta["namespace"], meta["name"])
        self._doubtful.discard(meta["uid"])
        if now is None or owned.uid(now) != meta["uid"] or waits(now):
            self._picture.forget(meta["uid"])
        return now

    def _tell_failure(self, pod: Object, message: str) -> None:
        self._log.info("pod not bound", pod=owned.key_of(pod), why=message)
        self._events.event(catalog.POD, pod, "FailedScheduling", message, warning=True)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        status = pod.get("status") or {}
        before = status.get("conditions") or ()
        old = conditions.find(before, "PodScheduled") or {}
        if all(old.get(name) == value for name, value in condition.items()):
            return
        since = old.get("lastTransitionTime") if old.get("status") == "False" else None
        condition["lastTransitionTime"] = since or timestamp(self._wall())
        told = {**status, "conditions": conditions.put(before, condition)}
        try:
            self._cluster.update_status(catalog.POD, {**pod, "status": told})
        except errors.ApiError as error:
            # It has changed or is gone: then it is looked at again anyway.
            if error.code not in (404, 409):
                raise

    def _note_pending(self, old: Object | None, new: Object | None) -> None:
        with self._lock:
            for one in (old, new):
                if one is not None:
                    self._pending.discard(owned.key_of(one))
            if new is not None and waits(new):
                self._pending.add(owned.key_of(new))

    def _pending_by_queue(self) -> Mapping[str, int]:
        """Return how many pods wait in which of Kubernetes' queues."""
        now = self._now()
        with self._lock:
            # One that is gone is parked until it is looked at for the last time.
            parked = [one for key, one in self._parked.items() if key in self._pending]
            active = len(self._pending) - len(parked)
        backoff = sum(one.due > now for one in parked)
        return {"active": active, "backoff": backoff, "unschedulable": len(parked) - backoff}

    def _waiting(self) -> set[str]:
        with self._lock:
            self._changes += 1
            return set(self._parked)

    def _parked_of(self, key: str, uid: str) -> _Parked | None:
        with self._lock:
            found = self._parked.get(key)
            return found if found is not None and found.uid == uid else None

    def _park(self, key: str, uid: str) -> float:
        """Note that a pod has found no place; return in how many seconds it may be tried again."""
        with self._lock:
            old = self._parked.get(key)
            attempts = old.attempts + 1 if old is not None and old.uid == uid else 1
            wait = min(BACKOFF_FIRST * 2.0 ** min(attempts - 1, 10), BACKOFF_MOST)
            self._parked[key] = _Parked(uid, attempts, self._now() + wait)
            return wait

    def _unpark(self, key: str) -> None:
        with self._lock:
            self._parked.pop(key, None)


def waits(pod: Object) -> bool:
    """Return whether a pod waits for this scheduler."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName") in (None, "", NAME)
        and not spec.get("schedulingGates")
        and owned.active(pod)
    )


def _wish(pod: Object) -> tuple[Any, ...]:
    """Return what of a waiting pod matters for its place."""
    return owned.uid(pod), pod["spec"], pod["metadata"].get("labels"), waits(pod)


def _place(pod: Object | None) -> tuple[Any, ...]:
    """Return what of a pod matters for the places of others; empty: it has no place."""
    if pod is None or not pod["spec"].get("nodeName") or owned.finished(pod):
        return ()
    leaving = owned.terminating(pod)
    return owned.uid(pod), pod["spec"]["nodeName"], pod["metadata"].get("labels"), leaving


def _offer(node: Object) -> tuple[Any, ...]:
    """Return what of a node matters for who may run on it."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    labels = node["metadata"].get("labels")
    return labels, spec.get("taints") or [], spec.get("unschedulable"), status.get("allocatable")
