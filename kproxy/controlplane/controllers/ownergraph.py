"""Who owns what, of all objects: fed by informers, asked by the garbage collector.

Any thread may call. An object is known by its uid, which no other ever has.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kproxy.api import kinds

from . import owned

Object = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class Known:
    """An object, and its kind."""

    kind: kinds.Kind
    obj: Object

    @property
    def uid(self) -> str:
        """Return the object's uid."""
        return owned.uid(self.obj)

    @property
    def references(self) -> list[Object]:
        """Return the references to its owners."""
        return list(self.obj["metadata"].get("ownerReferences") or ())

    @property
    def leaving(self) -> bool:
        """Return whether it is being deleted."""
        return owned.terminating(self.obj)

    def waits_for(self, finalizer: str) -> bool:
        """Return whether it is being deleted and a finalizer holds it."""
        return self.leaving and finalizer in (self.obj["metadata"].get("finalizers") or ())

    @property
    def label(self) -> str:
        """Return how messages name it."""
        meta = self.obj["metadata"]
        return self.kind.label(meta.get("namespace", ""), meta["name"])


class OwnerGraph:
    """All objects by uid, and the dependents of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Known] = {}
        self._dependents: dict[str, set[str]] = {}

    def heard(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> set[str]:
        """Take a change; return the uids of the objects that it concerns."""
        with self._lock:
            concerned: set[str] = set()
            if old is not None and (new is None or owned.uid(old) != owned.uid(new)):
                concerned |= self._remove(owned.uid(old))
            if new is not None:
                concerned |= self._put(Known(kind, new))
            return concerned

    def get(self, uid: str) -> Known | None:
        """Return an object, None if it is not there."""
        with self._lock:
            return self._known.get(uid)

    def dependents(self, uid: str) -> list[Known]:
        """Return the objects that an object owns, by kind, namespace and name."""
        with self._lock:
            found = [self._known[one] for one in self._dependents.get(uid, ())]
        return sorted(found, key=lambda one: one.label)

    def _put(self, new: Known) -> set[str]:
        old = self._known.get(new.uid)
        self._known[new.uid] = new
        before, after = _owners(old), _owners(new)
        for uid in before - after:
            self._unlink(uid, new.uid)
        for uid in after:
            self._dependents.setdefault(uid, set()).add(new.uid)
        if old is not None and _matters(old) == _matters(new):
            return set()
        concerned = {new.uid} | before | after
        if new.leaving:
            concerned |= self._dependents.get(new.uid, set())
        return concerned

    def _remove(self, uid: str) -> set[str]:
        old = self._known.pop(uid, None)
        owners = _owners(old)
        for owner in owners:
            self._unlink(owner, uid)
        return owners | self._dependents.get(uid, set())

    def _unlink(self, owner: str, uid: str) -> None:
        found = self._dependents.get(owner, set())
        found.discard(uid)
        if not found:
            self._dependents.pop(owner, None)


def _owners(known: Known | None) -> set[str]:
    return {str(one.get("uid")) for one in known.references} if known is not None else set()


def _matters(known: Known) -> tuple[Any, ...]:
    """Return what of an object matters for who is deleted when."""
    meta = known.obj["metadata"]
    return meta.get("ownerReferences"), meta.get("finalizers"), meta.get("deletionTimestamp")


def without(references: Iterable[Object], uids: Iterable[str]) -> list[Object]:
    """Return the references but for those to some owners."""
    gone = set(uids)
    return [one for one in references if one.get("uid") not in gone]
