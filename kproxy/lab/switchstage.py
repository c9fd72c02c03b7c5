"""A stage on which a node changes its proxy's mode, and what that node's kernel held before."""

import contextlib
import socket
from collections.abc import Callable, Collection, Mapping

from kproxy import errors
from kproxy.api import catalog
from kproxy.lab import inventory, podviews, proxysets, scenarios, workload
from kproxy.lab.cluster import PROXY_NAMESPACE, Cluster
from kproxy.lab.stage import ClusterStage
from kproxy.traffic.switchset import LeftBehind

CHECKS = 3
"""Connections to each service by which a node shows that it serves again."""
CONNECT_SECONDS = 2.0


class SwitchStage(ClusterStage):
    """Implements :class:`kproxy.lab.switching.Switching` on a cluster.

    All nodes but the hit one are in the ``new`` mode already, and have never been in another.
    ``leave`` stops the traffic of the clients behind the hit node.
    """

    def __init__(
        self,
        cluster: Cluster,
        hit: str,
        served: Callable[[], Mapping[str, Collection[str]]],
        *,
        new: str,
        leave: Callable[[], None],
    ) -> None:
        super().__init__(cluster, hit, served)
        self._new = new
        self._leave = leave
        self._cleaned = 0
        self._before: frozenset[inventory.Item] = frozenset()

    @property
    def new(self) -> str:
        """Return the mode to switch to."""
        return self._new

    def left_behind(self) -> tuple[LeftBehind, ...]:
        """Return what the old mode has left on the hit node, as things are now."""
        after, fresh = self._inventory(self.hit), self._inventory(self.nodes[-1])
        return inventory.left_behind(self._before, after, fresh)

    def look(self) -> None:
        """Note what the hit node's kernel holds before anything is done."""
        self._before = self._inventory(self.hit)

    def assign(self, node: str, mode: str) -> None:
        """Let the proxy of this mode run on a node, instead of any other; empty: none."""
        labels = {proxysets.MODE_LABEL: mode or None}
        self._cluster.change_node(node, {"metadata": {"labels": labels}})

    def clean(self, node: str, spared: str) -> int:
        """Remove from a node what proxies have left, but for this mode; return when it ended."""
        self._cleaned += 1
        name = f"cleanup-{node}-{self._cleaned}"
        self._cluster.create(catalog.POD, proxysets.cleaner(node, name, spared))
        ended = self._cluster.events.wait(
            lambda event: (
                event.msg == "container exited"
                and event.fields.get("pod") == f"{PROXY_NAMESPACE}/{name}"
            ),
            why=f"the clean-up of {node}",
            timeout=scenarios.RECOVERY_SECONDS,
        )
        if code := ended.fields["code"]:
            raise errors.MeasurementError(f"the clean-up of {node} ended with code {code}")
        return ended.mono_ns

    def drain(self, node: str) -> None:
        """Cordon a node and move its pods and clients away; return when nothing is there."""
        self._cluster.change_node(node, {"spec": {"unschedulable": True}})
        self._leave()
        for pod in self._on(node):
            self._cluster.delete_pod(pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._cluster.wait_for(
            lambda: not self._on(node), scenarios.RECOVERY_SECONDS, f"all pods to leave {node}"
        )
        self._cluster.settle(scenarios.RECOVERY_SECONDS)

    def admit(self, node: str) -> None:
        """Uncordon a node, and see that its services can be reached from it."""
        self._cluster.change_node(node, {"spec": {"unschedulable": None}})
        client = self._cluster.lab.host(self._cluster.clients[node].vantage.host)
        for target in self._cluster.targets:
            if target.protocol == "TCP":
                for _ in range(CHECKS):
                    client.call(_ask, target)

    def _on(self, node: str) -> list[workload.Manifest]:
        """Return the workload's pods that are on a node, also those that are about to leave."""
        return [
            pod
            for pod in self._cluster.objects(catalog.POD)
            if pod["spec"].get("nodeName") == node
            and pod["metadata"]["namespace"] != PROXY_NAMESPACE
            and not podviews.has_ended(pod)
        ]

    def _inventory(self, node: str) -> frozenset[inventory.Item]:
        return self._cluster.lab.host(node).call(inventory.read)


def _ask(target: workload.Target) -> None:
    """Connect to a service and have a line answered. Raises MeasurementError."""
    try:
        with contextlib.closing(
            socket.create_connection((target.address, target.port), CONNECT_SECONDS)
        ) as connection:
            connection.sendall(b"check\n")
            if connection.recv(1000):
                return
            why = "closed without an answer"
    except OSError as error:
        why = str(error)
    raise errors.MeasurementError(f"{target} does not answer from the admitted node: {why}")
