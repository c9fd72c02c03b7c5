"""What scenarios act on: a running cluster, one node of which is hit, and a time line."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from kproxy import errors
from kproxy.api import kinds
from kproxy.lab import scenarios
from kproxy.lab.cluster import PROXY_NAME, PROXY_NAMESPACE, Cluster, Object
from kproxy.lab.eventlog import Event
from netns import wait
from netns.errors import WaitTimeout

_LOOK_AGAIN = 0.02


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, at a time of the monotonic clock."""

    name: str
    ns: int
    detail: str = ""


class ClusterStage:
    """Implements :class:`kproxy.lab.scenarios.Stage` on a cluster."""

    def __init__(
        self, cluster: Cluster, hit: str, served: Callable[[], Mapping[str, Collection[str]]]
    ) -> None:
        """``served`` tells the places from which each pod (``namespace/name``) has had packets."""
        self._cluster = cluster
        self._served = served
        self._hit = hit
        self.marks: list[Mark] = []
        self.on_mark: Callable[[], None] = lambda: None
        others = [node.name for node in cluster.plan.each_node() if node.name != hit]
        self._nodes = (hit, *others)

    @property
    def hit(self) -> str:
        """Return the name of the node that the fault is done to."""
        return self._hit

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of all nodes, the hit one first."""
        return self._nodes

    @property
    def fault_ns(self) -> int | None:
        """Return when the fault was; None if there was none."""
        return self.time_of(scenarios.FAULT)

    def time_of(self, name: str) -> int | None:
        """Return the time of the first mark of that name."""
        return next((mark.ns for mark in self.marks if mark.name == name), None)

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        """Put something on the time line, now or at a given time; return that time."""
        when = time.monotonic_ns() if ns is None else ns
        self.marks.append(Mark(name, when, detail))
        self.on_mark()
        return when

    def kill_proxy(self, node: str) -> tuple[int, int]:
        """SIGKILL the node's proxy; return when it was sent and when the process was gone."""
        process = self._cluster.proxy_process(node)
        sent = time.monotonic_ns()
        process.kill()
        process.wait(10)
        return sent, time.monotonic_ns()

    def delete_proxy(self, node: str) -> None:
        """Delete the node's proxy pod through the API."""
        pod = self._cluster.proxy_pod(node)["metadata"]
        self._cluster.delete_pod(pod["namespace"], pod["name"])

    def await_exit(self, node: str, since: int) -> int:
        """Wait until the kubelet has seen the node's proxy end; return that time."""
        return self._await(
            lambda event: _is_proxy_event(event, node, "container exited"),
            f"the end of the proxy on {node}",
            since,
        ).mono_ns

    def await_restart(self, node: str, since: int) -> tuple[int, int]:
        """Wait for a new proxy; return when its process started and when it first synced."""
        started = self._await(
            lambda event: _is_proxy_event(event, node, "container started"),
            f"a new proxy process on {node}",
            since,
        )
        name = str(started.fields["pod"]).rpartition("/")[2]
        synced = self._await(
            lambda event: self._cluster.is_synced(event, name) and bool(event.fields["first"]),
            f"the new proxy on {node} to sync",
            started.mono_ns,
        )
        return started.mono_ns, synced.mono_ns

    def await_hand_over(self, node: str, since: int) -> tuple[int, int]:
        """Wait for a proxy that took over from another; return when each stopped and began."""
        held = self._await(
            lambda event: (
                event.msg == "holding"
                and event.fields.get("how") == "handed over"
                and event.source in self._proxies_of(node)
            ),
            f"the new proxy on {node} to take over",
            since,
        )
        released = self._await(
            lambda event: event.msg == "released" and event.source in self._proxies_of(node),
            f"the old proxy on {node} to hand over",
            since,
        )
        return released.mono_ns, held.mono_ns

    def choose_endpoint(self) -> str:
        """Return the name of a pod that is measured."""
        self._victim = self._find_victim()
        return str(self._victim["metadata"]["name"])

    def destroy_endpoint(self, pod: str) -> None:
        """Destroy a pod that was chosen: processes, namespace, address."""
        assert pod == self._victim["metadata"]["name"]
        self._cluster.destroy(self._victim)

    def await_endpoint_removed(self, node: str, pod: str) -> int:
        """Wait until the node's kernel no longer sends to that pod; return when it synced that."""
        version = self._await_unlisted(pod)
        proxy = self._cluster.proxy_pod(node)["metadata"]["name"]
        return self._await(
            lambda event: (
                self._cluster.is_synced(event, proxy)
                and self._cluster.synced_version(event) >= version
            ),
            f"the proxy on {node} to sync the end of {pod}",
            self.fault_ns or 0,
        ).mono_ns

    def update_proxies(self, *, surge: bool) -> None:
        """Change the DaemonSet's template, which begins a rolling update, node by node."""
        self._cluster.restart_daemonset(surge=surge)

    def upgrade_proxies(self) -> None:
        """Give the DaemonSet a version of the proxy that writes other rules: a rolling update."""
        self._cluster.upgrade_daemonset()

    def pull_cable(self, node: str) -> tuple[int, int, str]:
        """Pull the node's cable; return when, when the kernel had noticed, and in which host."""
        cable = self._cluster.cable(node)
        return (*cable.pull(), cable.end)

    def plug_cable(self, node: str) -> tuple[int, int, str]:
        """Plug it in again; return when, when the kernel had noticed, and in which host."""
        cable = self._cluster.cable(node)
        return (*cable.plug(), cable.end)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def synced_ns(self, node: str, newer_than: int) -> int | None:
        """Return when, after the fault, the node's kernel first had a slice newer than that."""
        self._cluster.events.refresh()
        proxies = self._proxies_of(node)
        return min(
            (
                event.mono_ns
                for event in self._cluster.events.events
                if event.msg == "synced"
                and event.source in proxies
                and event.mono_ns >= (self.fault_ns or 0)
                and self._cluster.synced_version(event) > newer_than
            ),
            default=None,
        )

    def _proxies_of(self, node: str) -> set[str]:
        """Return the sources of events of all proxies that have run on a node up to now."""
        pods = [
            str(event.fields["pod"]).rpartition("/")[2]
            for event in self._cluster.events.events
            if _is_proxy_event(event, node, "container started")
        ]
        return {self._cluster.proxy_source(pod) for pod in pods}

    def _await_unlisted(self, pod: str) -> int:
        """Wait until no slice lists the pod as ready; return the version that said so."""
        found = -1

        def unlisted() -> bool:
            nonlocal found
            found = self._cluster.slices_version(without=pod)
            return found >= 0

        try:
            wait.wait_until(
                unlisted,
                scenarios.RECOVERY_SECONDS,
                f"{pod} to leave its EndpointSlice",
                interval=_LOOK_AGAIN,
            )
        except WaitTimeout as late:
            raise errors.MeasurementError(str(late)) from None
        return found

    def _find_victim(self) -> Object:
        """Return the pod to destroy: the first behind the first UDP service that has flows.

        Not any pod: one without flows from everywhere would show that its end costs nothing.
        """
        targets = self._cluster.targets
        target = next((t for t in targets if t.protocol == "UDP"), targets[0])
        names = {
            endpoint["targetRef"]["name"]
            for piece in self._cluster.objects(kinds.ENDPOINT_SLICE, target.namespace)
            if piece["metadata"]["labels"].get("kubernetes.io/service-name") == target.service
            for endpoint in piece.get("endpoints") or []
        }
        served = self._served()
        places = max((len(found) for found in served.values()), default=0)
        for pod in self._cluster.pods():
            name = f"{target.namespace}/{pod['metadata']['name']}"
            if pod["metadata"]["name"] in names and len(served.get(name, ())) == places > 0:
                return pod
        raise errors.MeasurementError(
            f"service {target} has no endpoint that is used from both nodes",
            remedy="run with fewer replicas, or more flows",
        )

    def _await(self, accept: Callable[[Event], bool], why: str, since: int) -> Event:
        return self._cluster.events.wait(
            accept, why=why, timeout=scenarios.RECOVERY_SECONDS, since_ns=since
        )


def _is_proxy_event(event: Event, node: str, msg: str) -> bool:
    pod = str(event.fields.get("pod", ""))
    return (
        event.msg == msg
        and event.source == f"{node}-node"
        and event.fields.get("container") == PROXY_NAME
        and pod.startswith(f"{PROXY_NAMESPACE}/")
    )
