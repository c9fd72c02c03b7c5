"""Versions of objects: what the store hands out, and the rules of the metadata that it keeps.

Objects are plain dictionaries as decoded from JSON. Once made they are never changed, only
replaced, so readers may share them (and must not write to them).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from kproxy import errors
from kproxy.rfc3339 import timestamp

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_LAST_MOMENT = 253402300799
"""Of the year 9999: nothing later can be written. A grace period may be 64 bits of seconds."""

_VERSION = re.compile("[0-9]{1,20}")
_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_ALLOCATIONS = ("nodeports",)
"""Resources that are not objects of the API, but reservations that belong to them."""


class EventType(StrEnum):
    """What happened to an object; the values are those of the watch protocol."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Item:
    """One version of an object, with its JSON: encoded once, sent to every watcher."""

    obj: Object
    raw: bytes

    @property
    def revision(self) -> int:
        """The storage's revision that wrote it."""
        return int(self.obj["metadata"]["resourceVersion"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. ``previous`` is the object before it (selectors need it); None for ADDED."""

    type: EventType
    version: int
    item: Item
    previous: Object | None


def key_of(obj: Object) -> Key:
    """Return the key of an object."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def path_of(resource: str, key: Key) -> str:
    """Return where an object is stored: ``/registry/pods/demo/web``, ``/registry/nodes/n1``."""
    root = "allocations" if resource in _ALLOCATIONS else "registry"
    return "/".join(("", root, resource, *filter(None, key)))


def parse_path(path: str) -> tuple[str, Key] | None:
    """Return the resource and key stored there; None if that is no place of ours.

    >>> parse_path("/registry/pods/demo/web")
    ('pods', ('demo', 'web'))
    """
    match path.split("/"):
        case ["", "registry" | "allocations", resource, name]:
            return resource, ("", name)
        case ["", "registry" | "allocations", resource, namespace, name]:
            return resource, (namespace, name)
    return None


def item_of(value: bytes, revision: int) -> Item:
    """Return the version that a revision of the storage wrote. Raises ApiError 500."""
    try:
        return item(_decode(value), revision)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # no object at all
        message = f"an object of revision {revision} cannot be decoded: {error}"
        raise errors.ApiError(500, "InternalError", message) from None


def item(obj: Object, revision: int) -> Item:
    """Return an object as the version that a revision of the storage wrote."""
    obj = {**obj, "metadata": {**_unversioned(obj), "resourceVersion": str(revision)}}
    return Item(obj, _encode(obj))


def stored(obj: Object) -> bytes:
    """Return what the storage is given: its revision is the version, so the version is not in."""
    return _encode({**obj, "metadata": _unversioned(obj)})


def _unversioned(obj: Object) -> Object:
    return {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}


def check_new(obj: Object) -> None:
    """Refuse an object to be created that says which version it is: it was read somewhere.

    As Kubernetes does: with 500 and no reason, and not if the version is 0 or no version at all.
    Raises ApiError 500.
    """
    version = obj["metadata"].get("resourceVersion") or ""
    if _VERSION.fullmatch(version) and int(version):
        message = "resourceVersion should not be set on objects to be created"
        raise errors.ApiError(500, "", message)


def created(obj: Object, identity: Object) -> Object:
    """Return a new object with its identity (uid, generation, time), not marked as deleted."""
    meta = {**obj["metadata"], **identity}
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
        meta.pop(name, None)
    return {**obj, "metadata": meta}


def updated(resource: str, old: Object, new: Object) -> Object | None:
    """Return what replaces ``old``, with the metadata that is the server's; None: it is removed.

    It is ``old`` itself if nothing changes. Removed is what is marked as deleted, has no grace
    period left, and now loses its last finalizer. Raises Conflict: see :func:`check_precondition`.
    """
    meta = {**new.get("metadata", {})}
    check_precondition(resource, old, meta.get("uid"), meta.get("resourceVersion"))
    for name in _SERVER_FIELDS:
        meta.pop(name, None)
        if name in old["metadata"]:
            meta[name] = old["metadata"][name]
    new = {**new, "metadata": meta}
    if new == old:
        return old
    if _waits_for_finalizers(old) and not meta.get("finalizers"):
        return None
    if _specification(new) != _specification(old):
        meta["generation"] = old["metadata"].get("generation", 0) + 1
    return new


def deleted(old: Object, grace: int, now: float) -> Object | None:
    """Return an object marked as deleted with a grace period (seconds); None: it is removed.

    It is ``old`` itself if it is marked already with no longer grace period. What has finalizers
    is only marked, also without a grace period.
    """
    meta = {**old["metadata"]}
    if grace <= 0 and not meta.get("finalizers"):
        return None
    if meta.get("deletionGracePeriodSeconds", grace + 1) <= grace:
        return old
    meta["deletionTimestamp"] = timestamp(min(now + grace, _LAST_MOMENT))
    meta["deletionGracePeriodSeconds"] = grace
    meta["generation"] = meta.get("generation", 0) + 1
    return {**old, "metadata": meta}


def check_precondition(resource: str, obj: Object, uid: str | None, version: str | None) -> None:
    """Raise Conflict if an object has another uid or version than asked for (empty: any)."""
    meta = obj["metadata"]
    if (uid and uid != meta["uid"]) or (version and version != meta["resourceVersion"]):
        raise errors.Conflict(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on {resource} "{meta["name"]}": the object has been '
            "modified; please apply your changes to the latest version and try again",
        )


def _waits_for_finalizers(obj: Object) -> bool:
    meta = obj["metadata"]
    is_marked = meta.get("deletionTimestamp") and not meta.get("deletionGracePeriodSeconds")
    return bool(is_marked and meta.get("finalizers"))


def _specification(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
