"""A cluster with nodes and controllers but no kubelets: tests say what becomes of pods."""

import io
import itertools
from typing import Any

from fake_cluster import FakeCluster

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.controllers import (
    daemonset,
    deployment,
    owned,
    replicaset,
    statefulset,
)
from kproxy.controlplane.scheduling.scheduler import Scheduler
from kproxy.rfc3339 import timestamp

Object = dict[str, Any]

CONTROLLERS = {
    catalog.DEPLOYMENT: deployment.DeploymentController,
    catalog.REPLICA_SET: replicaset.ReplicaSetController,
    catalog.DAEMON_SET: daemonset.DaemonSetController,
    catalog.STATEFUL_SET: statefulset.StatefulSetController,
}
ROUNDS = 100


class Told:
    """Events as (reason, message)."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def event(
        self, kind: kinds.Kind, obj: Object, reason: str, message: str, *, warning: bool = False
    ) -> None:
        self.all.append((reason, message))


class World:
    """The cluster, its controllers, and the ways to move it."""

    def __init__(self, nodes: int = 3, cluster: Any = None) -> None:
        self.cluster = FakeCluster()
        self.seen = cluster or self.cluster
        """The cluster as controllers see it."""
        self.events = Told()
        self.log = logs.Log("manager", stream=io.StringIO())
        self.monotonic = 0.0
        self.controllers: dict[kinds.Kind, Any] = {}
        for kind in CONTROLLERS:
            self.restart(kind)
        self.scheduler = Scheduler(
            self.cluster, self.log, Told(), now=itertools.count(0.0, 100.0).__next__
        )
        self._told = 0
        for number in range(1, nodes + 1):
            self.node(f"n{number}")

    def restart(self, kind: kinds.Kind) -> None:
        """Replace a controller by one that knows nothing."""
        options: Object = {"wall": lambda: self.cluster.wall}
        if kind is catalog.DAEMON_SET:
            options["now"] = lambda: self.monotonic
        self.controllers[kind] = CONTROLLERS[kind](self.seen, self.log, self.events, **options)

    def node(self, name: str, ready: str = "True", labels: Any = None, **spec: object) -> None:
        status = {"conditions": [{"type": "Ready", "status": ready}]}
        meta = {"name": name, "labels": labels or {}}
        self.cluster.create(kinds.NODE, {"metadata": meta, "spec": spec, "status": status})

    def apply(
        self, kind: kinds.Kind, version: str = "1", name: str = "web", **spec: object
    ) -> Object:
        """Create or replace an object whose pods carry the version as an annotation."""
        template = {
            "metadata": {"labels": {"app": name}, "annotations": {"version": version}},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": {}}}]},
        }
        pod_spec = spec.pop("pod_spec", None)
        if isinstance(pod_spec, dict):
            template["spec"] |= pod_spec
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
        }
        old = self.cluster.get(kind, "default", name)
        if old is None:
            return self.cluster.create(kind, body)
        kept = {**body["metadata"], "annotations": old["metadata"].get("annotations") or {}}
        return self.cluster.update(kind, {**body, "metadata": kept})

    def reconcile(self, kind: kinds.Kind, name: str = "web") -> float | None:
        """Let a controller look at one object once."""
        return self.controllers[kind].reconcile(f"default/{name}")

    def settle(self) -> None:
        """Let all controllers work, and pods be bound, until nothing changes any more."""
        for _ in range(ROUNDS):
            before = self.cluster.version
            for kind in CONTROLLERS:
                for one in self.cluster.list_objects(kind):
                    try:
                        self.controllers[kind].reconcile(owned.key_of(one))
                    except errors.Conflict:
                        continue
            self.bind()
            if self.cluster.version == before:
                return
        raise AssertionError("controllers do not come to rest")

    def bind(self) -> None:
        """Let the scheduler work on what has changed."""
        changes = self.cluster.changes[self._told :]
        self._told += len(changes)
        for kind, old, new in changes:
            if kind is catalog.POD:
                self.scheduler.pod_changed(old, new)
            elif kind is kinds.NODE:
                self.scheduler.node_changed(old, new)
        for pod in self.cluster.list_objects(catalog.POD):
            try:
                self.scheduler.reconcile(owned.key_of(pod))
            except errors.KproxyError:
                continue

    def pods(self, *, alive: bool = False) -> list[Object]:
        """Return all pods, or those that are neither ended nor being deleted."""
        found = self.cluster.list_objects(catalog.POD)
        return [pod for pod in found if not alive or owned.active(pod)]

    def names(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.pods()]

    def versions(self, *, alive: bool = True) -> list[str]:
        return sorted(pod["metadata"]["annotations"]["version"] for pod in self.pods(alive=alive))

    def set_status(self, name: str, phase: str = "Running", ready: bool = True) -> None:
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "lastTransitionTime": timestamp(self.cluster.wall),
        }
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "status": {"phase": phase, "conditions": [condition]},
        }
        self.cluster.update_status(catalog.POD, body)

    def run_all(self) -> None:
        """Do what kubelets do in time: run the pods, confirm the deletions."""
        self.bind()
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if owned.terminating(pod):
                self.cluster.delete(catalog.POD, "default", name, grace=0)
            elif not owned.ready(pod) and not owned.finished(pod):
                self.set_status(name)

    def come_to_rest(self) -> None:
        """Let controllers, scheduler and kubelets work until nothing changes any more."""
        for _ in range(ROUNDS):
            before = self.cluster.version
            self.settle()
            self.run_all()
            if self.cluster.version == before:
                return
        raise AssertionError("the cluster does not come to rest")

    def status(self, kind: kinds.Kind, name: str = "web") -> Object:
        return self.cluster.get(kind, "default", name)["status"]

    def delete_pod(self, pod: Object, grace: int | None = None) -> None:
        self.cluster.delete(catalog.POD, "default", pod["metadata"]["name"], grace=grace)
