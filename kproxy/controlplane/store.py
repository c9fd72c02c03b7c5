"""The store of an API server: objects by kind, kept in a storage, read from a memory of it.

The version of an object (``resourceVersion``) is the storage's revision that wrote it. Any number
of API servers share a storage: a write is a commit that demands the version it has read, and is
tried again from the beginning if somebody was faster. Nothing is locked meanwhile.

Reads show the newest state unless ``fresh=False`` allows the memory's, which may be a moment
old and is there also while the storage is away. A storage that is away is ApiError 503, or 504
for a write of which nobody knows whether it was done.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

from kproxy import errors
from kproxy.rfc3339 import timestamp

from . import versions, watchcache
from .storage import base
from .versions import Event, EventType, Item, Key, Object, key_of

__all__ = ["Event", "EventType", "Item", "Key", "Object", "Plan", "Store", "key_of"]

Plan = Callable[[Object | None, Object | None], tuple[Object | None, Sequence[base.Write]]]
"""What else belongs to a write: given the object before and after (None: absent), it returns the
object to be written and further writes for the same commit. It may be called several times, and
sees everything that was committed before (:meth:`Store.list`)."""

ATTEMPTS = 50
"""So often a write begins anew because somebody was faster."""
LARGEST = 1_500_000
"""Bytes of an object: what etcd takes (1.5 MiB), less what goes around it."""


class Store:
    """All objects of a cluster. Every method may be called from any thread.

    ``history``: events kept per kind, at least; ``now``: wall clock in seconds, for timestamps;
    ``new_uid``: source of uids; ``patience``: seconds to wait for the storage's changes to arrive.
    """

    def __init__(
        self,
        storage: base.Storage,
        *,
        history: int = 2_000,
        now: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        patience: float = 3.0,
    ) -> None:
        self._storage = storage
        self._now = now
        self._new_uid = new_uid
        self._cache = watchcache.WatchCache(storage, history=history, patience=patience)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._cache.closed

    @property
    def trouble(self) -> str:
        """Why the storage is not followed at the moment; empty: it is."""
        return self._cache.trouble

    def close(self) -> None:
        """Wake all watchers for the last time (:meth:`events` no longer waits); free the storage.

        What is within a write then may get ApiError 503.
        """
        self._cache.close()
        self._storage.close()
        self._cache.join()

    def wait_closed(self, timeout: float) -> bool:
        """Wait until :meth:`close` is called, at most so many seconds; return whether it was."""
        return self._cache.wait_closed(timeout)

    @property
    def version(self) -> int:
        """The number of the latest change of any kind, as the storage says now."""
        with _answers():
            return self._storage.revision()

    def list(
        self, resource: str, namespace: str = "", *, fresh: bool = True, at: int | None = None
    ) -> tuple[list[Item], int]:
        """Return the objects of a kind (of one namespace) by key, and the version of the list.

        ``at``: as of exactly this version; raises Gone if that is forgotten.
        """
        if fresh and at is None:
            self._cache.wait_for(self.version)
        return self._cache.list(resource, namespace, at)

    def get(self, resource: str, key: Key, *, fresh: bool = True) -> Item:
        """Return one object. Raises ApiError 404."""
        item = self.find(resource, key) if fresh else self._cache.find(resource, key)
        if item is None:
            raise _not_found(resource, key)
        return item

    def find(self, resource: str, key: Key) -> Item | None:
        """Return one object, None if it is not there."""
        with _answers():
            entry, _ = self._storage.get(versions.path_of(resource, key))
        if entry is None:
            return None
        known = self._cache.peek(resource, key)
        if known is not None and known.revision == entry.revision:
            return known
        return versions.item_of(entry.value, entry.revision)

    def exists(self, resource: str, key: Key) -> bool:
        """Return whether there is an object of that key."""
        return self.find(resource, key) is not None

    def peek(self, resource: str, key: Key) -> Item | None:
        """Return an object as it is in memory, None if it is not there."""
        return self._cache.peek(resource, key)

    def events(
        self, resource: str, since: int, timeout: float | None
    ) -> tuple[Sequence[Event], int]:
        """Return the changes of a kind after a version, and the version to go on from.

        Without any, waits up to ``timeout`` seconds (None: for ever) for the first; none then, or
        after :meth:`close`, is an empty list. Raises Gone if changes after ``since`` may be
        forgotten, also for a version that this storage has not reached (another one's).
        """
        if since > self._cache.revision and since > self.version:
            message = f"too old resource version: {since} is of another store"
            raise errors.Gone(410, "Expired", message)
        return self._cache.events(resource, since, timeout)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return for each kind the number of objects and of remembered events."""
        return self._cache.sizes()

    def versions(self) -> dict[str, int]:
        """Return for each kind the version of the last change that is in memory."""
        return self._cache.versions()

    @property
    def heard_at(self) -> float:
        """When the storage last told of a change, seconds since 1970; 0: never."""
        return self._cache.heard_at

    def identity(self) -> Object:
        """Return the metadata of a new object: uid, generation 1 and time."""
        now = timestamp(self._now())
        return {"uid": self._new_uid(), "generation": 1, "creationTimestamp": now}

    def create(
        self,
        resource: str,
        obj: Object,
        plan: Plan | None = None,
        demand: Callable[[], Sequence[base.Write]] = tuple,
    ) -> Item:
        """Store a new object with uid, version, generation 1 and time. Raises Conflict.

        ``demand`` returns further writes for the same commit, and is asked again when the commit
        was refused for one of them. Raises whatever it raises.
        """
        key = key_of(obj)
        new = versions.created(obj, self.identity())
        for _ in range(ATTEMPTS):
            if plan is not None and self.exists(resource, key):
                raise _already_exists(resource, key)
            try:
                return self._commit(resource, key, None, new, plan, demand())
            except base.Mismatch as error:
                if error.key == versions.path_of(resource, key):
                    raise _already_exists(resource, key) from None
        raise _contended(resource, key)

    def update(
        self,
        resource: str,
        key: Key,
        change: Callable[[Object], Object],
        plan: Plan | None = None,
    ) -> Item:
        """Replace an object by what ``change`` makes of it (which must not write to it).

        ``change`` is called again with the newer object if somebody else writes meanwhile. A
        ``resourceVersion`` or uid in its result that is not the current one raises Conflict; an
        empty one overwrites whatever is there. A result that says the same as before is not
        written. An object that waits to be deleted goes with its last finalizer. Raises ApiError
        404, and whatever ``change`` and ``plan`` raise.
        """

        def step(old: Object) -> Object | None:
            return versions.updated(resource, old, change(old))

        return self._modify(resource, key, step, plan)

    def delete(
        self,
        resource: str,
        key: Key,
        *,
        grace: int | Callable[[Object], int] = 0,
        uid: str = "",
        version: str = "",
        plan: Plan | None = None,
    ) -> Item:
        """Remove an object; with ``grace`` (seconds) only mark it, for its owner to remove.

        ``grace`` may be computed from the object. What has finalizers is only marked, too. Marking
        again can shorten the grace period, never extend it. Returns the object as it is now (or
        was last). Raises ApiError 404, and Conflict if uid or version differ.
        """

        def step(old: Object) -> Object | None:
            versions.check_precondition(resource, old, uid, version)
            seconds = grace(old) if callable(grace) else grace
            return versions.deleted(old, seconds, self._now())

        return self._modify(resource, key, step, plan)

    def commit(self, writes: Sequence[base.Write]) -> int:
        """Write what is no object of its own. Raises Mismatch, and ApiError 503 or 504."""
        with _answers():
            return self._storage.commit(writes)

    def _modify(
        self,
        resource: str,
        key: Key,
        step: Callable[[Object], Object | None],
        plan: Plan | None,
    ) -> Item:
        for _ in range(ATTEMPTS):
            old = self.get(resource, key)
            new = step(old.obj)
            if new is old.obj:
                return old
            try:
                return self._commit(resource, key, old, new, plan)
            except base.Mismatch:
                continue
        raise _contended(resource, key)

    def _commit(
        self,
        resource: str,
        key: Key,
        old: Item | None,
        new: Object | None,
        plan: Plan | None,
        demanded: Sequence[base.Write] = (),
    ) -> Item:
        more: Sequence[base.Write] = ()
        if plan is not None:
            self._cache.wait_for(self.version)
            new, more = plan(None if old is None else old.obj, new)
        shown = new if new is not None else old.obj if old is not None else {}
        value = None if new is None else versions.stored(new)
        if value is not None and len(value) > LARGEST:
            message = f"Request entity too large: an object may have {LARGEST} bytes"
            raise errors.ApiError(413, "RequestEntityTooLarge", message)
        expected = base.ABSENT if old is None else old.revision
        write = base.Write(versions.path_of(resource, key), value, expected)
        return versions.item(shown, self.commit([write, *more, *demanded]))


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    """Say in the API's words that the storage does not answer."""
    try:
        yield
    except base.Unavailable as error:
        if error.unknown:
            message = f"the store did not answer in time, it may have been written: {error}"
            raise errors.ApiError(504, "Timeout", message) from error
        raise watchcache.unavailable(str(error)) from error


def _not_found(resource: str, key: Key) -> errors.ApiError:
    return errors.ApiError(404, "NotFound", f'{resource} "{key[1]}" not found')


def _already_exists(resource: str, key: Key) -> errors.Conflict:
    return errors.Conflict(409, "AlreadyExists", f'{resource} "{key[1]}" already exists')


def _contended(resource: str, key: Key) -> errors.Conflict:
    message = f'Operation cannot be fulfilled on {resource} "{key[1]}": too many others write'
    return errors.Conflict(409, "Conflict", message)
