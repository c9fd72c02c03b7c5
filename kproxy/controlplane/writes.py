"""Writes of objects: create, replace, the four kinds of patch, and dry runs of all of them.

A change is a function of the object as it is, because it may have to be made again when somebody
else was faster. What is written is admitted first; see :mod:`admission`.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import kinds, shapes
from kproxy.rfc3339 import timestamp

from . import (
    admission,
    allocations,
    bodies,
    eventviews,
    namespaces,
    routes,
    strict,
    unmarshal,
    versions,
)
from .patches import managers, merge, strategic
from .requests import DEFAULT, Options, Validation
from .storage import base
from .store import Plan, Store
from .versions import Item, Object, key_of

_encode = msgspec.json.Encoder().encode
Change = Callable[[Object], Object]
Demand = Callable[[], Sequence[base.Write]]
"""See :meth:`Store.create`."""
Done = tuple[Item, tuple[str, ...]]
"""What was written, and warnings about it."""

_APPLY = "application/apply-patch+yaml"
_NAME_TRIES = 8


class Writes:
    """Writes objects of any kind into a store. May be used from several threads."""

    def __init__(self, store: Store, taken: allocations.Allocations, draw: random.Random) -> None:
        self._store = store
        self._allocations = taken
        self._draw = draw

    def create(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Done:
        """Create an object."""
        kind = target.kind
        raw, warnings = _parsed(kind, body, options)
        obj = admission.identify(target, raw)
        demand: Demand = tuple
        if kind.namespaced:
            demand = namespaces.Gate(self._store, kind, target.namespace, obj)
        for tries_left in reversed(range(_NAME_TRIES)):
            named = admission.named(obj, self._draw)
            new = eventviews.to_stored(kind, named)
            new = admission.admit(eventviews.stored_kind(kind), new, None)
            new = admission.initial_status(kind, new)
            new = self._managed(kind, new, None, options, "Update")
            if options.guard is not None:
                options.guard(kind.plural, None, new)
            try:
                return self._create(kind, new, options, demand), warnings
            except errors.Conflict:
                if obj["metadata"].get("name") or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    def _create(self, kind: kinds.Kind, new: Object, options: Options, demand: Demand) -> Item:
        versions.check_new(new)
        resource = eventviews.resource(kind)
        if not options.dry_run:
            return self._store.create(resource, new, self.plan(kind), demand)
        if self._store.exists(resource, key_of(new)):
            message = f'{resource} "{key_of(new)[1]}" already exists'
            raise errors.Conflict(409, "AlreadyExists", message)
        return self._dry(kind, None, versions.created(new, self._store.identity()))

    def replace(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Done:
        """Replace an object, or its status; a resourceVersion in the body must be current."""
        raw, warnings = _parsed(target.kind, body, options)
        new = admission.identify(target, raw)
        return self.update(target, lambda old: new, options), warnings

    def patch(self, target: routes.Target, body: bytes, options: Options = DEFAULT) -> Done:
        """Change an object, or its status, by a patch of the type that the options name."""
        if options.content_type == _APPLY:
            return self._apply(target, body, options)
        patch = bodies.parse(body, options.content_type)
        shape = shapes.of(target.kind)
        warnings: tuple[str, ...] = ()

        def change(old: Object) -> Object:
            nonlocal warnings
            new = _patched(old, patch, options.content_type, shape)
            if options.validation is Validation.IGNORE:
                return admission.identify(target, new)
            # What is wrong with the old object is not this client's doing.
            if set(strict.unknown(new, shape)) - set(strict.unknown(old, shape)):
                warnings = strict.check(
                    target.kind, new, body, options.content_type, options.validation
                )
            return admission.identify(target, new)

        return self.update(target, change, options), warnings

    def _apply(self, target: routes.Target, body: bytes, options: Options) -> Done:
        kind = target.kind
        if not options.manager:
            message = "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is "
            raise errors.ApiError(400, "BadRequest", message + "required for apply patch")
        raw, warnings = _parsed(kind, body, options)
        config = admission.identify(target, raw)
        if config["metadata"].get("managedFields"):
            message = "metadata.managedFields must be nil"
            raise errors.ApiError(400, "BadRequest", message)
        shape = shapes.of(kind)
        by = _manager(kind, options, "Apply")

        def change(old: Object) -> Object:
            new = managers.apply(old, config, shape, by, force=options.force)
            named = ("uid", "resourceVersion")
            asked = {n: config["metadata"][n] for n in named if config["metadata"].get(n)}
            return {**new, "metadata": {**new["metadata"], **asked}}

        try:
            return self.update(target, change, options, tracked=True), warnings
        except errors.ApiError as error:
            if error.code != 404 or target.subresource:
                raise
        new = managers.apply(None, config, shape, by, force=True)
        collection = routes.Target(kind=kind, namespace=target.namespace)
        plain = Options(dry_run=options.dry_run, guard=options.guard)
        try:
            return self.create(collection, _encode(new), plain)[0], warnings
        except errors.Conflict:  # somebody else was faster
            return self.update(target, change, options, tracked=True), warnings

    def update(
        self,
        target: routes.Target,
        make: Change,
        options: Options = DEFAULT,
        *,
        tracked: bool = False,
    ) -> Item:
        """Replace an object by what a function makes of it; it is admitted, and its status kept.

        With the subresource ``status`` only the status is taken. ``tracked``: the function has
        noted by itself who manages what.
        """
        kind = target.kind

        def change(old: Object) -> Object:
            shown = eventviews.shown(kind, old)
            new = eventviews.to_stored(kind, make(shown))
            stored = eventviews.stored_kind(kind)
            if target.subresource == "status":
                return admission.check_status(stored, _with_status(old, new), old)
            new = _with_specification(stored, old, new)
            if options.guard is not None:
                options.guard(kind.plural, old, new)
            return new if tracked else self._managed(kind, new, old, options, "Update")

        return self.put(eventviews.resource(kind), target, change, options)

    def put(self, resource: str, target: routes.Target, change: Change, options: Options) -> Item:
        """Replace a stored object by what a function makes of it, unless it is a dry run."""
        if not options.dry_run:
            return self._store.update(resource, target.key, change, self.plan(target.kind))
        old = self._store.get(resource, target.key)
        made = versions.updated(resource, old.obj, change(old.obj))
        return self._dry(target.kind, old.obj, made)

    def plan(self, kind: kinds.Kind) -> Plan | None:
        """Return what else belongs to a write of a kind."""
        if kind is kinds.SERVICE:
            return self._allocations.plan
        return namespaces.plan if kind is kinds.NAMESPACE else None

    def _dry(self, kind: kinds.Kind, old: Object | None, new: Object | None) -> Item:
        """Return what would be written."""
        plan = self.plan(kind)
        if plan is not None:
            new, _ = plan(old, new)
        shown = new if new is not None else old or {}
        return Item(shown, _encode(shown))

    def _managed(
        self, kind: kinds.Kind, new: Object, old: Object | None, options: Options, operation: str
    ) -> Object:
        """Return an object in which it is noted who manages what, if anybody cares."""
        known = old is not None and old["metadata"].get("managedFields")
        if not options.manager and not known:
            return new
        by = _manager(kind, options, operation)
        return managers.updated(new, old, shapes.of(kind), by)


def _parsed(kind: kinds.Kind, body: bytes, options: Options) -> tuple[Any, tuple[str, ...]]:
    """Return an object as a client has sent it, and warnings about it. Raises ApiError 400."""
    raw = bodies.parse(body, options.content_type)
    unmarshal.check(kind, raw)
    return raw, strict.check(kind, raw, body, options.content_type, options.validation)


def _manager(kind: kinds.Kind, options: Options, operation: str) -> managers.Manager:
    return managers.Manager(
        name=options.manager,
        operation=operation,
        version=kind.api_version,
        time=timestamp(time.time()),
        paths=frozenset(),
    )


def _patched(old: Object, patch: Any, content_type: str, shape: shapes.Shape) -> Any:
    match content_type:
        case "application/merge-patch+json":
            if not isinstance(patch, dict):
                message = "a merge patch of an object is an object"
                raise errors.ApiError(400, "BadRequest", message)
            return merge.merge(old, patch)
        case "application/strategic-merge-patch+json":
            return strategic.merge(old, patch, shape)
        case "application/json-patch+json":
            return merge.json_patch(old, patch)
    message = (
        f"the body of the request was in an unknown format ({content_type}) - accepted media "
        "types include: application/json-patch+json, application/merge-patch+json, "
        f"application/strategic-merge-patch+json, {_APPLY}"
    )
    raise errors.ApiError(415, "UnsupportedMediaType", message)


def _with_status(old: Object, new: Object) -> Object:
    """Return the old object with the new one's status and preconditions (uid, version)."""
    meta = {**old["metadata"], "resourceVersion": ""}
    for name in ("uid", "resourceVersion"):
        if name in new["metadata"]:
            meta[name] = new["metadata"][name]
    return {**old, "metadata": meta, "status": new.get("status") or {}}


def _with_specification(kind: kinds.Kind, old: Object, new: Object) -> Object:
    """Return a new version of an object with the old one's status, admitted."""
    new = {name: value for name, value in new.items() if name != "status"}
    if "status" in old:
        new["status"] = old["status"]
    if kind is kinds.SERVICE:
        new = allocations.kept(old, new)
    return admission.admit(kind, new, old)
