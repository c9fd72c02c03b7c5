"""What an API server asks of the store below it; after etcd's model of keys and revisions.

Every commit, of however many keys, has one revision, and revisions only grow. A value knows the
revision of its last change, so a writer can demand that nobody else has written meanwhile: all
concurrency between API servers is settled here and nowhere else. An API server may forget
everything at any time; what a commit has acknowledged, the store never does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kproxy.errors import KproxyError

ABSENT = 0
"""The revision of a key that is not there: what a write that creates expects."""

LARGEST_COMMIT = 100
"""So many writes a commit may have (etcd allows 128), and a few that are only checked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, its value, and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Write:
    """One part of a commit: a new value, or None to delete.

    ``expected`` is the revision the key must have (ABSENT: it must not exist); None: whatever.
    ``only_checked``: nothing is written there; the rest of the commit depends on that revision.
    """

    key: str
    value: bytes | None
    expected: int | None = None
    only_checked: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One key that a commit changed. ``value`` None: deleted; ``previous`` None: created."""

    key: str
    value: bytes | None
    previous: bytes | None
    revision: int


class Mismatch(KproxyError):  # an answer, not a failure
    """A commit was refused: ``key`` is not at the revision expected; ``current`` is what is."""

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(f"{key} has changed")
        self.key = key
        self.current = current


class Compacted(KproxyError):
    """Changes after the revision asked for are partly forgotten; ``oldest`` is still known."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} is older than {oldest}")
        self.asked = asked
        self.oldest = oldest


class Unavailable(KproxyError):
    """The store did not answer in time: no quorum, no leader, not reachable, disk full.

    ``unknown``: a commit may have happened all the same; the caller must read before it repeats.
    """

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class Watch(Protocol):
    """Changes as they come, in the order of revisions, none twice, none left out."""

    def next(self, timeout: float | None) -> tuple[Sequence[Change], int]:
        """Return the next changes and the revision that is thereby reached.

        Changes of one commit come together. Without any within ``timeout`` seconds: none, and the
        revision reached. Raises Compacted, or Unavailable: watch again from there.
        """
        ...

    def close(self) -> None:
        """End it; may be called from another thread, which makes :meth:`next` return."""
        ...


class Storage(Protocol):
    """Keys and values, shared by API servers. Every method may be called from any thread.

    Reads are linearizable: they show every commit that was acknowledged, to whomever, before they
    began. Every method may raise Unavailable.
    """

    def get(self, key: str) -> tuple[Entry | None, int]:
        """Return a key's entry, None if it is absent, and the store's revision at that moment."""
        ...

    def list(self, prefix: str) -> tuple[Sequence[Entry], int]:
        """Return the entries below a prefix, by key, as of one revision, and that revision."""
        ...

    def revision(self) -> int:
        """Return the revision of the latest commit."""
        ...

    def commit(self, writes: Sequence[Write]) -> int:
        """Do all of the writes at once or none; return the new revision.

        When it returns they are durable: no SIGKILL, of whatever process, undoes them. Raises
        Mismatch. Deleting what is absent (with ``expected`` None) is no error; a commit that
        changes nothing at all has no revision of its own and returns the latest. Each key may
        occur once, and there may be LARGEST_COMMIT writes (else ValueError).
        """
        ...

    def watch(self, prefix: str, since: int) -> Watch:
        """Return the changes below a prefix after a revision.

        Raises Compacted, if not here then in :meth:`Watch.next`. A revision that is not reached
        yet is waited for.
        """
        ...

    def compact(self, revision: int) -> None:
        """Forget changes up to a revision; a watch from before it is refused with Compacted."""
        ...

    def close(self) -> None:
        """Free what this client uses; the stored stays."""
        ...


def changes_of(
    writes: Sequence[Write], current: Callable[[str], Entry | None], revision: int
) -> list[Change]:
    """Return what a commit of that revision changes; ``current`` looks a key up.

    Raises Mismatch, and ValueError for what no caller may ask.
    """
    check(writes)
    changes: list[Change] = []
    for write in writes:
        entry = current(write.key)
        is_at = ABSENT if entry is None else entry.revision
        if write.expected is not None and write.expected != is_at:
            raise Mismatch(write.key, entry)
        if not write.only_checked and (entry is not None or write.value is not None):
            previous = None if entry is None else entry.value
            changes.append(Change(write.key, write.value, previous, revision))
    return changes


def prefix_end(prefix: str) -> str:
    """Return the first string that sorts after all with that (ASCII) prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else chr(0x10FFFF)


def unchanged(key: str, revision: int) -> Write:
    """Return the part of a commit that demands that nobody writes a key; see :class:`Write`."""
    return Write(key, None, revision, only_checked=True)


def check(writes: Sequence[Write]) -> None:
    """Raise ValueError for a commit that names a key twice or is too large."""
    count = sum(not write.only_checked for write in writes)
    if len({write.key for write in writes}) != len(writes) or count > LARGEST_COMMIT:
        raise ValueError(f"a commit of {count} writes, or of one key twice")
