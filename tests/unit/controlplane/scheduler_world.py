"""A cluster in memory, its scheduler, and a watch that tells when the test says so."""

import io
from typing import Any

from controller_world import Told
from fake_cluster import FakeCluster

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.scheduling.metrics import SchedulerMetrics
from kproxy.controlplane.scheduling.scheduler import NAME, Scheduler, waits
from kproxy.exposition import Registry

Object = dict[str, Any]


def node(name: str, labels: Any = None, pods: int | None = None, **spec: object) -> Object:
    status = {} if pods is None else {"allocatable": {"pods": str(pods)}}
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
    return {"metadata": meta, "spec": spec, "status": status}


def pod(name: str, labels: Any = None, owner: str = "", **spec: object) -> Object:
    meta: Object = {"name": name, "namespace": "default", "labels": labels or {}}
    if owner:
        kind, _, uid = owner.partition("/")
        reference = {"kind": kind, "name": uid, "uid": uid, "controller": True}
        meta["ownerReferences"] = [{"apiVersion": "apps/v1", **reference}]
    spec.setdefault("containers", [{"name": "c"}])
    return {"metadata": meta, "spec": spec}


def taint(key: str, effect: str, value: str = "") -> Object:
    return {"key": key, "effect": effect, "value": value}


class SchedulerWorld:
    """``tell`` hands on what has changed; ``work`` lets the scheduler look at what it queued."""

    def __init__(self, *nodes: Object) -> None:
        self.cluster = FakeCluster()
        self.events = Told()
        self.time = 0.0
        self.restart()
        for one in nodes:
            self.cluster.create(kinds.NODE, one)

    def restart(self) -> None:
        """Replace the scheduler by one that knows nothing and lists everything."""
        log = logs.Log("scheduler", stream=io.StringIO())
        self.metrics = Registry()
        self.scheduler = Scheduler(
            self.cluster,
            log,
            self.events,
            metrics=SchedulerMetrics(self.metrics, NAME),
            now=lambda: self.time,
            wall=lambda: self.time,
        )
        self.queue: list[str] = []
        self.told = len(self.cluster.changes)
        for kind in (catalog.POD, kinds.NODE):
            for one in self.cluster.list_objects(kind):
                self._hear(kind, None, one)

    def _hear(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> None:
        if kind is catalog.POD:
            self.queue += sorted(self.scheduler.pod_changed(old, new))
        elif kind is kinds.NODE:
            self.queue += sorted(self.scheduler.node_changed(old, new))

    def tell(self) -> None:
        changes = self.cluster.changes[self.told :]
        self.told += len(changes)
        for change in changes:
            self._hear(*change)

    def work(self) -> None:
        """Look at every key that waits; those that fail or come back later stay."""
        queue, self.queue = list(dict.fromkeys(self.queue)), []
        for key in queue:
            try:
                again = self.scheduler.reconcile(key)
            except errors.KproxyError:
                again = 0.0
            if again is not None:
                self.queue.append(key)

    def settle(self) -> None:
        """Tell and work until nothing changes any more, for as long as all back-offs take."""
        quiet = 0
        for _ in range(500):
            before = self.cluster.version
            self.tell()
            self.work()
            self.time += 5.0
            quiet = quiet + 1 if self.cluster.version == before else 0
            if quiet == 4:
                return
        raise AssertionError("the scheduler does not come to rest")

    def add(self, *pods: Object) -> None:
        for one in pods:
            self.cluster.create(catalog.POD, one)

    def places(self) -> dict[str, str]:
        return {
            one["metadata"]["name"]: one["spec"].get("nodeName", "")
            for one in self.cluster.list_objects(catalog.POD)
        }

    def waiting(self) -> list[str]:
        found = self.cluster.list_objects(catalog.POD)
        return [one["metadata"]["name"] for one in found if waits(one)]
