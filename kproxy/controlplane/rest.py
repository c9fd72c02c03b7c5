"""The verbs of the Kubernetes API on a store; knows nothing of sockets.

Each method takes a target and returns an answer, or raises what :mod:`status` can say: ApiError,
InvalidObject, or a group of them.
"""

import contextlib
from collections.abc import Iterator

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds

from . import allocations, deletion, eventviews, lists, namespaces, routes
from .access import tokens
from .requests import DEFAULT, Answer, Options, Query
from .store import Store
from .subresources import Subresources
from .views import View
from .watches import Watch
from .writes import Writes

_encode = msgspec.json.Encoder().encode

MERGE_PATCH = Options(content_type="application/merge-patch+json")


class Api:
    """The objects of one cluster, as the API shows them. Safe to call from several threads."""

    def __init__(
        self,
        store: Store,
        taken: allocations.Allocations,
        signer: tokens.Signer | None = None,
    ) -> None:
        self.store = store
        self._writes = Writes(store, taken, allocations.generator())
        self._parts = Subresources(store, self._writes, signer)
        self.make_first_objects()

    def make_first_objects(self) -> None:
        """Create what every cluster has, where it is not there yet: namespaces and accounts."""
        there = {item.obj["metadata"]["name"] for item in self.store.list("namespaces")[0]}
        for name in namespaces.FIRST:
            if name not in there:
                body = _encode({"metadata": {"name": name}})
                with contextlib.suppress(errors.Conflict):  # another API server was faster
                    self.create(routes.Target(kind=kinds.NAMESPACE), body)
        for name in there:
            self._make_account(name)

    def get(self, target: routes.Target, options: Options = DEFAULT) -> Answer:
        """Return one object, or its scale."""
        if target.subresource == "scale":
            return self._parts.get_scale(target)
        if target.subresource not in ("", "status"):
            raise routes.method_not_allowed()
        item = self.store.get(eventviews.resource(target.kind), target.key)
        return View(target.kind, options).one(item)

    def list(self, target: routes.Target, query: Query, options: Options = DEFAULT) -> Answer:
        """Return a collection; see :mod:`lists`."""
        return lists.answer(self.store, target, query, options)

    def watch(
        self, target: routes.Target, query: Query, options: Options = DEFAULT
    ) -> Iterator[bytes]:
        """Return the lines of a watch, and an empty one now and then; see :mod:`watches`."""
        return iter(Watch(self.store, target, query, options))

    def create(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Answer:
        """Create an object, or what a subresource of one stands for."""
        match target.subresource:
            case "binding":
                return self._parts.bind(target, body, options)
            case "eviction":
                return self._parts.evict(target, body, options)
            case "token":
                return self._parts.token(target, body, options)
        if target.name:
            raise routes.method_not_allowed()
        item, warnings = self._writes.create(target, body, options)
        if target.kind is kinds.NAMESPACE and not options.dry_run:
            self._make_account(item.obj["metadata"]["name"])
        return View(target.kind, options).one(item, 201, warnings)

    def replace(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Answer:
        """Replace an object, or a part of it; the body's resourceVersion must be current."""
        if target.subresource == "scale":
            return self._parts.put_scale(target, body, options)
        if target.subresource == "finalize":
            return self._parts.finalize(target, body, options)
        if target.subresource not in ("", "status"):
            raise routes.method_not_allowed()
        item, warnings = self._writes.replace(target, body, options)
        return View(target.kind, options).one(item, 200, warnings)

    def patch(self, target: routes.Target, body: bytes, options: Options) -> Answer:
        """Change an object, or a part of it, by a patch of the type that the options name."""
        if target.subresource == "scale":
            return self._parts.patch_scale(target, body, options)
        if target.subresource not in ("", "status"):
            raise routes.method_not_allowed()
        applied = options.content_type == "application/apply-patch+yaml"
        resource = eventviews.resource(target.kind)
        is_new = applied and not self.store.exists(resource, target.key)
        item, warnings = self._writes.patch(target, body, options)
        return View(target.kind, options).one(item, 201 if is_new else 200, warnings)

    def merge_patch(self, target: routes.Target, body: bytes) -> Answer:
        """Change an object, or its status, by a JSON merge patch (RFC 7386)."""
        return self.patch(target, body, MERGE_PATCH)

    def delete(
        self, target: routes.Target, query: Query, body: bytes, options: Options = DEFAULT
    ) -> Answer:
        """Delete an object, or those of a collection that are selected; see :mod:`deletion`."""
        if target.subresource:
            raise routes.method_not_allowed()
        if target.name:
            return deletion.delete(self.store, self._writes, target, query, body, options)
        return deletion.delete_collection(self.store, self._writes, target, query, body, options)

    def _make_account(self, namespace: str) -> None:
        """Give a namespace its default service account."""
        key = (namespace, "default")
        if self.store.peek("serviceaccounts", key) is not None:
            return
        target = routes.Target(kind=catalog.SERVICE_ACCOUNT, namespace=namespace)
        with contextlib.suppress(errors.ApiError):  # it is there, or the namespace is not
            self.create(target, _encode({"metadata": {"name": "default"}}))
