"""The verbs of the Kubernetes API on a store; knows nothing of sockets.

Each method takes a target and returns JSON, or raises what :mod:`status` can say: ApiError,
InvalidObject, or a group of them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds

from . import admission, allocations, defaults, routes, selectors, status
from .store import Event, EventType, Plan, Store

Object = dict[str, Any]
Query = Mapping[str, str]

BOOKMARK_SECONDS = 60.0
TICK_SECONDS = 10.0
"""How often an idle watch looks whether its client is still there."""
WATCH_SECONDS = 1800.0
"""How long a watch without ``timeoutSeconds`` lasts."""
FIRST_NAMESPACES = ("default", "kube-system")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and a JSON body."""

    code: int
    body: bytes


class Api:
    """The objects of one cluster, as the API shows them. Safe to call from several threads."""

    def __init__(self, store: Store, taken: allocations.Allocations) -> None:
        self.store = store
        self._allocations = taken
        for name in FIRST_NAMESPACES:
            body = _encode({"metadata": {"name": name}})
            with contextlib.suppress(errors.Conflict):  # another API server was here first
                self.create(routes.Target(kind=kinds.NAMESPACE), body)

    def get(self, target: routes.Target) -> Answer:
        """Return one object."""
        return Answer(200, self.store.get(target.kind.plural, target.key).raw)

    def list(self, target: routes.Target, query: Query) -> Answer:
        """Return a collection: always the newest state, whatever version is asked for.

        An exact version that is not the newest is 410: old states are not kept.
        """
        kind = target.kind
        selected = _selector(target, query)
        items, version = self.store.list(kind.plural, target.namespace)
        exact = query.get("resourceVersionMatch") == "Exact"
        if exact and query.get("resourceVersion", "") != str(version):
            raise errors.Gone(410, "Expired", "the requested resource version is not available")
        raws = [item.raw for item in items if selected is None or selected(item.obj)]
        head = _encode(
            {
                "kind": f"{kind.name}List",
                "apiVersion": kind.api_version,
                "metadata": {"resourceVersion": str(version)},
            }
        )
        return Answer(200, head[:-1] + b',"items":[' + b",".join(raws) + b"]}")

    def create(self, target: routes.Target, body: bytes) -> Answer:
        """Create an object."""
        kind = target.kind
        obj = admission.identify(target, parse(body))
        obj = admission.initial_status(kind, admission.admit(kind, obj, None))
        if kind.namespaced:
            self.store.get("namespaces", ("", target.namespace))
        return Answer(201, self.store.create(kind.plural, obj, self._plan(kind)).raw)

    def replace(self, target: routes.Target, body: bytes) -> Answer:
        """Replace an object, or its status; the resourceVersion in the body must be current."""
        new = admission.identify(target, parse(body))
        return self._update(target, lambda old: new)

    def merge_patch(self, target: routes.Target, body: bytes) -> Answer:
        """Change an object, or its status, by a JSON merge patch (RFC 7386)."""
        patch = parse(body)
        if not isinstance(patch, dict):
            raise errors.ApiError(400, "BadRequest", "a merge patch of an object is an object")
        return self._update(target, lambda old: admission.identify(target, merged(old, patch)))

    def delete(self, target: routes.Target, query: Query, body: bytes) -> Answer:
        """Delete an object; a pod on a node is only marked, unless the grace period is 0."""
        options = parse(body) if body else {}
        if not isinstance(options, dict):
            raise errors.ApiError(400, "BadRequest", "DeleteOptions must be an object")
        grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        condition = options.get("preconditions") or {}
        gone = self.store.delete(
            target.kind.plural,
            target.key,
            grace=(lambda pod: _grace(pod, grace)) if target.kind is catalog.POD else 0,
            uid=condition.get("uid") or "",
            version=condition.get("resourceVersion") or "",
            plan=self._plan(target.kind),
        )
        if target.kind is kinds.NAMESPACE:
            self._empty(target.name)
        if self.store.exists(target.kind.plural, target.key):
            return Answer(200, gone.raw)
        uid = gone.obj["metadata"]["uid"]
        return Answer(200, _encode(status.success(target.kind.plural, target.name, uid)))

    def watch(self, target: routes.Target, query: Query) -> Iterator[bytes]:
        """Return the lines of a watch, and an empty one now and then, to look for the client.

        Refuses a bad request at once; a version that is too old is an ERROR line, as in
        Kubernetes. Without a version (or with "0") the existing objects come first, as ADDED.
        """
        selected = _selector(target, query)
        if query.get("sendInitialEvents") == "true":
            message = "sendInitialEvents: streaming lists are not supported; list, then watch"
            raise errors.ApiError(422, "Invalid", message)
        since = _number(query, "resourceVersion", 0)
        seconds = _number(query, "timeoutSeconds", 0) or WATCH_SECONDS
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        return self._stream(target, selected, since, time.monotonic() + seconds, bookmarks)

    def _stream(
        self,
        target: routes.Target,
        selected: selectors.Predicate | None,
        since: int,
        end: float,
        bookmarks: bool,
    ) -> Iterator[bytes]:
        resource = target.kind.plural
        if since == 0:
            items, since = self.store.list(resource, target.namespace)
            chosen = [item for item in items if selected is None or selected(item.obj)]
            yield b"".join(_line(EventType.ADDED, item.raw) for item in chosen)
        marked = time.monotonic()
        while not self.store.closed:
            now = time.monotonic()
            if now >= end:
                break
            try:
                events, since = self.store.events(resource, since, min(TICK_SECONDS, end - now))
            except errors.Gone as error:
                yield _line("ERROR", _encode(status.failure(error)))
                return
            lines = [line for event in events if (line := _told(event, target, selected))]
            if bookmarks and time.monotonic() - marked >= BOOKMARK_SECONDS:
                marked = time.monotonic()
                lines.append(_bookmark(target.kind, since))
            yield b"".join(lines)
        if bookmarks and not self.store.closed:
            yield _bookmark(target.kind, since)

    def _update(self, target: routes.Target, make: Callable[[Object], Object]) -> Answer:
        kind = target.kind

        def change(old: Object) -> Object:
            new = make(old)
            if target.subresource == "status":
                return admission.check_shape(kind, _with_status(old, new))
            return self._with_specification(kind, old, new)

        item = self.store.update(kind.plural, target.key, change, self._plan(kind))
        return Answer(200, item.raw)

    def _plan(self, kind: kinds.Kind) -> Plan | None:
        return self._allocations.plan if kind is kinds.SERVICE else None

    def _with_specification(self, kind: kinds.Kind, old: Object, new: Object) -> Object:
        """Return a new version of an object with the old one's status, admitted."""
        new = {name: value for name, value in new.items() if name != "status"}
        if "status" in old:
            new["status"] = old["status"]
        if kind is kinds.SERVICE:
            new = allocations.kept(old, new)
        return admission.admit(kind, new, old)

    def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace that is gone; pods on nodes get their grace period."""
        for kind in kinds.known():
            if not kind.namespaced:
                continue
            for item in self.store.list(kind.plural, namespace)[0]:
                name = item.obj["metadata"]["name"]
                inner = routes.Target(kind=kind, namespace=namespace, name=name)
                self.delete(inner, {}, b"")


def parse(body: bytes) -> Any:
    """Decode JSON. Raises ApiError 400."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.ApiError(400, "BadRequest", f"the body is not JSON: {error}") from None


