"""A storage in this process's memory: for one API server that may forget, and for tests.

It keeps every promise of :mod:`base` but that commits outlive the process.
"""

import bisect
import threading
import time
from collections.abc import Sequence

from . import base

HISTORY = 10_000
"""So many changes are kept, at least, for those who watch."""


class MemoryStorage:
    """Keys and values in memory.

    ``first_revision``: where counting starts. A server that is started anew must begin above all
    that its predecessor has given out, or a client would take one state for another.
    """

    def __init__(self, *, first_revision: int = 1, history: int = HISTORY) -> None:
        self.changed = threading.Condition()
        self._history = history
        self._revision = first_revision
        self._compacted = first_revision
        self._entries: dict[str, base.Entry] = {}
        self._changes: list[base.Change] = []

    def get(self, key: str) -> tuple[base.Entry | None, int]:
        """See :class:`base.Storage`."""
        with self.changed:
            return self._entries.get(key), self._revision

    def list(self, prefix: str) -> tuple[Sequence[base.Entry], int]:
        """See :class:`base.Storage`."""
        with self.changed:
            keys = sorted(key for key in self._entries if key.startswith(prefix))
            return [self._entries[key] for key in keys], self._revision

    def revision(self) -> int:
        """See :class:`base.Storage`."""
        return self._revision

    def commit(self, writes: Sequence[base.Write]) -> int:
        """See :class:`base.Storage`."""
        with self.changed:
            revision = self._revision + 1
            changes = base.changes_of(writes, self._entries.get, revision)
            for change in changes:
                if change.value is None:
                    del self._entries[change.key]
                else:
                    self._entries[change.key] = base.Entry(change.key, change.value, revision)
            if changes:
                self._revision = revision
                self._changes += changes
                # Forgetting in large steps keeps the cost of one commit constant.
                if len(self._changes) > 2 * self._history:
                    self._forget(self._changes[-self._history - 1].revision)
                self.changed.notify_all()
            return self._revision

    def watch(self, prefix: str, since: int) -> "MemoryWatch":
        """See :class:`base.Storage`."""
        return MemoryWatch(self, prefix, since)

    def compact(self, revision: int) -> None:
        """See :class:`base.Storage`."""
        with self.changed:
            self._forget(min(revision, self._revision))

    def close(self) -> None:
        """See :class:`base.Storage`."""

    def after(self, since: int) -> tuple[Sequence[base.Change], int]:
        """Return all changes after a revision and the latest; only while ``changed`` is held."""
        if since < self._compacted:
            raise base.Compacted(since, self._compacted)
        start = bisect.bisect_right(self._changes, since, key=lambda change: change.revision)
        return self._changes[start:], self._revision

    def _forget(self, revision: int) -> None:
        if revision > self._compacted:
            self._compacted = revision
            end = bisect.bisect_right(self._changes, revision, key=lambda change: change.revision)
            del self._changes[:end]


class MemoryWatch:
    """See :class:`base.Watch`."""

    def __init__(self, storage: MemoryStorage, prefix: str, since: int) -> None:
        self._storage = storage
        self._prefix = prefix
        self._reached = since
        self._closed = False

    def next(self, timeout: float | None) -> tuple[Sequence[base.Change], int]:
        """See :class:`base.Watch`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._storage.changed:
            while not self._closed:
                changes, revision = self._storage.after(self._reached)
                found = [one for one in changes if one.key.startswith(self._prefix)]
                self._reached = max(revision, self._reached)
                left = None if deadline is None else deadline - time.monotonic()
                if found or (left is not None and left <= 0):
                    return found, self._reached
                self._storage.changed.wait(left)
        return [], self._reached

    def close(self) -> None:
        """See :class:`base.Watch`."""
        with self._storage.changed:
            self._closed = True
            self._storage.changed.notify_all()
