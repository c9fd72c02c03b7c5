"""What a pod wants of other pods and of places: affinity between pods, even spreading. Pure.

The simple forms: a term selects pods by labels, in the pod's own namespace, in those it lists, or
(an empty ``namespaceSelector``) in all; selecting namespaces by their labels is not known here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kproxy.controlplane.controllers import owned

Object = dict[str, Any]

EVERYWHERE = "*"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Return whether a LabelSelector selects: an empty one everything, none nothing."""
    return selector is not None and owned.fulfils(labels, selector)


@dataclass(frozen=True, slots=True)
class PodTerm:
    """Pods that a pod wants near, or far: in the same value of a node's label."""

    topology_key: str
    selector: Object | None
    namespaces: frozenset[str]
    weight: int = 0
    """Of a preference, 1 to 100."""

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return whether a pod is one of those."""
        here = namespace in self.namespaces or EVERYWHERE in self.namespaces
        return here and selects(self.selector, labels)


@dataclass(frozen=True, slots=True)
class Spread:
    """A topologySpreadConstraint: how evenly pods like this one are to be spread."""

    topology_key: str
    selector: Object | None
    max_skew: int
    min_domains: int
    hard: bool


def required(pod: Object, field: str) -> list[PodTerm]:
    """Return the terms of ``podAffinity`` or ``podAntiAffinity`` that must be fulfilled."""
    return [_term(pod, one) for one in _rules(pod, field).get(_REQUIRED) or ()]


def preferred(pod: Object, field: str) -> list[PodTerm]:
    """Return the terms of ``podAffinity`` or ``podAntiAffinity`` that should be fulfilled."""
    return [
        _term(pod, one.get("podAffinityTerm") or {}, int(one.get("weight") or 0))
        for one in _rules(pod, field).get(_PREFERRED) or ()
    ]


def preferred_nodes(pod: Object) -> list[tuple[int, Object]]:
    """Return the weights and terms of the node affinity that should be fulfilled."""
    rules = _rules(pod, "nodeAffinity").get(_PREFERRED) or ()
    return [(int(one.get("weight") or 0), one.get("preference") or {}) for one in rules]


def spreads(pod: Object) -> list[Spread]:
    """Return a pod's topologySpreadConstraints."""
    return [
        Spread(
            str(one.get("topologyKey") or ""),
            _with_label_keys(one, pod),
            int(one.get("maxSkew") or 1),
            int(one.get("minDomains") or 1),
            one.get("whenUnsatisfiable") != "ScheduleAnyway",
        )
        for one in pod["spec"].get("topologySpreadConstraints") or ()
    ]


def _rules(pod: Object, field: str) -> Object:
    return (pod["spec"].get("affinity") or {}).get(field) or {}


def _term(pod: Object, term: Object, weight: int = 0) -> PodTerm:
    namespaces: Iterable[str] = term.get("namespaces") or ()
    if term.get("namespaceSelector") == {}:
        namespaces = (EVERYWHERE,)
    elif not namespaces:
        namespaces = (pod["metadata"].get("namespace", ""),)
    selector = _with_label_keys(term, pod)
    return PodTerm(str(term.get("topologyKey") or ""), selector, frozenset(namespaces), weight)


def _with_label_keys(term: Object, pod: Object) -> Object | None:
    """Return the selector of a term, narrowed by its ``matchLabelKeys``."""
    selector, keys = term.get("labelSelector"), term.get("matchLabelKeys") or ()
    labels = pod["metadata"].get("labels") or {}
    exact = {name: labels[name] for name in keys if name in labels}
    if selector is None or not exact:
        return selector
    return {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **exact}}
