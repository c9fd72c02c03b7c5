"""What a link's fault acts on: a whole cluster, one node of which is hit, and a time line."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kproxy import errors
from kproxy.api import catalog, discovery, kinds
from kproxy.lab import podviews
from kproxy.lab.chain import etcdlog, shop
from kproxy.lab.eventlog import Event
from kproxy.lab.whole import addons
from kproxy.lab.whole.api import Object
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from kproxy.lab.whole.units import log_name
from kproxy.traffic import chainsummary
from kproxy.traffic.chainset import Watched
from netns import wait
from netns.errors import WaitTimeout

FAULT, NOTICED, REPAIRED = "fault", chainsummary.NOTICED, chainsummary.REPAIRED
PATIENCE_S = 600.0
"""Longer than anything in Kubernetes takes that is not out of order."""
_LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, at a time of the monotonic clock. ``detail``: by whom, or where."""

    name: str
    ns: int
    detail: str = ""


class ChainStage:
    """One fault's stage. ``hand_s``: how long it takes until somebody repairs by hand."""

    def __init__(self, cluster: WholeCluster, hit: str, hand_s: float) -> None:
        self.cluster = cluster
        self.hit = hit
        self.hand_s = hand_s
        self.marks: list[Mark] = []
        self.on_mark: Callable[[], None] = lambda: None
        self.notes: list[str] = []
        self.lost_nodes: set[str] = set()
        """Nodes that do not come back."""
        self.victim = ""
        """The name of the backend pod that has been destroyed."""
        self.watched: Watched | None = None
        """What monitoring did, where the fault is about that."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of all nodes, the hit one first."""
        names = [node.name for node in self.cluster.site.nodes]
        return (self.hit, *(name for name in names if name != self.hit))

    @property
    def control(self) -> tuple[str, ...]:
        """Return the hosts of the control plane."""
        return self.cluster.site.control

    @property
    def fault_ns(self) -> int | None:
        """Return when the fault was; None if there was none."""
        return self.time_of(FAULT)

    def time_of(self, name: str) -> int | None:
        """Return the time of the first mark of that name."""
        return next((mark.ns for mark in self.marks if mark.name == name), None)

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        """Put something on the time line, now or at a given time; return that time."""
        when = time.monotonic_ns() if ns is None else ns
        self.marks.append(Mark(name, when, detail))
        self.on_mark()
        return when

    # Doing.

    def kill(self, host: str, role: Role) -> int:
        """SIGKILL a process; return when. It is gone when this returns."""
        return self.cluster.processes.kill(host, role)[1]

    def leader(self, role: Role) -> str:
        """Return the host of the replica that leads. Raises MeasurementError if none does."""
        found = self.cluster.leader(role)
        if not found:
            raise errors.MeasurementError(f"no {role} leads")
        return found

    def delete_proxy(self) -> str:
        """Delete the hit node's proxy pod through the API; return its name."""
        for pod in self.cluster.api.objects(catalog.POD, addons.NAMESPACE):
            meta = pod["metadata"]
            ours = pod["spec"].get("nodeName") == self.hit
            if ours and meta["name"].startswith(addons.PROXY) and podviews.is_ready(pod):
                self.cluster.api.delete(catalog.POD, addons.NAMESPACE, meta["name"])
                return str(meta["name"])
        raise errors.MeasurementError(f"there is no proxy pod on {self.hit}")

    def backends(self) -> list[Object]:
        """Return the shop's pods that are ready, by name."""
        pods = self.cluster.api.objects(catalog.POD, shop.NAMESPACE, {"app": shop.SHOP})
        return sorted(
            filter(podviews.is_ready, pods), key=lambda pod: str(pod["metadata"]["name"])
        )

    def choose_backend(self) -> Object:
        """Return the backend that is to be destroyed: the first one on the hit node."""
        for pod in self.backends():
            if pod["spec"]["nodeName"] == self.hit:
                self.victim = str(pod["metadata"]["name"])
                return pod
        raise errors.MeasurementError(f"there is no backend on {self.hit}")

    def destroy(self, pod: Object) -> None:
        """Destroy a pod from outside: its processes, its network. Nobody is told."""
        meta = pod["metadata"]
        self.cluster.lab.remove(f"{meta['namespace']}-{meta['name']}")

    # Waiting. What is waited for is what the components say, at the time when they said it.

    def event(
        self, accept: Callable[[Event], bool], why: str, since: int, timeout: float = PATIENCE_S
    ) -> Event:
        """Wait for an event. Raises MeasurementError."""
        return self.cluster.events.wait(accept, why=why, timeout=timeout, since_ns=since)

    def until(self, done: Callable[[], bool], why: str, timeout: float = PATIENCE_S) -> None:
        """Wait until something is so, by looking. Raises MeasurementError."""
        self.cluster.wait_for(done, timeout, why)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def kubelet_says(self, msg: str, node: str, container: str, since: int) -> Event:
        """Wait until a node's kubelet says something of a container of that name."""
        return self.event(
            lambda event: (
                event.msg == msg
                and event.source == log_name(node, Role.KUBELET)
                and event.fields.get("container") == container
            ),
            f"the kubelet of {node} to say: {msg}",
            since,
        )

    def proxy_synced(self, node: str, since: int) -> int:
        """Wait for a new proxy on a node to have its kernel in order; return when it had."""
        started = self.kubelet_says("container started", node, addons.PROXY, since)
        pod = str(started.fields["pod"]).partition("/")[2]
        synced = self.event(
            lambda event: (
                event.msg == "synced"
                and event.source == proxy_source(pod)
                and bool(event.fields["first"])
            ),
            f"the new proxy on {node} to sync",
            started.mono_ns,
        )
        return synced.mono_ns

    def synced_without(self, pod: str, node: str) -> int:
        """Wait until a node's kernel sends nothing more to a pod; return when that was so."""
        version = self._unlisted(pod)
        sources = proxies_of(self.cluster.events.events, node)
        return self.event(
            lambda event: (
                event.msg == "synced"
                and event.source in sources
                and int(event.fields["versions"].get("endpointslices") or 0) >= version
            ),
            f"{node} to send nothing more to {pod}",
            self.fault_ns or 0,
        ).mono_ns

    def _unlisted(self, pod: str) -> int:
        found = 0

        def unlisted() -> bool:
            nonlocal found
            # Others change all the time, and say nothing of when this one has left.
            found = slices_version(
                [
                    one
                    for name in (shop.SHOP, shop.OUTSIDE_SHOP)
                    for one in self.cluster.api.objects(
                        kinds.ENDPOINT_SLICE, shop.NAMESPACE, {discovery.SERVICE_NAME_LABEL: name}
                    )
                ],
                pod,
            )
            return found >= 0

        self.until(unlisted, f"{pod} to leave its EndpointSlices")
        return found

    def etcd_turn(self, *, elected: bool, since: int, timeout: float = 60.0) -> etcdlog.Turn:
        """Wait until a member has become leader, or has noticed that there is none."""
        found: list[etcdlog.Turn] = []

        def seen() -> bool:
            logs = self.cluster.places.files.logs
            turns = etcdlog.turns(logs, self.cluster.site.etcd, since)
            found[:] = [turn for turn in turns if turn.elected is elected]
            return bool(found)

        try:
            wait.wait_until(seen, timeout, "etcd's election", interval=_LOOK_AGAIN)
        except WaitTimeout as late:
            raise errors.MeasurementError(str(late)) from None
        return found[0]


def proxy_source(pod: str) -> str:
    """Return the source of the events of the proxy in a pod."""
    return f"{addons.NAMESPACE}_{pod}_{addons.PROXY}"


def proxies_of(events: list[Event], node: str) -> set[str]:
    """Return the sources of events of all proxies that have run on a node up to now."""
    return {
        proxy_source(str(event.fields["pod"]).partition("/")[2])
        for event in events
        if event.msg == "container started"
        and event.source == log_name(node, Role.KUBELET)
        and event.fields.get("container") == addons.PROXY
    }


def slices_version(slices: list[Object], without: str) -> int:
    """Return the newest version among slices; -1 while one of them sends to a pod.

    A pod that is not ready is sent nothing, unless all are like it.
    """
    newest = 0
    for one in slices:
        newest = max(newest, int(one["metadata"]["resourceVersion"]))
        for endpoint in one.get("endpoints") or []:
            ready = (endpoint.get("conditions") or {}).get("ready", True)
            if ready and (endpoint.get("targetRef") or {}).get("name") == without:
                return -1
    return newest
