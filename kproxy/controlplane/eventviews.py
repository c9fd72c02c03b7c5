"""Events in two versions: stored as ``v1``, shown as ``events.k8s.io/v1`` to who asks. Pure."""

from collections.abc import Mapping
from typing import Any

from kproxy.api import catalog, kinds

Object = dict[str, Any]

_NEW_TO_STORED: Mapping[str, str] = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_STORED_TO_NEW = {stored: new for new, stored in _NEW_TO_STORED.items()}


def resource(kind: kinds.Kind) -> str:
    """Return the resource under which the objects of a kind are stored."""
    return kind.stored_as or kind.plural


def stored_kind(kind: kinds.Kind) -> kinds.Kind:
    """Return the kind as which the objects of a kind are stored."""
    return catalog.EVENT if kind is catalog.NEW_EVENT else kind


def is_view(kind: kinds.Kind) -> bool:
    """Return whether the objects of a kind are stored as another kind."""
    return kind is catalog.NEW_EVENT


def to_stored(kind: kinds.Kind, obj: Object) -> Object:
    """Return an object as it is stored."""
    return _renamed(obj, _NEW_TO_STORED, catalog.EVENT) if is_view(kind) else obj


def shown(kind: kinds.Kind, obj: Object) -> Object:
    """Return a stored object as a kind shows it."""
    return _renamed(obj, _STORED_TO_NEW, kind) if is_view(kind) else obj


def _renamed(obj: Object, names: Mapping[str, str], kind: kinds.Kind) -> Object:
    named = {names.get(name, name): value for name, value in obj.items()}
    return {**named, "apiVersion": kind.api_version, "kind": kind.name}
