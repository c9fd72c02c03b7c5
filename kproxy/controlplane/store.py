"""The memory of the API server: objects by kind, each change numbered, and the changes to watch.

One lock, one counter of changes (``resourceVersion``) for all kinds, and per kind a bounded
history of events. Waiting is done on a condition per kind, so a watcher sleeps until its kind
changes. Objects are plain dictionaries as decoded from JSON; once stored they are never changed,
only replaced, so readers may share them (and must not write to them).

The store lives in memory only: an API server that is killed forgets. Its successor starts counting
at the wall clock (see ``first_version``), so no version is ever used for two different states and
watchers of the former server are told to list again (410).
"""

import bisect
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from kproxy import errors

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""

_encode = msgspec.json.Encoder().encode


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. ``previous`` is the object before it (selectors need it); None for ADDED."""

    type: EventType
    version: int
    item: Item
    previous: Object | None


@dataclass(slots=True)
class _Kind:
    """Everything about one kind of object."""

    changed: threading.Condition
    compacted: int
    """Events up to this version are no longer known."""
    items: dict[Key, Item] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


def timestamp(seconds: float) -> str:
    """Return a time since the epoch as Kubernetes writes it (RFC 3339, whole seconds, UTC)."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def key_of(obj: Object) -> Key:
    """Return the key of an object."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Store:
    """All objects of a cluster. Every method may be called from any thread.

    ``history``: events kept per kind, at least; ``first_version``: where counting starts;
    ``now``: wall clock in seconds, for timestamps; ``new_uid``: source of uids.
    """

    def __init__(
        self,
        *,
        history: int = 10_000,
        first_version: int = 1,
        now: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._lock = threading.RLock()
        self._version = first_version
        self._first = first_version
        self._history = history
        self._now = now
        self._new_uid = new_uid
        self._kinds: dict[str, _Kind] = {}
        self._closed = False

    @property
    def version(self) -> int:
        """The number of the latest change of any kind."""
        return self._version

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other threads out of the store, to make several calls as one."""
        with self._lock:
            yield

    def close(self) -> None:
        """Wake all watchers for the last time: :meth:`events` no longer waits."""
        with self._lock:
            self._closed = True
            for kind in self._kinds.values():
                kind.changed.notify_all()

    def list(self, resource: str, namespace: str = "") -> tuple[list[Item], int]:
        """Return the objects of a kind (of one namespace) by key, and the version of the list."""
        with self._lock:
            items = self._kind(resource).items
            keys = sorted(key for key in items if not namespace or key[0] == namespace)
            return [items[key] for key in keys], self._version

    def get(self, resource: str, key: Key) -> Item:
        """Return one object. Raises ApiError 404."""
        with self._lock:
            item = self._kind(resource).items.get(key)
        if item is None:
            raise errors.ApiError(404, "NotFound", f'{resource} "{key[1]}" not found')
        return item

    def exists(self, resource: str, key: Key) -> bool:
        """Return whether there is an object of that key."""
        with self._lock:
            return key in self._kind(resource).items

    def create(self, resource: str, obj: Object) -> Item:
        """Store a new object with uid, version, generation 1 and time. Raises Conflict."""
        key = key_of(obj)
        with self._lock:
            if key in self._kind(resource).items:
                raise errors.Conflict(
                    409, "AlreadyExists", f'{resource} "{key[1]}" already exists'
                )
            meta = {
                **obj["metadata"],
                "uid": self._new_uid(),
                "generation": 1,
                "creationTimestamp": timestamp(self._now()),
            }
            for name in ("deletionTimestamp", "deletionGracePeriodSeconds"):
                meta.pop(name, None)
            return self._commit(resource, EventType.ADDED, {**obj, "metadata": meta}, None)

    def update(self, resource: str, key: Key, change: Callable[[Object], Object]) -> Item:
        """Replace an object by what ``change`` makes of it (which must not write to it).

        ``change`` runs alone. A ``resourceVersion`` or uid in its result that is not the current
        one raises Conflict; an empty one overwrites whatever is there. A result that says the same
        as before is not written. Raises ApiError 404, and whatever ``change`` raises.
        """
        with self._lock:
            item = self.get(resource, key)
            old, new = item.obj, change(item.obj)
            meta = {**new.get("metadata", {})}
            _check_precondition(resource, old, meta.get("uid"), meta.get("resourceVersion"))
            for name in _SERVER_FIELDS:
                meta.pop(name, None)
                if name in old["metadata"]:
                    meta[name] = old["metadata"][name]
            new = {**new, "metadata": meta}
            if new == old:
                return item
            if _specification(new) != _specification(old):
                meta["generation"] = old["metadata"].get("generation", 0) + 1
            return self._commit(resource, EventType.MODIFIED, new, old)

    def delete(
        self, resource: str, key: Key, *, grace: int = 0, uid: str = "", version: str = ""
    ) -> Item:
        """Remove an object; with ``grace`` (seconds) only mark it, for its owner to remove.

        Marking again can shorten the grace period, never extend it. Returns the object as it is
        now (or was last). Raises ApiError 404, and Conflict if uid or version differ.
        """
        with self._lock:
            old = self.get(resource, key).obj
            _check_precondition(resource, old, uid, version)
            meta = {**old["metadata"]}
            if grace <= 0:
                return self._commit(resource, EventType.DELETED, {**old, "metadata": meta}, old)
            if meta.get("deletionGracePeriodSeconds", grace + 1) <= grace:
                return self.get(resource, key)
            meta["deletionTimestamp"] = timestamp(self._now() + grace)
            meta["deletionGracePeriodSeconds"] = grace
            meta["generation"] = meta.get("generation", 0) + 1
            return self._commit(resource, EventType.MODIFIED, {**old, "metadata": meta}, old)

    def events(
        self, resource: str, since: int, timeout: float | None
    ) -> tuple[Sequence[Event], int]:
        """Return the changes of a kind after a version, and the version to go on from.

        Without any, waits up to ``timeout`` seconds (None: for ever) for the first; none then, or
        after :meth:`close`, is an empty list. Raises Gone if changes after ``since`` may be
        forgotten, also for a version that this store has not reached (another server's).
        """
        with self._lock:
            kind = self._kind(resource)
            if not kind.compacted <= since <= self._version:
                message = f"too old resource version: {since} ({kind.compacted})"
                raise errors.Gone(410, "Expired", message)
            kind.changed.wait_for(
                lambda: self._closed or bool(kind.events and kind.events[-1].version > since),
                timeout,
            )
            if since < kind.compacted:
                message = f"too old resource version: {since} ({kind.compacted})"
                raise errors.Gone(410, "Expired", message)
            start = bisect.bisect_right(kind.events, since, key=lambda event: event.version)
            return kind.events[start:], self._version

    def _kind(self, resource: str) -> _Kind:
        kind = self._kinds.get(resource)
        if kind is None:
            kind = _Kind(threading.Condition(self._lock), self._first)
            self._kinds[resource] = kind
        return kind

    def _commit(
        self, resource: str, event_type: EventType, obj: Object, previous: Object | None
    ) -> Item:
        """Number a change, remember it and wake the watchers; ``obj["metadata"]`` is ours."""
        kind = self._kind(resource)
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        item = Item(obj, _encode(obj))
        if event_type is EventType.DELETED:
            del kind.items[key_of(obj)]
        else:
            kind.items[key_of(obj)] = item
        kind.events.append(
            Event(type=event_type, version=self._version, item=item, previous=previous)
        )
        # Forgetting in large steps keeps the cost of one change constant.
        if len(kind.events) > 2 * self._history:
            dropped = len(kind.events) - self._history
            kind.compacted = kind.events[dropped - 1].version
            del kind.events[:dropped]
        kind.changed.notify_all()
        return item


_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def _specification(obj: Object) -> Object:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _check_precondition(resource: str, obj: Object, uid: str | None, version: str | None) -> None:
    meta = obj["metadata"]
    if (uid and uid != meta["uid"]) or (version and version != meta["resourceVersion"]):
        raise errors.Conflict(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on {resource} "{meta["name"]}": the object has been '
            "modified; please apply your changes to the latest version and try again",
        )