def merged(old: Any, patch: Any) -> Any:
    """Return what a merge patch makes of a value (RFC 7386, section 2)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _with_status(old: Object, new: Object) -> Object:
    """Return the old object with the new one's status and preconditions (uid, version)."""
    meta = {**old["metadata"], "resourceVersion": ""}
    for name in ("uid", "resourceVersion"):
        if name in new["metadata"]:
            meta[name] = new["metadata"][name]
    return {**old, "metadata": meta, "status": new.get("status") or {}}


def _selector(target: routes.Target, query: Query) -> selectors.Predicate | None:
    fields = query.get("fieldSelector", "")
    if target.name:
        fields = ",".join(part for part in (fields, f"metadata.name={target.name}") if part)
    return selectors.parse(query.get("labelSelector", ""), fields, target.kind.plural)


def _told(
    event: Event, target: routes.Target, selected: selectors.Predicate | None
) -> bytes | None:
    """Return an event as the watcher sees it: an object that stops matching is DELETED to it."""
    obj = event.item.obj
    if target.namespace and obj["metadata"].get("namespace") != target.namespace:
        return None
    if selected is None:
        return _line(event.type, event.item.raw)
    before = event.previous is not None and selected(event.previous)
    after = event.type is not EventType.DELETED and selected(obj)
    if not before and not after:
        return None
    kind = EventType.MODIFIED
    if not before:
        kind = EventType.ADDED
    elif not after:
        kind = EventType.DELETED
    return _line(kind, event.item.raw)


def _line(event_type: str, raw: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (event_type.encode(), raw)


def _bookmark(kind: kinds.Kind, version: int) -> bytes:
    obj = {
        "kind": kind.name,
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(version)},
    }
    return _line("BOOKMARK", _encode(obj))


def _number(query: Query, name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit()):
        raise errors.ApiError(400, "BadRequest", f"{name}: {text!r} is not a number")
    return int(text)


def _grace(pod: Object, asked: Any) -> int:
    """Return the grace period of a pod's deletion: 0 if no kubelet has anything to stop."""
    spec = pod.get("spec") or {}
    phase = (pod.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
        return 0
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", defaults.GRACE_PERIOD)
    try:
        return max(int(asked), 0)
    except (TypeError, ValueError):
        raise errors.ApiError(
            400, "BadRequest", f"gracePeriodSeconds: {asked!r} is not a number"
        ) from None
