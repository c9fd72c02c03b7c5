"""Which nodes are lost: those whose Lease, and status, nobody has renewed for too long.

Every five seconds all nodes are looked at, as Kubernetes does, and times are measured by this
controller's own clock from when it *saw* the last sign of life; what a Lease says the time is does
not matter. A lost node gets the condition ``Ready: Unknown``, its pods are marked as not ready,
so that EndpointSlices drop them, and it is tainted ``unreachable:NoExecute``, which evicts its
pods in time: a few nodes at a time, and none where whole zones seem lost (:mod:`zones`).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events
from kproxy.rfc3339 import timestamp

from . import lostnodes, owned, taints, zones
from .times import DEFAULT, Times

Object = dict[str, Any]

KEY = "nodes"
"""All nodes are one key: they are looked at together."""
LEASE_NAMESPACE = "kube-node-lease"
TRIES = 3
"""So often a node is written at once, where others write it, too; then at the next look."""


@dataclass(slots=True)
class _Life:
    """The last sign of life of a node: what it was, and when it was seen."""

    uid: str
    sign: tuple[Any, ...]
    seen: float
    marked: str = "True"
    """For which status of the node its pods were marked last."""


class NodeLifecycleController:
    """Watches over all nodes. ``now`` is monotonic, ``wall`` the time of day; seconds."""

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        times: Times = DEFAULT,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._log = log
        self._events = events
        self._times = times
        self._now = now
        self._wall = wall
        self._lives: dict[str, _Life] = {}
        self._limiters: dict[str, zones.Limiter] = {}
        self._blind = False
        """Whether all nodes were lost when we looked last."""
        self._look_at: float | None = None

    def reconcile(self, key: str) -> float | None:
        """Look at all nodes if it is time, and at those that wait for their taint."""
        now = self._now()
        nodes = {one["metadata"]["name"]: one for one in self._cluster.list_objects(kinds.NODE)}
        if self._look_at is None or now >= self._look_at:
            self._look_at = now + self._times.node_monitor
            for name in [name for name in self._lives if name not in nodes]:
                self._forget(name)
            for node in nodes.values():
                self._guarded(node, self._look)
            nodes = {
                one["metadata"]["name"]: one for one in self._cluster.list_objects(kinds.NODE)
            }
            self._limit(nodes, now)
        waits = [self._taint(node, now) for node in nodes.values()]
        return min([self._look_at - now, *(wait for wait in waits if wait is not None)])

    def _guarded(self, node: Object, look: Callable[[Object], None]) -> bool:
        """Look at one node; return whether it went well. Its trouble is not the others'.

        Our picture of it may be old, as others taint it in the same moment: then it is read anew.
        """
        name = node["metadata"]["name"]
        try:
            for tries_left in reversed(range(TRIES)):
                try:
                    look(node)
                    return True
                except errors.Conflict:
                    found = self._cluster.fresh(kinds.NODE, "", name)
                    if found is None:
                        return False
                    if not tries_left:
                        raise
                    node = found
        except errors.KproxyError as error:
            self._log.warning("node not dealt with", node=name, error=str(error))
        return False

    def _look(self, node: Object) -> None:
        """Take note of a node's signs of life, and mark one that is lost."""
        name, now = node["metadata"]["name"], self._now()
        lease = self._cluster.get(catalog.LEASE, LEASE_NAMESPACE, name)
        sign = lostnodes.sign_of_life(node, lease)
        life = self._lives.get(name)
        if life is None or life.uid != owned.uid(node):
            life = self._lives[name] = _Life(owned.uid(node), sign, now)
            text = f"Node {name} event: Registered Node {name} in Controller"
            self._events.event(kinds.NODE, node, "RegisteredNode", text)
        elif life.sign != sign:
            life.sign, life.seen = sign, now
        before = taints.condition(node, "Ready")
        grace = self._times.node_grace if before else self._times.node_startup
        status = before
        if now - life.seen > grace:
            node, status = self._lose(node, life), "Unknown"
        # Of a node that says itself that it is not ready the kubelet works: its word counts later.
        if status not in ("", "True") and (status != life.marked or status == "Unknown"):
            self._mark_pods(node)
        life.marked = status

    def _lose(self, node: Object, life: _Life) -> Object:
        """Say in a node's status that nobody knows how it is."""
        conditions = lostnodes.lost(node, timestamp(self._wall()))
        if conditions is None:
            return node
        status = {**(node.get("status") or {}), "conditions": conditions}
        written = self._cluster.update_status(kinds.NODE, {**node, "status": status})
        name = node["metadata"]["name"]
        self._log.warning("node lost", node=name, silent_s=round(self._now() - life.seen, 3))
        text = f"Node {name} status is now: NodeNotReady"
        self._events.event(kinds.NODE, node, "NodeNotReady", text)
        return written

    def _mark_pods(self, node: Object) -> None:
        name, stamp = node["metadata"]["name"], timestamp(self._wall())
        for pod in self._cluster.list_objects(catalog.POD):
            if pod["spec"].get("nodeName") != name or not owned.condition(pod, "Ready"):
                continue
            conditions = lostnodes.not_ready(pod, stamp)
            try:
                told = {**pod, "status": {**pod["status"], "conditions": conditions}}
                self._cluster.update_status(catalog.POD, told)
            except errors.ApiError as error:
                if error.code != 404:
                    raise
            self._events.event(catalog.POD, pod, "NodeNotReady", "Node is not ready", warning=True)

    def _limit(self, nodes: Mapping[str, Object], now: float) -> None:
        """Set how fast nodes of each zone may be tainted."""
        ready: dict[str, list[bool]] = {}
        for node in nodes.values():
            known = taints.condition(node, "Ready") == "True"
            ready.setdefault(zones.zone_of(node), []).append(known)
        wanted = zones.rates(ready, self._times)
        blind = bool(wanted) and not any(map(any, ready.values()))
        if blind and not self._blind:
            self._log.warning("all nodes lost: nothing is evicted", nodes=len(nodes))
            for node in nodes.values():
                self._guarded(node, lambda one: self._set_taint(one, ""))
        self._blind = blind
        for zone, rate in wanted.items():
            self._limiters.setdefault(zone, zones.Limiter(rate)).change(rate, now)
        for zone in [zone for zone in self._limiters if zone not in wanted]:
            del self._limiters[zone]

    def _taint(self, node: Object, now: float) -> float | None:
        """Give a node the taint it should have; return in how many seconds that may be done."""
        key = lostnodes.TAINTS.get(taints.condition(node, "Ready"), "")
        if taints.no_execute(node, key, 0.0) is None:
            return None
        swaps = any(taints.has(node, one, "NoExecute") for one in lostnodes.TAINTS.values())
        # Only what makes a node evict its pods is limited.
        limiter = self._limiters.get(zones.zone_of(node)) if key and not swaps else None
        if limiter is not None and (wait := limiter.wait(now)) != 0.0:
            return wait
        if self._guarded(node, lambda one: self._set_taint(one, key)) and limiter is not None:
            limiter.take(now)
        return None

    def _set_taint(self, node: Object, key: str) -> None:
        wanted = taints.no_execute(node, key, self._wall())
        if wanted is None:
            return
        name = node["metadata"]["name"]
        self._cluster.patch(kinds.NODE, "", name, taints.patch(node, wanted))
        self._log.info("node tainted" if key else "node untainted", node=name, taint=key)

    def _forget(self, name: str) -> None:
        del self._lives[name]
        self._log.info("node gone", node=name)
