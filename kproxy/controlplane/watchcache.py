"""What an API server remembers of the storage: all objects as of one revision, and their history.

One thread follows one watch of the whole storage and keeps the memory fresh. Lists and watches of
clients are answered from here, so that they cost the storage nothing; who needs the newest state
asks the storage for its revision and waits until it has been reached. While the storage is away
the memory stays as it was. If changes were missed (compacted, or another storage came back), all
is listed again and watchers of old revisions are told so (410).
"""

import bisect
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kproxy import errors

from . import versions
from .storage import base
from .versions import Event, EventType, Item, Key, Object

RETRY_SECONDS = 0.1
"""How long to wait before asking a storage again that has not answered."""

ALL = "/"
"""The prefix of everything that an API server stores."""


@dataclass(slots=True)
class _Kind:
    """Everything about one kind of object."""

    changed: threading.Condition
    compacted: int
    """Events up to this revision are no longer known."""
    items: dict[Key, Item] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class WatchCache:
    """All objects as of :attr:`revision`. Every method may be called from any thread.

    ``history``: events kept per kind, at least; ``patience``: how long (seconds) to wait for the
    storage's answers before a caller is told to come again.
    """

    def __init__(self, storage: base.Storage, *, history: int, patience: float) -> None:
        self._storage = storage
        self._history = history
        self._patience = patience
        self._lock = threading.RLock()
        self._moved = threading.Condition(self._lock)
        self._revision = -1
        self._first = 0
        self._lists = 0
        self._kinds: dict[str, _Kind] = {}
        self._watch: base.Watch | None = None
        self._end = threading.Event()
        self.trouble = "the store has not been read yet"
        """Why the memory is not kept fresh at the moment; empty: it is."""
        self.heard_at = 0.0
        """When the storage last told something, seconds since 1970; 0: never."""
        self._thread = threading.Thread(target=self._follow, name="watchcache", daemon=True)
        self._thread.start()

    @property
    def revision(self) -> int:
        """The revision of the memory; -1: nothing is known yet."""
        return self._revision

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._end.is_set()

    def close(self) -> None:
        """Wake everybody for the last time: nobody waits any more. The storage stays open.

        The thread that follows it may still be within a call; see :meth:`join`.
        """
        self._end.set()
        with self._lock:
            watch = self._watch
            self._wake_all()
        if watch is not None:
            watch.close()

    def join(self) -> None:
        """Wait, after :meth:`close`, until the storage is used no more."""
        self._thread.join()

    def wait_closed(self, timeout: float) -> bool:
        """Wait until :meth:`close` is called, at most so many seconds; return whether it was."""
        return self._end.wait(timeout)

    def wait_for(self, revision: int) -> None:
        """Wait until the memory is as new as a revision. Raises ApiError 504 if it does not."""
        with self._lock:
            self._moved.wait_for(lambda: self.closed or self._revision >= revision, self._patience)
            if self._revision < revision:
                raise _too_large(revision, self._revision, self.trouble)

    def find(self, resource: str, key: Key) -> Item | None:
        """Return an object as it is remembered. Raises ApiError 503 before there is a memory."""
        with self._lock:
            return self._known(resource).items.get(key)

    def peek(self, resource: str, key: Key) -> Item | None:
        """Return an object as it is remembered; None also if there is no memory yet."""
        with self._lock:
            kind = self._kinds.get(resource)
            return None if kind is None else kind.items.get(key)

    def list(
        self, resource: str, namespace: str = "", at: int | None = None
    ) -> tuple[list[Item], int]:
        """Return the objects of a kind by key, as of the memory's revision or an older one.

        Raises Gone if that state is forgotten, ApiError 504 if it is not reached.
        """
        if at is not None:
            self.wait_for(at)
        with self._lock:
            kind = self._known(resource)
            items = kind.items if at is None else _as_of(kind, at)
            keys = sorted(key for key in items if not namespace or key[0] == namespace)
            return [items[key] for key in keys], self._revision if at is None else at

    def events(
        self, resource: str, since: int, timeout: float | None
    ) -> tuple[Sequence[Event], int]:
        """Return the changes of a kind after a revision, and the revision to go on from.

        Without any, waits up to ``timeout`` seconds (None: for ever) for the first; none then, or
        after :meth:`close`, is an empty list. Raises Gone if changes may be forgotten.
        """
        with self._lock:
            kind, lists = self._known(resource), self._lists
            kind.changed.wait_for(
                lambda: (
                    self.closed
                    or since < kind.compacted
                    or lists != self._lists
                    or bool(kind.events and kind.events[-1].version > since)
                ),
                timeout,
            )
            if since < kind.compacted or lists != self._lists:
                raise _too_old(since, kind.compacted)
            start = bisect.bisect_right(kind.events, since, key=lambda event: event.version)
            return kind.events[start:], max(since, self._revision)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each kind the number of objects and of remembered events."""
        with self._lock:
            return {
                name: (len(kind.items), len(kind.events)) for name, kind in self._kinds.items()
            }

    def versions(self) -> dict[str, int]:
        """Return for each kind the revision of its last change, or of when all was listed."""
        with self._lock:
            return {
                name: kind.events[-1].version if kind.events else kind.compacted
                for name, kind in self._kinds.items()
            }

    def _known(self, resource: str) -> _Kind:
        """Return a kind, after waiting for the first list of the storage if need be."""
        if self._revision < 0:
            self._moved.wait_for(lambda: self.closed or self._revision >= 0, self._patience)
        if self._revision < 0:
            raise unavailable(self.trouble)
        return self._kind(resource)

    def _kind(self, resource: str) -> _Kind:
        kind = self._kinds.get(resource)
        if kind is None:
            kind = _Kind(threading.Condition(self._lock), self._first)
            self._kinds[resource] = kind
        return kind

    def _follow(self) -> None:
        behind = True
        while not self.closed:
            try:
                # A storage that is older than our memory is not the one that we know.
                if behind or self._storage.revision() < self._revision:
                    self._list_again()
                    behind = False
                self._pump(self._storage.watch(ALL, self._revision))
            except base.Compacted:
                behind = True
            except base.Unavailable as error:
                self._pause(str(error))
            except Exception as error:
                # Whatever a storage may tell: without this thread nothing would ever be new again.
                # What of a commit was noted already is not known, so all is listed again.
                behind = True
                self._pause(f"the store tells what cannot be followed: {error!r}")

    def _pause(self, trouble: str) -> None:
        with self._lock:
            self.trouble = trouble
        self._end.wait(RETRY_SECONDS)

    def _pump(self, watch: base.Watch) -> None:
        with self._lock:
            self._watch, self.trouble = watch, ""
        try:
            while not self.closed:
                changes, reached = watch.next(None)
                with self._lock:
                    self.heard_at = time.time()
                    for change in changes:
                        self._note(change)
                    self._revision = max(reached, self._revision)
                    self._moved.notify_all()
        finally:
            with self._lock:
                self._watch = None
            watch.close()

    def _note(self, change: base.Change) -> None:
        place = versions.parse_path(change.key)
        if place is None:
            return
        resource, key = place
        kind = self._kind(resource)
        before = kind.items.pop(key, None)
        previous = None if before is None else before.obj
        now = _readable(change.value, change.revision)
        if now is not None:
            kind.items[key] = now
            event_type = EventType.ADDED if before is None else EventType.MODIFIED
        elif previous is not None:
            now = versions.item(previous, change.revision)
            event_type = EventType.DELETED
        else:
            return
        kind.events.append(
            Event(type=event_type, version=change.revision, item=now, previous=previous)
        )
        # Forgetting in large steps keeps the cost of one change constant.
        if len(kind.events) > 2 * self._history:
            dropped = len(kind.events) - self._history
            kind.compacted = kind.events[dropped - 1].version
            del kind.events[:dropped]
        kind.changed.notify_all()

    def _list_again(self) -> None:
        entries, revision = self._storage.list(ALL)
        with self._lock:
            self.heard_at = time.time()
            self._first = revision
            self._lists += 1
            for kind in self._kinds.values():
                kind.items, kind.events, kind.compacted = {}, [], revision
            for entry in entries:
                place = versions.parse_path(entry.key)
                if place is not None:
                    item = _readable(entry.value, entry.revision)
                    if item is not None:
                        self._kind(place[0]).items[place[1]] = item
            self._revision = revision
            self._wake_all()

    def _wake_all(self) -> None:
        self._moved.notify_all()
        for kind in self._kinds.values():
            kind.changed.notify_all()


def _readable(value: bytes | None, revision: int) -> Item | None:
    """Return a version; what is no object is as good as absent, except to who asks for just it."""
    try:
        return None if value is None else versions.item_of(value, revision)
    except errors.ApiError:
        return None


def _as_of(kind: _Kind, revision: int) -> dict[Key, Item]:
    """Return the objects of a kind at an earlier revision, by undoing what came after."""
    if revision < kind.compacted:
        raise _too_old(revision, kind.compacted)
    items = dict(kind.items)
    for event in reversed(kind.events):
        if event.version <= revision:
            break
        key = versions.key_of(event.item.obj)
        if event.previous is None:
            del items[key]
        else:
            items[key] = versions.item(event.previous, _version(event.previous))
    return items


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _too_old(asked: int, oldest: int) -> errors.Gone:
    return errors.Gone(410, "Expired", f"too old resource version: {asked} ({oldest})")


def _too_large(asked: int, current: int, trouble: str) -> errors.ApiError:
    """Return the error for a revision that has not been reached in time; worth a retry."""
    message = f"Too large resource version: {asked}, current: {current}"
    error = errors.ApiError(504, "Timeout", f"{message} ({trouble})" if trouble else message)
    error.retry_after = 1.0
    return error


def unavailable(trouble: str) -> errors.ApiError:
    """Return the error for a storage that does not answer; worth a retry."""
    error = errors.ApiError(503, "ServiceUnavailable", f"the store does not answer: {trouble}")
    error.retry_after = 1.0
    return error
