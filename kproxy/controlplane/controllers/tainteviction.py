"""Evicts pods from nodes with a taint NoExecute, when the time they may stay there is over.

A pod that does not bear such a taint goes at once; one that bears it for a while (as all pods do
for 300 s if their node is lost, see the API server's defaults) goes then. As in Kubernetes the
time counts from when this controller saw the taint: a new leader begins anew.
"""

import time
from collections.abc import Callable
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane import nodefit
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events
from kproxy.rfc3339 import timestamp

from . import conditions, owned, taints

Object = dict[str, Any]


class TaintEvictionController:
    """Looks at single pods. ``now`` is monotonic, ``wall`` the time of day; seconds."""

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._events = events
        self._now = now
        self._wall = wall
        self._since: dict[str, tuple[str, float]] = {}
        """For each pod on a tainted node its uid, and since when that is known."""

    def reconcile(self, key: str) -> float | None:
        """Evict a pod, or return in how many seconds; None: it may stay."""
        namespace, name = owned.split(key)
        pod = self._cluster.get(catalog.POD, namespace, name)
        stay = self._may_stay(pod)
        if pod is None or stay is None:
            if self._since.pop(key, None) is not None and pod is not None and owned.active(pod):
                text = f"Cancelling deletion of Pod {key}"
                self._events.event(catalog.POD, pod, "TaintManagerEviction", text)
            return None
        uid, now = owned.uid(pod), self._now()
        if self._since.get(key, ("",))[0] != uid:
            self._since[key] = uid, now
        left = self._since[key][1] + stay - now
        if left > 0:
            return left
        self._evict(key, pod)
        return None

    def _may_stay(self, pod: Object | None) -> float | None:
        """Return how long a pod may stay on its node; None: for ever, or it is not there."""
        if pod is None or not owned.active(pod) or not pod["spec"].get("nodeName"):
            return None
        node = self._cluster.get(kinds.NODE, "", pod["spec"]["nodeName"])
        return None if node is None else stay_seconds(pod, node)

    def _evict(self, key: str, pod: Object) -> None:
        meta = pod["metadata"]
        told = conditions.disrupted(
            pod,
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            timestamp(self._wall()),
        )
        status = {**(pod.get("status") or {}), "conditions": told}
        try:
            self._cluster.update_status(catalog.POD, {**pod, "status": status})
        except errors.ApiError as error:
            if error.code != 404:
                raise
        self._cluster.delete(catalog.POD, meta["namespace"], meta["name"], uid=meta["uid"])
        self._since.pop(key, None)
        self._log.info("pod evicted", pod=key, uid=meta["uid"], node=pod["spec"]["nodeName"])
        text = f"Marking for deletion Pod {key}"
        self._events.event(catalog.POD, pod, "TaintManagerEviction", text)


def stay_seconds(pod: Object, node: Object) -> float | None:
    """Return how long a pod may stay on a node because of taints NoExecute; None: for ever."""
    tolerations = pod["spec"].get("tolerations") or ()
    limits: list[float] = []
    for taint in taints.of(node):
        if taint.get("effect") != "NoExecute":
            continue
        bearing = [one for one in tolerations if nodefit.tolerates(one, taint)]
        if not bearing:
            return 0.0
        limits += [
            max(float(one["tolerationSeconds"]), 0.0)
            for one in bearing
            if one.get("tolerationSeconds") is not None
        ]
    return min(limits, default=None)
