"""DaemonSets: keeps one pod on every node, and replaces them one by one for a new template.

As in Kubernetes, a pod that is being deleted keeps its place until it is gone (the new one may
need its ports); a pod that has failed is deleted and replaced, more and more slowly if it fails
again. A rolling update goes through the nodes in the order of their names. Either it never takes
more than ``maxUnavailable`` (default 1) out of service; or, with ``maxSurge``, it starts new pods
*beside* the old ones, on at most so many nodes at a time, and deletes an old one when the new one
is available.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kproxy import logs
from kproxy.api import catalog, kinds
from kproxy.controlplane.backoff import FailureBackoff
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events

from . import claims, daemonpods, owned, podcontrol, revisions

Object = dict[str, Any]


class DaemonSetController:
    """Makes the pods of DaemonSets what they should be, one DaemonSet at a time."""

    kind = catalog.DAEMON_SET

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        events: Events,
        *,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._events = events
        self._control = podcontrol.PodControl(self.kind, cluster, log, events, wall)
        self._wall = wall
        self._now = now
        self._failures = FailureBackoff()

    def reconcile(self, key: str) -> float | None:
        """Bring one DaemonSet nearer to what it should be. Raises KproxyError: try again."""
        daemon_set = self._cluster.get(self.kind, *owned.split(key))
        if daemon_set is None:
            self._control.forget(key)
            return None
        listed = self._control.pods(daemon_set)
        pods = claims.claim(self._cluster, self.kind, daemon_set, catalog.POD, listed)
        nodes = {one["metadata"]["name"]: one for one in self._cluster.list_objects(kinds.NODE)}
        places = {name: daemonpods.should_run(daemon_set, nodes[name]) for name in sorted(nodes)}
        history = revisions.of(self._cluster, self.kind, daemon_set)
        if owned.terminating(daemon_set):
            # What runs is left to the garbage collector, which also knows the pods to be kept.
            digest = revisions.digest(history[-1]) if history else ""
            self._report(daemon_set, digest, places, daemonpods.by_node(places, pods), pods)
            return None
        newest = revisions.current(self._cluster, self.kind, daemon_set, history)
        digest = revisions.digest(newest)
        kept, waits = self._clean(daemon_set, digest, places, pods)
        for name, (runs, _) in places.items():
            if runs and not kept[name]:
                kept[name] = [self._create(daemon_set, digest, name, pods)]
        wanted = {name: kept[name] for name, (runs, _) in places.items() if runs}
        self._update(daemon_set, digest, wanted, pods)
        self._report(daemon_set, digest, places, kept, pods)
        self._forget(daemon_set, [*history, newest], digest, pods)
        least = daemon_set["spec"].get("minReadySeconds") or 0
        soon = [owned.available_in(pod, least, self._wall()) for pod in pods]
        return podcontrol.look_again([*soon, *waits])

    def _forget(
        self, daemon_set: Object, history: Sequence[Object], digest: str, pods: Sequence[Object]
    ) -> None:
        live = {digest, *map(revisions.digest, pods)}
        dead = [one for one in history if revisions.digest(one) not in live]
        revisions.forget(self._cluster, daemon_set, dead)

    def _clean(
        self,
        daemon_set: Object,
        digest: str,
        places: Mapping[str, tuple[bool, bool]],
        pods: Sequence[Object],
    ) -> tuple[dict[str, list[Object]], list[float]]:
        """Delete the pods that must go; return those that hold a place on each node.

        And for how long pods that have failed must stay, because that happens often. Where surge
        is allowed an old and a new pod may run side by side.
        """
        found = daemonpods.by_node(places, pods)
        kept: dict[str, list[Object]] = {node: [] for node in found}
        waits: list[float] = []
        surge = daemonpods.limits(daemon_set, len(places))[0] > 0
        surge = surge and not daemonpods.on_delete(daemon_set)
        for node, there in found.items():
            for pod in there:
                if owned.terminating(pod):
                    kept[node].append(pod)
                elif node not in places:
                    if not pod["spec"].get("nodeName"):
                        # No scheduler will ever place it. One that ran there is left to the pod
                        # garbage collector, as in Kubernetes.
                        self._control.delete(daemon_set, pod, "no such node")
                elif not places[node][1]:
                    self._control.delete(daemon_set, pod, "does not belong on this node")
                elif owned.finished(pod):
                    wait = self._ended(daemon_set, pod, node)
                    if wait:
                        kept[node].append(pod)
                        waits.append(wait)
                elif _is_one_too_many(pod, kept[node], digest, surge=surge):
                    self._control.delete(daemon_set, pod, "second pod of its node")
                else:
                    kept[node].append(pod)
        return kept, waits

    def _ended(self, daemon_set: Object, pod: Object, node: str) -> float:
        """Delete a pod that has ended; if that happens often return how long to wait first."""
        name = pod["metadata"]["name"]
        if owned.phase(pod) == "Failed":
            wait = self._failures.failed(
                f"{owned.uid(daemon_set)}/{node}", owned.uid(pod), self._now()
            )
            if wait > 0:
                return wait
            text = f"Found failed daemon pod {owned.key_of(pod)} on node {node}, will try to kill"
            self._events.event(self.kind, daemon_set, "FailedDaemonPod", text, warning=True)
        else:
            text = f"Found succeeded daemon pod {name} on node {node}, will try to delete it"
            self._events.event(self.kind, daemon_set, "SucceededDaemonPod", text)
        # Nothing of it runs, so the API removes it at once and its place is free.
        self._control.delete(daemon_set, pod, "pod has ended")
        return 0.0

    def _update(
        self,
        daemon_set: Object,
        digest: str,
        wanted: Mapping[str, list[Object]],
        pods: Sequence[Object],
    ) -> None:
        if daemonpods.on_delete(daemon_set):
            return
        surge, unavailable = daemonpods.limits(daemon_set, len(wanted))
        if surge:
            self._surge(daemon_set, digest, wanted, pods, surge)
        else:
            self._roll(daemon_set, digest, wanted, unavailable)

    def _roll(
        self, daemon_set: Object, digest: str, wanted: Mapping[str, list[Object]], limit: int
    ) -> None:
        """Delete as many pods of an old template as may be out of service now."""
        serving = [
            any(self._available(daemon_set, pod) for pod in there) for there in wanted.values()
        ]
        out = serving.count(False)
        for there in wanted.values():
            # One that is being deleted keeps the place of the next one.
            if not there or any(map(owned.terminating, there)):
                continue
            pod = there[0]
            if daemonpods.is_new(pod, digest):
                continue
            if self._available(daemon_set, pod):
                if out >= limit:
                    continue
                out += 1
            there[0] = self._control.delete(daemon_set, pod, "template has changed")

    def _surge(
        self,
        daemon_set: Object,
        digest: str,
        wanted: Mapping[str, list[Object]],
        pods: Sequence[Object],
        limit: int,
    ) -> None:
        """Start new pods beside old ones, on as many nodes as allowed; delete what is replaced."""
        surging = sum(
            len(there) > 1 and any(daemonpods.is_new(pod, digest) for pod in there)
            for there in wanted.values()
        )
        for node, there in wanted.items():
            staying = [pod for pod in there if not owned.terminating(pod)]
            old = [pod for pod in staying if not daemonpods.is_new(pod, digest)]
            new = [pod for pod in staying if daemonpods.is_new(pod, digest)]
            if not old:
                continue
            serves = self._available(daemon_set, old[0])
            if any(self._available(daemon_set, pod) for pod in new):
                self._control.delete(daemon_set, old[0], "its successor is available")
            elif not new and (surging < limit or not serves):
                # One that serves nobody is replaced without waiting for its turn.
                surging += serves
                there.append(self._create(daemon_set, digest, node, pods))

    def _create(
        self, daemon_set: Object, digest: str, node: str, pods: Sequence[Object]
    ) -> Object:
        pod = daemonpods.new(daemon_set, digest, node)
        return self._control.create(daemon_set, pods, pod)

    def _available(self, daemon_set: Object, pod: Object) -> bool:
        least = daemon_set["spec"].get("minReadySeconds") or 0
        return owned.available_in(pod, least, self._wall()) == 0.0

    def _report(
        self,
        daemon_set: Object,
        digest: str,
        places: Mapping[str, tuple[bool, bool]],
        kept: Mapping[str, Sequence[Object]],
        pods: Sequence[Object],
    ) -> None:
        wanted = {name: kept[name] for name, (runs, _) in places.items() if runs}
        available = sum(
            any(self._available(daemon_set, pod) for pod in there) for there in wanted.values()
        )
        status: Object = {
            "observedGeneration": daemon_set["metadata"].get("generation", 0),
            "desiredNumberScheduled": len(wanted),
            "currentNumberScheduled": sum(map(bool, wanted.values())),
            "updatedNumberScheduled": sum(
                any(daemonpods.is_new(pod, digest) for pod in there) for there in wanted.values()
            ),
            "numberReady": sum(any(map(owned.ready, there)) for there in wanted.values()),
            "numberAvailable": available,
            "numberUnavailable": len(wanted) - available,
            "numberMisscheduled": sum(
                bool(kept[name]) for name, (runs, _) in places.items() if not runs
            ),
            podcontrol.COUNTER: self._control.number(daemon_set, pods),
        }
        if status != daemon_set.get("status"):
            self._cluster.update_status(self.kind, {**daemon_set, "status": status})


def _is_one_too_many(pod: Object, kept: Sequence[Object], digest: str, *, surge: bool) -> bool:
    """Return whether a pod's place on its node is taken by those that were kept before it."""
    if not surge:
        return bool(kept)
    alike = [
        one for one in kept if daemonpods.is_new(one, digest) == daemonpods.is_new(pod, digest)
    ]
    return any(not owned.terminating(one) for one in alike)
