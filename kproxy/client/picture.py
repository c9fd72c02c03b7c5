"""What is known of the objects of one kind: what a watch told, and what was written here.

Knows no network, and counts by the time that it is told: only the stamp of a deletion that nobody
has told of yet is this machine's time of day. :mod:`kproxy.client.cache` says what it is good for.
"""

import threading
import time
from typing import Any

from kproxy import rfc3339

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

UNCONFIRMED_S = 30.0
"""So long after an own write of which the watch has not told the object is read anew."""


class Picture:
    """What is known of the objects of one kind. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Object]] = {}
        self._own: dict[Key, tuple[int, float]] = {}
        """Version and time of own writes that the watch has not told of yet."""
        self._deleting: dict[Key, str] = {}
        """Uids of objects whose deletion was acknowledged, but not told yet."""
        self._doubtful: set[Key] = set()
        """Objects for which a write has failed that may have been done all the same."""

    def get(self, namespace: str, name: str) -> Object | None:
        """Return an object, None if there is none."""
        with self._lock:
            return self._objects.get(namespace, {}).get(name)

    def objects(self, namespace: str) -> list[Object]:
        """Return the objects of a namespace (empty: of all) by namespace and name."""
        with self._lock:
            chosen = [namespace] if namespace else sorted(self._objects)
            return [
                found[name]
                for found in (self._objects.get(one, {}) for one in chosen)
                for name in sorted(found)
            ]

    def heard(self, old: Object | None, new: Object | None) -> None:
        """Take what the watch tells of one object; either may be None."""
        with self._lock:
            if new is None:
                if old is not None:
                    self._gone(old)
                return
            key = key_of(new)
            version, _ = self._own.get(key, (0, 0.0))
            if _version(new) < version:
                return
            self._own.pop(key, None)
            self._put(new)

    def wrote(self, obj: Object, now: float) -> None:
        """Take the answer to an own write."""
        with self._lock:
            key = key_of(obj)
            current = self._objects.get(key[0], {}).get(key[1])
            if current is not None and _version(current) >= _version(obj):
                return  # The watch was quicker.
            self._own[key] = _version(obj), now
            self._put(obj)

    def deleted(self, namespace: str, name: str, uid: str) -> None:
        """Take note that the deletion of an object was acknowledged."""
        with self._lock:
            current = self._objects.get(namespace, {}).get(name)
            if current is not None and current["metadata"].get("uid") == (uid or _uid(current)):
                self._deleting[namespace, name] = _uid(current)
                self._put(current)

    def doubt(self, key: Key) -> None:
        """Take note that nobody knows what became of a write."""
        with self._lock:
            self._doubtful.add(key)

    def doubtful(self) -> list[Key]:
        """Return the objects that must be read anew before anything is decided."""
        with self._lock:
            return sorted(self._doubtful)

    def unconfirmed(self, now: float) -> list[Key]:
        """Return the objects of which the watch should have told long ago."""
        with self._lock:
            return [key for key, (_, at) in self._own.items() if now - at > UNCONFIRMED_S]

    def postpone(self, key: Key, now: float) -> None:
        """Take note that an object could not be read anew now."""
        with self._lock:
            if key in self._own:
                self._own[key] = self._own[key][0], now

    def reread(self, key: Key, before: Object | None, obj: Object | None, now: float) -> None:
        """Take an object as it was found, read past this picture.

        ``before`` is what this picture showed when the reading began. If it has been told
        something else meanwhile, that an object is not there says nothing any more, and it has to
        be read once more: another thread may have made it, or the watch have told of its end.
        """
        with self._lock:
            current = self._objects.get(key[0], {}).get(key[1])
            if current is not before and (obj is None or current is None):
                return
            self._doubtful.discard(key)
            if obj is not None:
                if current is None or _version(obj) > _version(current):
                    self._own[key] = _version(obj), now
                    self._put(obj)
                elif key in self._own:
                    self._own[key] = _version(obj), now
            elif self._own.pop(key, None) is not None:
                self._objects.get(key[0], {}).pop(key[1], None)
            elif current is not None:
                # The watch will tell. Until then it must not bring it back to life.
                self._deleting[key] = _uid(current)
                self._put(current)

    def _gone(self, old: Object) -> None:
        key = key_of(old)
        current = self._objects.get(key[0], {}).get(key[1])
        if current is None or _uid(current) != _uid(old):
            return  # Another of that name has been created already.
        del self._objects[key[0]][key[1]]
        self._own.pop(key, None)
        self._deleting.pop(key, None)

    def _put(self, obj: Object) -> None:
        key = key_of(obj)
        if key in self._deleting:
            if _uid(obj) != self._deleting[key] or obj["metadata"].get("deletionTimestamp"):
                del self._deleting[key]
            else:
                stamp = rfc3339.timestamp(time.time())
                obj = {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": stamp}}
        self._objects.setdefault(key[0], {})[key[1]] = obj


def key_of(obj: Object) -> Key:
    """Return namespace and name of an object."""
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def _version(obj: Object) -> int:
    """Return the version as a number; servers promise no order of versions, but all keep one."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isascii() and text.isdigit() else 0
