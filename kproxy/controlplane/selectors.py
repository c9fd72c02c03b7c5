"""Label and field selectors of list and watch requests. Pure."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kproxy import errors
from kproxy.api import meta

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

_EVENT_OBJECT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_FIELDS: Mapping[str, Collection[str]] = {
    "": ("metadata.name", "metadata.namespace"),
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "services": ("spec.clusterIP", "spec.type"),
    "secrets": ("type",),
    "replicasets": ("status.replicas",),
    "events": (
        *(f"involvedObject.{name}" for name in _EVENT_OBJECT),
        *(f"regarding.{name}" for name in _EVENT_OBJECT),
        "reason",
        "type",
        "reportingComponent",
        "reportingController",
        "source",
    ),
}
"""The fields that can be selected by, of a resource (of all: the empty name)."""

_ALIASES = {
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
}
"""What events are stored as, by what their newer version calls it."""

_ORDER = re.compile(r"(?P<name>[^\s!=,()<>]+)\s*(?P<sign>[<>])\s*(?P<limit>-?\d{1,18})")
_SET = re.compile(r"\s*(?P<name>[^\s!=,()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)\s*")


def parse(labels: str, fields: str, resource: str) -> Predicate | None:
    """Return what decides whether an object is selected; None: all are.

    Labels: ``a=b``, ``a==b``, ``a!=b``, ``a in (b,c)``, ``a notin (b)``, ``a``, ``!a``, ``a>1``,
    ``a<1``. Fields: (in)equality on those that Kubernetes knows. Raises ApiError 400 for anything
    else.
    """
    terms = [_label(term) for term in _split_labels(labels)]
    terms += [_field(term.strip(), resource) for term in fields.split(",") if term.strip()]
    if not terms:
        return None
    return lambda obj: all(term(obj) for term in terms)


def equal_fields(fields: str) -> dict[str, str]:
    """Return the fields that a selector demands to have one value."""
    found = {}
    for term in fields.split(","):
        parts = _split(term)
        if parts is not None and parts[1]:
            found[parts[0]] = parts[2]
    return found


def _split_labels(labels: str) -> list[str]:
    """Return the terms between the commas that are not within parentheses."""
    terms, depth, start = [], 0, 0
    for place, letter in enumerate(labels):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            terms.append(labels[start:place])
            start = place + 1
    terms.append(labels[start:])
    return [term.strip() for term in terms if term.strip()]


def _split(term: str) -> tuple[str, bool, str] | None:
    """Return (name, whether equal, value); None if there is no operator."""
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        name, found, value = term.partition(operator)
        if found:
            return name.strip(), equal, value.strip()
    return None


def _label(term: str) -> Predicate:
    if among := _SET.fullmatch(term):
        values = {value.strip() for value in among["values"].split(",")}
        return _expression(among["name"], {"in": "In", "notin": "NotIn"}[among["word"]], values)
    if order := _ORDER.fullmatch(term):
        return _ordered(order["name"], order["sign"], int(order["limit"]))
    parts = _split(term)
    if parts is not None and parts[0] and not re.search(r"[\s()<>]", parts[0] + parts[2]):
        return _expression(parts[0], "In" if parts[1] else "NotIn", {parts[2]})
    name = term.removeprefix("!").strip()
    if parts is not None or not name or re.search(r"[\s()!<>]", name):
        message = f"unable to parse requirement: labelSelector {term!r}: write key=value, key!="
        message += "value, key in (a,b), key notin (a,b), key>1, key<1, key or !key"
        raise errors.ApiError(400, "BadRequest", message)
    return _expression(name, "DoesNotExist" if term.startswith("!") else "Exists", ())


def _expression(name: str, operator: str, values: Collection[str]) -> Predicate:
    def holds(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return meta.holds(operator, labels.get(name), values)

    return holds


def _ordered(name: str, sign: str, limit: int) -> Predicate:
    def holds(obj: Object) -> bool:
        text = (obj["metadata"].get("labels") or {}).get(name, "")
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            return False
        return int(text) > limit if sign == ">" else int(text) < limit

    return holds


def _field(term: str, resource: str) -> Predicate:
    parts = _split(term)
    known = (*_FIELDS[""], *_FIELDS.get(resource, ()))
    if parts is None or parts[0] not in known:
        known_names = ", ".join(known)
        message = f"fieldSelector: {term!r}: field label not supported (known: {known_names})"
        raise errors.ApiError(400, "BadRequest", message)
    name, equal, value = parts
    path = [_ALIASES.get(part, part) for part in name.split(".")]
    return lambda obj: (_text(obj, path) == value) is equal


def _text(obj: Any, path: list[str]) -> str:
    """Return the value of a field as the selector writes it."""
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, dict):  # an event's source is asked for by its component
        obj = obj.get("component")
    if isinstance(obj, bool):
        return str(obj).lower()
    if path[-1] in ("unschedulable", "hostNetwork") and obj is None:
        return "false"
    return "" if obj is None else str(obj)
