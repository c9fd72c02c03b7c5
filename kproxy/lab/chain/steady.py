"""Whether a whole cluster is in order, and goes on: before a fault, and after it."""

import socket
from collections.abc import Sequence

from kproxy.api import kinds
from kproxy.lab.chain import probes
from kproxy.lab.chain.stage import proxies_of, slices_version
from kproxy.lab.eventlog import Event
from kproxy.lab.whole import leaders
from kproxy.lab.whole.cluster import START_SECONDS, WholeCluster
from kproxy.lab.whole.roles import Role
from kproxy.lab.workload import Target

ROUND_S = 10.0
"""Longer than the load balancer takes to ask all nodes how they are."""


class Steady:
    """Waits; every method raises MeasurementError if that takes too long."""

    def __init__(self, cluster: WholeCluster) -> None:
        self._cluster = cluster

    def settle(self, timeout: float = START_SECONDS) -> None:
        """Wait until everything runs, is ready, and is in every node's kernel."""
        self._cluster.wait_ready(timeout)
        for host in self._cluster.site.control:
            with_api = self._cluster.api_of(host)
            try:
                self._cluster.wait_for(with_api.ready, timeout, f"the API server on {host}")
            finally:
                with_api.close()
        self._cluster.wait_for(self._led, timeout, "leaders")
        self._cluster.wait_for(self._synced, timeout, "every proxy to sync the endpoints")

    def _led(self) -> bool:
        roles = [Role.MANAGER, Role.SCHEDULER]
        if not all(self._cluster.leader(role) for role in roles):
            return False
        site = self._cluster.site
        members = leaders.members(self._cluster.lab, self._cluster.places) if site.etcd else []
        return len(members) == len(site.etcd) and (
            not members or any(member.leads for member in members)
        )

    def _synced(self) -> bool:
        newest = slices_version(self._cluster.api.objects(kinds.ENDPOINT_SLICE), without="")
        self._cluster.events.refresh()
        events = self._cluster.events.events
        for node in self._cluster.site.nodes:
            sources = proxies_of(events, node.name)
            versions = [_version(e) for e in events if e.msg == "synced" and e.source in sources]
            if max(versions, default=-1) < newest:
                return False
        return True

    def reach(self, host: str, target: Target) -> None:
        """Wait until a host can connect to a target, by whatever balances it."""

        def answers() -> bool:
            with self._cluster.lab.host(host).entered():
                try:
                    socket.create_connection((target.address, target.port), 1.0).close()
                except OSError:
                    return False
            return True

        self._cluster.wait_for(answers, START_SECONDS, f"{target} to answer {host}")

    def await_all(self, nodes: Sequence[str], timeout: float) -> None:
        """Wait until a change that is made from now on is in the kernels, and pods are made."""
        self._cluster.events.refresh()
        now = self._cluster.events.events[-1].mono_ns
        written = self._cluster.events.wait(
            lambda event: event.msg == probes.CHANGE and bool(event.fields["ok"]),
            why="a write to succeed",
            timeout=timeout,
            since_ns=now,
        )
        version = int(written.fields["version"])
        for node in nodes:
            self._await_synced(node, version, timeout, now)
        for node in nodes:
            self._await_pod_made(node, timeout, now)

    def _await_pod_made(self, node: str, timeout: float, since: int) -> None:
        kubelet = f"{node}-{Role.KUBELET}"
        self._cluster.events.wait(
            lambda event: (
                event.msg == "container started"
                and event.source == kubelet
                and event.fields.get("container") == probes.PODS
            ),
            why=f"a pod to be made on {node}",
            timeout=timeout,
            since_ns=since,
        )

    def _await_synced(self, node: str, version: int, timeout: float, since: int) -> None:
        sources = proxies_of(self._cluster.events.events, node)
        self._cluster.events.wait(
            lambda event: (
                event.msg == "synced" and event.source in sources and _version(event) >= version
            ),
            why=f"the proxy on {node} to sync a change",
            timeout=timeout,
            since_ns=since,
        )


def _version(event: Event) -> int:
    return int(event.fields["versions"].get("endpointslices") or 0)
