"""Label and field selectors of list and watch requests. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from kproxy import errors

Object = dict[str, Any]
Predicate = Callable[[Object], bool]

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "spec.nodeName": ("spec", "nodeName"),
    "status.phase": ("status", "phase"),
}
_ONLY_PODS = ("spec.nodeName", "status.phase")


def parse(labels: str, fields: str, resource: str) -> Predicate | None:
    """Return what decides whether an object is selected; None: all are.

    Labels: ``a=b``, ``a==b``, ``a!=b``, ``a``, ``!a``. Fields: equality on those named above.
    Raises ApiError 400 for anything else.
    """
    terms = [_label(term.strip()) for term in labels.split(",") if term.strip()]
    terms += [_field(term.strip(), resource) for term in fields.split(",") if term.strip()]
    if not terms:
        return None
    return lambda obj: all(term(obj) for term in terms)


def _split(term: str) -> tuple[str, bool, str] | None:
    """Return (name, whether equal, value); None if there is no operator."""
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        name, found, value = term.partition(operator)
        if found:
            return name.strip(), equal, value.strip()
    return None


def _label(term: str) -> Predicate:
    if "(" in term or ")" in term or " in " in term or " notin " in term:
        raise errors.ApiError(
            400, "BadRequest", f"labelSelector: {term!r}: only equality is supported"
        )
    parts = _split(term)
    if parts is None:
        name, wanted = term.removeprefix("!"), not term.startswith("!")
        return lambda obj: (name in _labels(obj)) is wanted
    name, equal, value = parts
    return lambda obj: (_labels(obj).get(name) == value) is equal


def _field(term: str, resource: str) -> Predicate:
    parts = _split(term)
    path = _FIELDS.get(parts[0]) if parts else None
    if parts is None or path is None or (parts[0] in _ONLY_PODS and resource != "pods"):
        raise errors.ApiError(
            400, "BadRequest", f"fieldSelector: {term!r}: field label not supported"
        )
    (outer, inner), (_, equal, value) = path, parts
    return lambda obj: ((obj.get(outer) or {}).get(inner, "") == value) is equal


def _labels(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}
