"""The choice of a node for a pod: of those that fit the best one, by name where several are. Pure.

Kubernetes adds up weighted scores. Here the wishes have an order, which can be told in words; the
first in which two nodes differ decides:

1. fewer taints ``PreferNoSchedule`` that the pod does not bear;
2. more of the affinity that it prefers (weights added up);
3. more even by the constraints ``ScheduleAnyway``;
4. fewer of its siblings in the zone, then on the node: pods of the same controller, or, of a pod
   without one, those behind the same Services;
5. fewer pods on the node;
6. the name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kproxy.api import core, meta
from kproxy.controlplane import nodefit

from . import filters, terms
from .picture import NodeInfo, PlacedPod

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """The node of a pod (empty: none), and how many nodes have which reason against it."""

    node: str
    reasons: Mapping[str, int]
    nodes: int

    @property
    def message(self) -> str:
        """Return why there is none, as Kubernetes' scheduler says it."""
        if not self.nodes:
            return "no nodes available to schedule pods"
        found = sorted(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"0/{self.nodes} nodes are available: {', '.join(found)}."


def decide(pod: Object, nodes: Sequence[NodeInfo], services: Iterable[Object] = ()) -> Decision:
    """Return where a pod goes; ``services``: those of its namespace."""
    want = filters.wanted(pod, nodes)
    fit: list[NodeInfo] = []
    reasons: Counter[str] = Counter()
    for node in nodes:
        problem = filters.problem(want, node)
        if problem:
            reasons[problem] += 1
        else:
            fit.append(node)
    if not fit:
        return Decision("", reasons, len(nodes))
    wishes = _Wishes(want, nodes, _selectors(pod, services))
    best = min(fit, key=wishes.rank)
    return Decision(best.name, reasons, len(nodes))


class _Wishes:
    """Ranks the nodes for one pod."""

    def __init__(
        self, want: filters.Wanted, nodes: Sequence[NodeInfo], selectors: Sequence[Object]
    ) -> None:
        self._want = want
        self._selectors = selectors
        self._near = [
            (term, sign, _places(term, nodes))
            for field, sign in (("podAffinity", 1), ("podAntiAffinity", -1))
            for term in terms.preferred(want.pod, field)
        ]
        self._for_nodes = terms.preferred_nodes(want.pod)
        self._soft = [
            (one.topology_key, filters.counted(one, want.pod, want.info, nodes))
            for one in terms.spreads(want.pod)
            if not one.hard
        ]
        self._siblings = {node.name: sum(map(self._sibling, node.pods.values())) for node in nodes}
        self._in_zone: Counter[str] = Counter()
        for node in nodes:
            self._in_zone[node.labels.get(core.ZONE_LABEL, "")] += self._siblings[node.name]

    def rank(self, node: NodeInfo) -> tuple[Any, ...]:
        """Return what orders nodes: the best has the least."""
        return (
            self._unwelcome(node),
            -self._affinity(node),
            self._unevenness(node),
            self._in_zone[node.labels.get(core.ZONE_LABEL, "")],
            self._siblings[node.name],
            len(node.pods),
            node.name,
        )

    def _unwelcome(self, node: NodeInfo) -> int:
        borne = self._want.spec.get("tolerations") or ()
        return sum(
            taint.get("effect") == "PreferNoSchedule"
            and not any(nodefit.tolerates(one, taint) for one in borne)
            for taint in (node.node.get("spec") or {}).get("taints") or ()
        )

    def _affinity(self, node: NodeInfo) -> int:
        total = sum(
            weight for weight, term in self._for_nodes if nodefit.fulfilled(term, node.node)
        )
        for term, sign, places in self._near:
            total += sign * term.weight * places.get(node.labels.get(term.topology_key, ""), 0)
        return total

    def _unevenness(self, node: NodeInfo) -> int:
        return sum(
            counts.get(node.labels.get(key, ""), max(counts.values(), default=0) + 1)
            for key, counts in self._soft
        )

    def _sibling(self, other: PlacedPod) -> bool:
        mine = self._want.info
        if other.leaving or other.namespace != mine.namespace:
            return False
        if mine.owner:
            return other.owner == mine.owner
        return any(meta.matches(one, dict(other.labels)) for one in self._selectors)


def _places(term: terms.PodTerm, nodes: Iterable[NodeInfo]) -> Counter[str]:
    """Return how many pods of a term are at each value of its label."""
    found: Counter[str] = Counter()
    for node in nodes:
        value = node.labels.get(term.topology_key)
        if value is not None:
            found[value] += sum(
                term.matches(one.namespace, one.labels) for one in node.pods.values()
            )
    return found


def _selectors(pod: Object, services: Iterable[Object]) -> list[Object]:
    """Return the selectors of the Services that a pod is behind."""
    labels = pod["metadata"].get("labels") or {}
    found = [(one.get("spec") or {}).get("selector") or {} for one in services]
    return [one for one in found if meta.matches(one, labels)]
