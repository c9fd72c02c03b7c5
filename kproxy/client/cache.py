"""Objects kept in memory by informers, for who reads far more often than anything changes.

A controller that decides by an old picture does things twice. So what is written here is in the
picture at once: an object is there as soon as its creation has been acknowledged, and is marked
as being deleted as soon as its deletion has. The watch, which tells of the same later, and of
what came before, cannot turn that back. (In Kubernetes' controllers "expectations" do this.) What
*others* wrote may be missing for as long as the watch takes.

A write whose answer was lost may have been done or not. Before anything is decided by the picture
again, the object is read anew.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from kproxy.api import kinds
from kproxy.api.whole import Whole, whole
from kproxy.errors import ApiError, KproxyError

from .informer import Informer
from .objects import ObjectClient
from .rest import Rest

Object = dict[str, Any]
Handler = Callable[[Object | None, Object | None], None]
Key = tuple[str, str]

UNCONFIRMED_S = 30.0
"""So long after an own write of which the watch has not told the object is read anew."""


class Client(Protocol):
    """Reads and writes past the cache, as in ``Cluster``."""

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """See ``Cluster``."""
        ...

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See ``Cluster``."""
        ...

    def finalize(self, namespace: Object) -> Object:
        """See ``Cluster``."""
        ...

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        ...

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        ...

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        ...

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """See ``Cluster``."""
        ...

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """See ``Cluster``."""
        ...

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
    ) -> None:
        """See ``Cluster``."""
        ...


