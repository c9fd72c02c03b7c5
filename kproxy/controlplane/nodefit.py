"""Which nodes a pod may run on: node selectors, node affinity, taints and tolerations. Pure.

For the scheduler, and for DaemonSets, which have to know it before any pod is there.
"""

from collections.abc import Iterable
from typing import Any

from .controllers import owned

Object = dict[str, Any]

NAME_FIELD = "metadata.name"


def selected(spec: Object, node: Object) -> bool:
    """Return whether a pod's ``nodeSelector`` and required node affinity allow a node."""
    labels = node["metadata"].get("labels") or {}
    wanted = spec.get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    terms = required_terms(spec)
    return terms is None or any(fulfilled(term, node) for term in terms)


def required_terms(spec: Object) -> list[Object] | None:
    """Return the terms of which one must be fulfilled; None: nothing is required."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else list(required.get("nodeSelectorTerms") or ())


def only_node(spec: Object) -> str:
    """Return the one node that required affinity names, as DaemonSets' pods have it; or empty."""
    for term in required_terms(spec) or ():
        for one in term.get("matchFields") or ():
            if one.get("key") == NAME_FIELD and len(one.get("values") or ()) == 1:
                return str(one["values"][0])
    return ""


def untolerated(spec: Object, node: Object, effects: Iterable[str]) -> Object | None:
    """Return a taint of a node, with one of these effects, that a pod does not bear; or None."""
    tolerations = spec.get("tolerations") or ()
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in effects and not any(
            tolerates(one, taint) for one in tolerations
        ):
            return dict(taint)
    return None


def tolerates(toleration: Object, taint: Object) -> bool:
    """Return whether a toleration bears a taint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    if not toleration.get("key"):
        return False
    return (toleration.get("value") or "") == (taint.get("value") or "")


def fulfilled(term: Object, node: Object) -> bool:
    """Return whether a node fulfils a whole term; an empty one is fulfilled by none."""
    labels = node["metadata"].get("labels") or {}
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    values = {NAME_FIELD: node["metadata"]["name"]}
    return all(owned.satisfied(one, labels) for one in expressions) and all(
        owned.satisfied(one, values) for one in fields
    )
