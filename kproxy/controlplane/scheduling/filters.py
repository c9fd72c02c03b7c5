"""Which nodes a pod may run on, and why not on the others, in Kubernetes' words. Pure.

Not counted: CPU and memory. Containers here are processes of one machine, so requests for them
would only keep manifests from applying unchanged.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kproxy.controlplane import nodefit
from kproxy.controlplane.controllers import taints

from . import picture, terms
from .picture import NodeInfo, PlacedPod

Object = dict[str, Any]

PODS = 110
"""Room for pods on a node that does not say how many it takes."""

Place = tuple[str, str]
"""A value of a node's label: (name, value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A pod that looks for a place, and what the other pods mean for it."""

    pod: Object
    info: PlacedPod
    taken: frozenset[Place]
    """Places where pods are that must not be near this one."""
    keeps_away: Sequence[terms.PodTerm]
    near: Sequence[tuple[str, frozenset[str] | None]]
    """Label and values of places where pods are that must be near; None: there are none yet."""
    spreads: Sequence[tuple[terms.Spread, Mapping[str, int], int]]
    """Hard constraints with the number of pods in each domain, and the least that counts."""

    @property
    def spec(self) -> Object:
        """Return the pod's ``spec``."""
        return dict(self.pod["spec"])


def wanted(pod: Object, nodes: Iterable[NodeInfo]) -> Wanted:
    """Return what a pod wants, given all nodes."""
    nodes = list(nodes)
    info = picture.placed(pod)
    away = info.keeps_away
    taken: set[Place] = set()
    for node in nodes:
        for other in node.pods.values():
            for term in other.keeps_away:
                if term.topology_key in node.labels and term.matches(info.namespace, info.labels):
                    taken.add((term.topology_key, node.labels[term.topology_key]))
    for term in away:
        taken |= {(term.topology_key, value) for value in _values_with(term, nodes)}
    near = [_near(term, info, nodes) for term in terms.required(pod, "podAffinity")]
    hard = [one for one in terms.spreads(pod) if one.hard]
    return Wanted(
        pod=pod,
        info=info,
        taken=frozenset(taken),
        keeps_away=away,
        near=near,
        spreads=[(one, *_domains(one, pod, info, nodes)) for one in hard],
    )


def counted(
    spread: terms.Spread, pod: Object, info: PlacedPod, nodes: Iterable[NodeInfo]
) -> dict[str, int]:
    """Return how many pods like this one are in each domain that it may use."""
    counts: Counter[str] = Counter()
    for node in nodes:
        value = node.labels.get(spread.topology_key)
        if value is None or not nodefit.selected(pod["spec"], node.node):
            continue
        counts[value] += sum(
            one.namespace == info.namespace
            and not one.leaving
            and terms.selects(spread.selector, one.labels)
            for one in node.pods.values()
        )
    return counts


def _domains(
    spread: terms.Spread, pod: Object, info: PlacedPod, nodes: Iterable[NodeInfo]
) -> tuple[dict[str, int], int]:
    counts = counted(spread, pod, info, nodes)
    enough = len(counts) >= spread.min_domains
    return counts, min(counts.values(), default=0) if enough else 0


def _values_with(term: terms.PodTerm, nodes: Iterable[NodeInfo]) -> set[str]:
    return {
        node.labels[term.topology_key]
        for node in nodes
        if term.topology_key in node.labels
        and any(term.matches(one.namespace, one.labels) for one in node.pods.values())
    }


def _near(
    term: terms.PodTerm, info: PlacedPod, nodes: Iterable[NodeInfo]
) -> tuple[str, frozenset[str] | None]:
    """Return the places of a term; the first of a group of pods that want each other is free."""
    values = _values_with(term, nodes)
    if not values and term.matches(info.namespace, info.labels):
        return term.topology_key, None
    return term.topology_key, frozenset(values)


def problem(want: Wanted, node: NodeInfo) -> str:
    """Return why a pod cannot run on a node, empty: it can."""
    for check in _CHECKS:
        found = check(want, node)
        if found:
            return found
    return ""


def _cordoned(want: Wanted, node: NodeInfo) -> str:
    if not (node.node.get("spec") or {}).get("unschedulable"):
        return ""
    taint = {"key": taints.UNSCHEDULABLE, "effect": "NoSchedule"}
    borne = any(nodefit.tolerates(one, taint) for one in want.spec.get("tolerations") or ())
    return "" if borne else "node(s) were unschedulable"


def _tainted(want: Wanted, node: NodeInfo) -> str:
    taint = nodefit.untolerated(want.spec, node.node, ("NoSchedule", "NoExecute"))
    if taint is None:
        return ""
    return f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}"


def _not_selected(want: Wanted, node: NodeInfo) -> str:
    fits = nodefit.selected(want.pod["spec"], node.node)
    return "" if fits else "node(s) didn't match Pod's node affinity/selector"


def _full(want: Wanted, node: NodeInfo) -> str:
    allocatable = (node.node.get("status") or {}).get("allocatable") or {}
    try:
        room = int(allocatable.get("pods", PODS))
    except (TypeError, ValueError):
        room = PODS
    return "Too many pods" if len(node.pods) >= room else ""


def _ports_taken(want: Wanted, node: NodeInfo) -> str:
    """A DaemonSet's pods may share: with ``maxSurge`` the old one hands its ports over."""
    for other in node.pods.values():
        if want.info.daemon_set and other.owner == want.info.owner:
            continue
        if any(_clash(one, two) for one in want.info.ports for two in other.ports):
            return "node(s) didn't have free ports for the requested pod ports"
    return ""


def _clash(one: picture.HostPort, two: picture.HostPort) -> bool:
    return one[1:] == two[1:] and (not one[0] or not two[0] or one[0] == two[0])


def _too_near(want: Wanted, node: NodeInfo) -> str:
    places = node.labels.items()
    return "node(s) didn't match pod anti-affinity rules" if want.taken & {*places} else ""


def _too_far(want: Wanted, node: NodeInfo) -> str:
    for name, values in want.near:
        value = node.labels.get(name)
        if value is None or (values is not None and value not in values):
            return "node(s) didn't match pod affinity rules"
    return ""


def _uneven(want: Wanted, node: NodeInfo) -> str:
    for spread, counts, least in want.spreads:
        value = node.labels.get(spread.topology_key)
        if value is None:
            return "node(s) didn't match pod topology spread constraints (missing required label)"
        itself = int(terms.selects(spread.selector, want.info.labels))
        if counts.get(value, 0) + itself - least > spread.max_skew:
            return "node(s) didn't match pod topology spread constraints"
    return ""


_CHECKS: tuple[Callable[[Wanted, NodeInfo], str], ...] = (
    _cordoned,
    _tainted,
    _not_selected,
    _full,
    _ports_taken,
    _uneven,
    _too_far,
    _too_near,
)
"""In the order in which Kubernetes asks, so that reasons are the same where several hold."""