class Picture:
    """What is known of the objects of one kind. Any thread may call; knows no network."""

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
            key = _key(new)
            version, _ = self._own.get(key, (0, 0.0))
            if _version(new) < version:
                return
            self._own.pop(key, None)
            self._put(new)

    def wrote(self, obj: Object, now: float) -> None:
        """Take the answer to an own write."""
        with self._lock:
            key = _key(obj)
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

    def reread(self, key: Key, obj: Object | None, now: float) -> None:
        """Take an object as it is now, read past this picture."""
        with self._lock:
            self._doubtful.discard(key)
            current = self._objects.get(key[0], {}).get(key[1])
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
        key = _key(old)
        current = self._objects.get(key[0], {}).get(key[1])
        if current is None or _uid(current) != _uid(old):
            return  # Another of that name has been created already.
        del self._objects[key[0]][key[1]]
        self._own.pop(key, None)
        self._deleting.pop(key, None)

    def _put(self, obj: Object) -> None:
        key = _key(obj)
        if key in self._deleting:
            if _uid(obj) != self._deleting[key] or obj["metadata"].get("deletionTimestamp"):
                del self._deleting[key]
            else:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                obj = {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": stamp}}
        self._objects.setdefault(key[0], {})[key[1]] = obj


class Cache:
    """Reads of some kinds from pictures; all else, and writes, through ``client``.

    What is read is shared with other readers: do not change it. Somebody has to tell of changes
    by :meth:`heard`.
    """

    def __init__(self, client: Client, cached: Iterable[kinds.Kind]) -> None:
        self._client = client
        self._pictures = {kind: Picture() for kind in cached}
        self.known = Known(self._pictures)

    def heard(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> None:
        """Take what a watch tells of one object."""
        self._pictures[kind].heard(old, new)

    def list_objects(
        self, kind: kinds.Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Object]:
        """See ``Cluster``."""
        picture = self._picture(kind)
        if picture is None:
            return self._client.list_objects(kind, namespace, labels)
        found = picture.objects(namespace)
        return list(_with_labels(found, labels)) if labels else found

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See ``Cluster``."""
        picture = self._picture(kind)
        if picture is None:
            return self._client.get(kind, namespace, name)
        return picture.get(namespace, name)

    def fresh(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """See ``Cluster``."""
        return self._client.get(kind, namespace, name)

    def fresh_list(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """See ``Cluster``."""
        return self._client.list_objects(kind, namespace)

    def finalize(self, namespace: Object) -> Object:
        """See ``Cluster``. The picture shows it when the watch tells of it."""
        return self._client.finalize(namespace)

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, _key(obj)):
            return self._wrote(kind, self._client.create(kind, obj))

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, _key(obj)):
            return self._wrote(kind, self._client.update(kind, obj))

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, _key(obj)):
            return self._wrote(kind, self._client.update_status(kind, obj))

    def patch(
        self, kind: kinds.Kind, namespace: str, name: str, patch: Object, subresource: str = ""
    ) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, (namespace, name)):
            return self._wrote(kind, self._client.patch(kind, namespace, name, patch, subresource))

    def bind(self, namespace: str, name: str, uid: str, node: str) -> None:
        """See ``Cluster``. The picture shows it when the watch tells of it."""
        self._client.bind(namespace, name, uid, node)

    def delete(
        self,
        kind: kinds.Kind,
        namespace: str,
        name: str,
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
    ) -> None:
        """See ``Cluster``."""
        with self._attempt(kind, (namespace, name)):
            self._client.delete(
                kind, namespace, name, grace=grace, uid=uid, propagation=propagation
            )
        if kind in self._pictures:
            self._pictures[kind].deleted(namespace, name, uid)

    def _wrote(self, kind: kinds.Kind, obj: Object) -> Object:
        if kind in self._pictures:
            self._pictures[kind].wrote(obj, time.monotonic())
        return obj

    @contextlib.contextmanager
    def _attempt(self, kind: kinds.Kind, key: Key) -> Iterator[None]:
        try:
            yield
        except KproxyError as error:
            if kind in self._pictures and not _is_definite(error):
                self._pictures[kind].doubt(key)
            raise

    def _picture(self, kind: kinds.Kind) -> Picture | None:
        picture = self._pictures.get(kind)
        if picture is None:
            return None
        for key in picture.doubtful():
            picture.reread(key, self._client.get(kind, *key), time.monotonic())
        for key in picture.unconfirmed(time.monotonic()):
            # Created by us and gone before the watch was opened anew, it would stay for ever.
            try:
                now = self._client.get(kind, *key)
            except KproxyError:
                picture.postpone(key, time.monotonic())
            else:
                picture.reread(key, now, time.monotonic())
        return picture


class Known:
    """What a cache knows of its kinds; asks nobody, so reading cannot fail."""

    def __init__(self, pictures: Mapping[kinds.Kind, Picture]) -> None:
        self._pictures = pictures

    def list_objects(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a cached kind (in one namespace)."""
        return self._pictures[kind].objects(namespace)

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object of a cached kind; None if there is none."""
        return self._pictures[kind].get(namespace, name)


class CachedObjects(Cache):
    """A cache kept up by informers; fulfils ``kproxy.controlplane.cluster.Cluster``.

    Handlers run in the informers' threads, after the picture has changed.
    """

    def __init__(
        self,
        rest: Rest,
        cached: Iterable[kinds.Kind],
        *,
        guard: Callable[[], None] = lambda: None,
        on_problem: Callable[[KproxyError], None] | None = None,
    ) -> None:
        super().__init__(ObjectClient(rest, guard=guard), cached)
        self._on_problem = on_problem
        self._handlers: dict[kinds.Kind, list[Handler]] = {kind: [] for kind in self._pictures}
        self._informers = [
            Informer(rest, whole(kind), on_change=self._listener(kind), on_problem=on_problem)
            for kind in self._pictures
        ]

    def on_change(self, kind: kinds.Kind, handler: Handler) -> None:
        """Tell of every change of a cached kind, also of own ones. Before :meth:`start`."""
        self._handlers[kind].append(handler)

    def start(self) -> None:
        """Begin to list and watch."""
        for informer in self._informers:
            informer.start()

    def wait_synced(self) -> None:
        """Wait until everything has been listed, or :meth:`stop`."""
        for informer in self._informers:
            informer.wait_synced()

    def stop(self) -> None:
        """End all watches."""
        for informer in self._informers:
            informer.stop()

    def _listener(self, kind: kinds.Kind) -> Callable[[Whole | None, Whole | None], None]:
        handlers = self._handlers[kind]

        def heard(old: Whole | None, new: Whole | None) -> None:
            before, after = (one.data if one is not None else None for one in (old, new))
            self.heard(kind, before, after)
            for handler in handlers:
                try:
                    handler(before, after)
                except KproxyError as error:
                    # An object that one of them cannot take must not end the watch.
                    if self._on_problem is not None:
                        self._on_problem(error)

        return heard


def _with_labels(found: Iterable[Object], labels: Mapping[str, str]) -> Iterator[Object]:
    for obj in found:
        have = obj["metadata"].get("labels") or {}
        if all(have.get(name) == value for name, value in labels.items()):
            yield obj


def _key(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def _is_definite(error: KproxyError) -> bool:
    """Return whether an error says that nothing was written."""
    return isinstance(error, ApiError) and error.code < 500


def _version(obj: Object) -> int:
    """Return the version as a number; servers promise no order of versions, but all keep one."""
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if text.isascii() and text.isdigit() else 0
