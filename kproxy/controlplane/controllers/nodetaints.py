"""Taints of effect NoSchedule: no new pods for nodes that are lost, in trouble, or cordoned."""

from kproxy import logs
from kproxy.api import kinds
from kproxy.controlplane.cluster import Cluster

from . import owned, taints


class NodeTaintController:
    """Gives nodes the taints that follow from their conditions and from ``unschedulable``."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._log = log

    def reconcile(self, key: str) -> float | None:
        """Correct the taints of one node. Raises KproxyError: try again."""
        _, name = owned.split(key)
        node = self._cluster.get(kinds.NODE, "", name)
        wanted = None if node is None else taints.no_schedule(node)
        if node is not None and wanted is not None:
            self._cluster.patch(kinds.NODE, "", name, taints.patch(node, wanted))
            self._log.info("node tainted", node=name, taints=_words(wanted))
        return None


def _words(wanted: list[taints.Object]) -> list[str]:
    return [f"{one.get('key')}:{one.get('effect')}" for one in wanted]
