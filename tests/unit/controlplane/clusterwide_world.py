"""The controllers of the whole cluster over a real API in memory, in simulated time.

Tests play kubelets: they renew Leases, report pods, and confirm deletions.
"""

import heapq
import io
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from controller_world import Told
from local_cluster import LocalCluster, new_api

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import (
    clusterwide,
    garbagecollector,
    namespace,
    nodelifecycle,
    nodetaints,
    owned,
    podgc,
    registry,
    serviceaccount,
    tainteviction,
    times,
)

Object = dict[str, Any]

START = 1_000_000.0
"""The time of day at which tests begin."""
RENEW = 10.0


class ClusterwideWorld:
    """``run`` lets time pass; controllers see every change at once."""

    def __init__(self, *names: str, waits: times.Times = times.DEFAULT) -> None:
        self.time = 0.0
        self.api = new_api(now=self.wall)
        self.api.make_first_objects()
        self.cluster = LocalCluster(self.api)
        self.events = Told()
        self.log = logs.Log("manager", stream=io.StringIO())
        self.waits = waits
        self.renewing: list[str] = []
        self.names = names
        self.troubles: list[str] = []
        self.restart()

    def wall(self) -> float:
        return START + self.time

    def monotonic(self) -> float:
        return self.time

    def restart(self) -> None:
        """Replace all controllers by ones that know nothing and list everything."""
        self.later: list[tuple[float, int, str, str]] = []
        self.order = itertools.count()
        self.known: dict[kinds.Kind, dict[str, Object]] = {}
        self.working = {one.name: one for one in clusterwide.ALL if one.name in self.names}
        self.controllers: dict[str, Any] = {}
        for name in self.working:
            self.controllers[name] = self.make(name)
            if name in ("nodelifecycle", "podgc"):
                self.queue(name, "all")
        self.hear()

    def make(self, name: str) -> Any:
        clocks: Object = {"now": self.monotonic, "wall": self.wall}
        return {
            "nodelifecycle": lambda: nodelifecycle.NodeLifecycleController(
                self.cluster, self.log, self.events, times=self.waits, **clocks
            ),
            "nodetaints": lambda: nodetaints.NodeTaintController(self.cluster, self.log),
            "tainteviction": lambda: tainteviction.TaintEvictionController(
                self.cluster, self.log, self.events, **clocks
            ),
            "podgc": lambda: podgc.PodGarbageCollector(
                self.cluster, self.log, times=self.waits, **clocks
            ),
            "garbagecollector": lambda: garbagecollector.GarbageCollector(self.cluster, self.log),
            "namespace": lambda: namespace.NamespaceController(self.cluster, self.log),
            "serviceaccount": lambda: serviceaccount.ServiceAccountController(
                self.cluster, self.log
            ),
        }.get(name, lambda: self.working[name].make(self.context(name)))()

    def context(self, name: str) -> registry.Context:
        return registry.Context(
            cluster=self.cluster,
            known=self.cluster,
            log=self.log,
            events=self.events,
            enqueue=lambda key: self.queue(name, key),
            times=self.waits,
        )

    def queue(self, name: str, key: str, after: float = 0.0) -> None:
        heapq.heappush(self.later, (self.time + after, next(self.order), name, key))

    def hear(self) -> None:
        """Tell the controllers what has changed since they heard last."""
        watched = {kind for one in self.working.values() for kind in one.watches}
        for kind in sorted(watched, key=lambda kind: kind.plural):
            now = {owned.uid(one): one for one in self.cluster.list_objects(kind)}
            before, self.known[kind] = self.known.get(kind, {}), now
            for uid in [*(uid for uid in before if uid not in now), *now]:
                if before.get(uid) != now.get(uid):
                    self.tell(kind, before.get(uid), now.get(uid))

    def tell(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> None:
        for name, one in self.working.items():
            if kind in one.watches:
                mapper = one.watches[kind]
                for key in sorted(mapper(self.context(name), self.controllers[name], old, new)):
                    self.queue(name, key)

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass: due keys are looked at, and living kubelets renew their Leases."""
        end = self.time + seconds
        self.hear()
        while True:
            renewal = (self.time // RENEW + 1) * RENEW
            due = self.later[0][0] if self.later else renewal
            if min(due, renewal) > end:
                break
            if renewal <= due:
                self.time = renewal
                self.renew(self.renewing)
            else:
                self.work()
            self.hear()
        self.time = end

    def work(self) -> None:
        due, _, name, key = heapq.heappop(self.later)
        self.time = max(self.time, due)
        try:
            again = self.controllers[name].reconcile(key)
        except errors.KproxyError as error:
            self.troubles.append(str(error))
            again = 0.05
        if again is not None:
            self.queue(name, key, again)

    # What kubelets do.

    def node(self, name: str, ready: str = "True", zone: str = "", **spec: object) -> None:
        status = {"conditions": [{"type": "Ready", "status": ready}]} if ready else {}
        labels = {"topology.kubernetes.io/zone": zone} if zone else {}
        body = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}
        self.cluster.create(kinds.NODE, body)
        self.renew([name])
        self.renewing.append(name)

    def die(self, *names: str) -> None:
        self.renewing = [name for name in self.renewing if name not in names]

    def come_back(self, name: str) -> None:
        """Let a kubelet renew its Lease and report that its node is ready."""
        self.renewing.append(name)
        self.renew([name])
        condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": str(self.time)}
        body = {"metadata": {"name": name}, "status": {"conditions": [condition]}}
        self.cluster.update_status(kinds.NODE, body)

    def renew(self, names: Iterable[str]) -> None:
        for name in names:
            spec = {"holderIdentity": name, "renewTime": f"2026-01-01T00:00:00.{self.time:06.0f}Z"}
            body = {"metadata": {"namespace": "kube-node-lease", "name": name}, "spec": spec}
            if self.cluster.get(catalog.LEASE, "kube-node-lease", name) is None:
                self.cluster.create(catalog.LEASE, body)
            else:
                self.cluster.update(catalog.LEASE, body)

    def pod(self, name: str, node: str = "n1", phase: str = "Running", **spec: object) -> None:
        meta = {"namespace": "default", "name": name}
        containers = [{"name": "c", "image": "x"}]
        body = {"metadata": meta, "spec": {"containers": containers, "nodeName": node, **spec}}
        self.cluster.create(catalog.POD, body)
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"phase": phase, "conditions": conditions}
        self.cluster.update_status(catalog.POD, {"metadata": meta, "status": status})

    # What there is.

    def status_of(self, name: str) -> str:
        (found,) = [
            one["status"]
            for one in self.cluster.get(kinds.NODE, "", name)["status"]["conditions"]
            if one["type"] == "Ready"
        ]
        return found

    def taints_of(self, name: str) -> set[str]:
        taints = self.cluster.get(kinds.NODE, "", name)["spec"].get("taints") or ()
        return {f"{one['key'].rpartition('/')[2]}:{one['effect']}" for one in taints}

    def pods(self, accept: Callable[[Object], bool] = lambda pod: True) -> list[str]:
        found = self.cluster.list_objects(catalog.POD)
        return [pod["metadata"]["name"] for pod in found if accept(pod)]
