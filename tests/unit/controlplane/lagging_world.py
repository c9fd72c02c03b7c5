"""Controllers that see the cluster late, as through informers, and whose requests may fail.

The cache and what wakes controllers are the real ones; the network between them and the cluster
is this. Everything that happens is drawn from one seed.
"""

import random
from types import SimpleNamespace
from typing import Any

from controller_world import CONTROLLERS, World

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.client.cache import Cache
from kproxy.client.rest import Unreachable
from kproxy.controlplane import nodefit
from kproxy.controlplane.controllers import owned, registry

Object = dict[str, Any]

REGISTERED = {
    kind: one
    for kind, name in (
        (catalog.DEPLOYMENT, "deployment"),
        (catalog.REPLICA_SET, "replicaset"),
        (catalog.DAEMON_SET, "daemonset"),
        (catalog.STATEFUL_SET, "statefulset"),
    )
    for one in registry.ALL
    if one.name == name
}
CACHED = (kinds.NODE, catalog.POD, catalog.CONTROLLER_REVISION, *CONTROLLERS)


class LaggingWorld(World):
    """A world in which events are delivered one by one, and keys worked on one by one."""

    def __init__(self, seed: int, nodes: int = 3) -> None:
        super().__init__(nodes)
        self.lots = random.Random(seed)
        self.failing = True
        self.cluster.before = self._maybe_fail
        self.cluster.after = self._maybe_fail
        self._working = False
        self.begin()

    def begin(self) -> None:
        """Start all controllers afresh: they list everything as it is now."""
        self.seen = Cache(self.cluster, CACHED)
        self.undelivered: dict[kinds.Kind, list[tuple[Any, Any]]] = {kind: [] for kind in CACHED}
        self.queued: dict[kinds.Kind, set[str]] = {kind: set() for kind in CONTROLLERS}
        self.later: list[tuple[float, kinds.Kind, str]] = []
        self.told = self.cluster.version
        for kind in CONTROLLERS:
            self.restart(kind)
        for kind in CACHED:
            for obj in self.cluster.list_objects(kind):
                self._hear(kind, None, obj)

    def _maybe_fail(self, verb: str, kind: kinds.Kind, name: str) -> None:
        if self._working and self.failing and self.lots.random() < 0.1:
            if self.lots.random() < 0.5:
                raise Unreachable("the network is away")
            raise errors.ApiError(500, "InternalError", "the store is away")

    def _hear(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> None:
        self.seen.heard(kind, old, new)
        for of, one in REGISTERED.items():
            if kind in one.watches:
                context = SimpleNamespace(known=self.seen.known)
                keys = one.watches[kind](context, self.controllers[of], old, new)
                self.queued[of].update(keys)

    def watch(self) -> None:
        """Put what has happened on its way to the controllers."""
        for kind, old, new in self.cluster.changes[self.told :]:
            if kind in self.undelivered:
                self.undelivered[kind].append((old, new))
        self.told = self.cluster.version

    def deliver(self, kind: kinds.Kind) -> None:
        self._hear(kind, *self.undelivered[kind].pop(0))

    def work(self, kind: kinds.Kind) -> None:
        """Let one controller look at one of its keys."""
        key = self.lots.choice(sorted(self.queued[kind]))
        self.queued[kind].discard(key)
        self._working = True
        try:
            wait = self.controllers[kind].reconcile(key)
        except errors.KproxyError:
            self.queued[kind].add(key)
        else:
            if wait is not None:
                self.later.append((self.cluster.wall + wait, kind, key))
        finally:
            self._working = False

    def step(self) -> bool:
        """Do one thing of what could happen next by itself; return False if nothing could."""
        self.watch()
        could: list[Any] = []
        could += [(self.deliver, kind) for kind, waiting in self.undelivered.items() if waiting]
        could += [(self.work, kind) for kind, keys in self.queued.items() if keys]
        could += [(self.act, pod) for pod in self.pods() if self.acts(pod)]
        if not could:
            return self._pass_time()
        what, on = self.lots.choice(could)
        what(on)
        return True

    def _pass_time(self) -> bool:
        if not self.later:
            return False
        self.later.sort(key=lambda one: one[0])
        due, kind, key = self.later.pop(0)
        self.monotonic += max(due - self.cluster.wall, 0.0)
        self.cluster.wall = max(due, self.cluster.wall)
        self.queued[kind].add(key)
        return True

    def acts(self, pod: Object) -> bool:
        """Return whether scheduler or kubelet have something to do for a pod."""
        if owned.terminating(pod):
            return True
        unbound = not pod["spec"].get("nodeName")
        return owned.active(pod) and (unbound or not owned.ready(pod))

    def act(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if owned.terminating(pod):
            self.delete_pod(pod, grace=0)
        elif not pod["spec"].get("nodeName"):
            nodes = [one["metadata"]["name"] for one in self.cluster.list_objects(kinds.NODE)]
            node = nodefit.only_node(pod["spec"]) or self.lots.choice(nodes)
            self.cluster.bind("default", name, owned.uid(pod), node)
        else:
            self.set_status(name)

    def run(self, steps: int = 20_000) -> None:
        """Let everything come to rest, without any more failures."""
        self.failing = False
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError("the cluster does not come to rest")
