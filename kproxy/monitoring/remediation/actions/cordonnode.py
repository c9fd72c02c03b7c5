"""The action ``cordon-node``: no new pods on a node whose data plane cannot be trusted.

Costs room: what runs there stays, what is new goes elsewhere, until a human lets it back
(``kubectl uncordon``). Refused for the last node that takes pods.
"""

from kproxy.api import kinds
from kproxy.errors import UsageError
from kproxy.monitoring.remediation.seams import Limits, Outcome, Target, Tools, Verdict

from . import cluster
from .cluster import ClusterFacts, Proxies

ANNOTATION = "kproxy.example/cordoned-for"
"""Names the alert for which a node was cordoned, for who asks why."""


class CordonNode:
    """See the module."""

    name = "cordon-node"
    summary = "Let no new pods onto the node. A human lets it back: kubectl uncordon."
    needs = frozenset({"node"})
    limits = Limits(runs=1, period=3600.0, run_within=15.0, verify_within=15.0)

    def __init__(self, tools: Tools) -> None:
        if tools.rest is None:
            raise UsageError(f"{self.name} needs an API server", remedy="give kubeconfig")
        self._facts = ClusterFacts(tools.rest, Proxies.of(tools.options))

    def check(self, target: Target) -> Verdict:
        """Return whether it takes pods now, and is not the last one that does."""
        nodes = {one["metadata"]["name"]: one for one in self._facts.nodes()}
        node = nodes.get(target.node)
        if node is None:
            return Verdict(False, f"there is no node {target.node}")
        if (node.get("spec") or {}).get("unschedulable"):
            return Verdict(False, f"node {target.node} is cordoned already")
        others = [
            name
            for name, one in nodes.items()
            if name != target.node and cluster.is_schedulable(one) and cluster.is_ready(one)
        ]
        if not others:
            return Verdict(False, f"node {target.node} is the last one that takes pods")
        return Verdict(True, f"{len(others)} other nodes take pods")

    def run(self, target: Target) -> Outcome:
        """Cordon it. What the check said is looked at again: nodes may have gone meanwhile."""
        verdict = self.check(target)
        if not verdict.good:
            return Outcome(False, verdict.reason)
        patch = {
            "metadata": {"annotations": {ANNOTATION: target.alert}},
            "spec": {"unschedulable": True},
        }
        self._facts.objects.patch(kinds.NODE, "", target.node, patch)
        return Outcome(True, f"node {target.node} takes no new pods")

    def verify(self, target: Target) -> Verdict:
        """Return whether it takes none."""
        node = self._facts.node(target.node)
        closed = bool(((node or {}).get("spec") or {}).get("unschedulable"))
        word = "takes no new pods" if closed else "takes pods"
        return Verdict(closed, f"node {target.node} {word}")
