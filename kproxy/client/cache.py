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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from kproxy.api import kinds
from kproxy.api.meta import matches
from kproxy.api.whole import Whole, whole
from kproxy.errors import ApiError, KproxyError

from .informer import Informer
from .objects import Object, ObjectClient
from .picture import Key, Picture, key_of
from .rest import Rest

Handler = Callable[[Object | None, Object | None], None]


class Cache:
    """Reads of some kinds from pictures; all else, and writes, through ``client``.

    What is read is shared with other readers: do not change it. Somebody has to tell of changes
    by :meth:`heard`.
    """

    def __init__(self, client: ObjectClient, cached: Iterable[kinds.Kind]) -> None:
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
        if not labels:
            return found
        return [one for one in found if matches(labels, one["metadata"].get("labels"))]

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
        with self._attempt(kind, key_of(obj)):
            return self._wrote(kind, self._client.create(kind, obj))

    def update(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, key_of(obj)):
            return self._wrote(kind, self._client.update(kind, obj))

    def update_status(self, kind: kinds.Kind, obj: Object) -> Object:
        """See ``Cluster``."""
        with self._attempt(kind, key_of(obj)):
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
            before = picture.get(*key)
            picture.reread(key, before, self._client.get(kind, *key), time.monotonic())
        for key in picture.unconfirmed(time.monotonic()):
            # Created by us and gone before the watch was opened anew, it would stay for ever.
            before = picture.get(*key)
            try:
                now = self._client.get(kind, *key)
            except KproxyError:
                picture.postpone(key, time.monotonic())
            else:
                picture.reread(key, before, now, time.monotonic())
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

    @property
    def informers(self) -> Sequence[Informer[Any]]:
        """Return what keeps the pictures up."""
        return self._informers

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
                # An object that one of them cannot take must not end the watch: who follows
                # nothing any more decides by an old picture for ever.
                try:
                    handler(before, after)
                except KproxyError as error:
                    self._tell(error)
                except Exception as error:
                    self._tell(KproxyError(f"a change of a {kind.name} broke: {error!r}"))

        return heard

    def _tell(self, error: KproxyError) -> None:
        if self._on_problem is not None:
            self._on_problem(error)


def _is_definite(error: KproxyError) -> bool:
    """Return whether an error says that nothing was written."""
    return isinstance(error, ApiError) and error.code < 500
