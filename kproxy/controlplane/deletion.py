"""Deletion: at once, after a grace period, or when the last finalizer is gone.

What becomes of the objects that a deleted one owns is the garbage collector's to do; here it is
told by a finalizer: ``orphan``, or ``foregroundDeletion``.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds

from . import bodies, defaults, eventviews, lists, namespaces, routes, status, versions
from .requests import Answer, Options, Propagation, Query
from .store import Store
from .versions import Object
from .writes import Writes

_encode = msgspec.json.Encoder().encode

_FINALIZERS = {Propagation.ORPHAN: "orphan", Propagation.FOREGROUND: "foregroundDeletion"}


def delete(
    store: Store,
    writes: Writes,
    target: routes.Target,
    query: Query,
    body: bytes,
    options: Options,
) -> Answer:
    """Delete an object; a pod on a node is only marked, unless the grace period is 0."""
    wishes = _wishes(query, body, options)
    if target.kind is kinds.NAMESPACE:
        namespaces.check_deletable(target.name)
    gone = _delete(store, writes, target, wishes)
    shown = eventviews.shown(target.kind, gone.obj)
    if gone.obj["metadata"].get("deletionTimestamp") and store.exists(
        eventviews.resource(target.kind), target.key
    ):
        return Answer(200, _encode(shown))
    uid = gone.obj["metadata"]["uid"]
    return Answer(200, _encode(status.deleted(target.kind.plural, target.name, uid)))


def delete_collection(
    store: Store,
    writes: Writes,
    target: routes.Target,
    query: Query,
    body: bytes,
    options: Options,
) -> Answer:
    """Delete the objects that the query selects; those that are gone meanwhile are no error."""
    wishes = {**_wishes(query, body, options), "preconditions": {}}
    selected = lists.selector(target, query)
    items, version = store.list(eventviews.resource(target.kind), target.namespace)
    gone = []
    for item in items:
        if selected is not None and not selected(item.obj):
            continue
        namespace, name = versions.key_of(item.obj)
        one = routes.Target(kind=target.kind, namespace=namespace, name=name)
        try:
            if target.kind is kinds.NAMESPACE:
                namespaces.check_deletable(name)
            gone.append(eventviews.shown(target.kind, _delete(store, writes, one, wishes).obj))
        except errors.ApiError as error:
            if error.code not in (403, 404):
                raise
    answer = {
        "kind": f"{target.kind.name}List",
        "apiVersion": target.kind.api_version,
        "metadata": {"resourceVersion": str(version)},
        "items": gone,
    }
    return Answer(200, _encode(answer))


def _wishes(query: Query, body: bytes, options: Options) -> Object:
    """Return the DeleteOptions of a request: those of the body, else those of the query."""
    wishes = bodies.parse_object(body, options.content_type)
    for name in ("gracePeriodSeconds", "propagationPolicy"):
        if wishes.get(name) is None and query.get(name):
            wishes[name] = query[name]
    orphans = wishes.get("orphanDependents", query.get("orphanDependents"))
    if orphans in (True, "true"):
        wishes["propagationPolicy"] = Propagation.ORPHAN
    policy = wishes.get("propagationPolicy") or None
    if policy is not None and policy not in Propagation.__members__.values():
        message = f"propagationPolicy: {policy!r}: known are Background, Foreground and Orphan"
        raise errors.ApiError(400, "BadRequest", message)
    wishes["propagationPolicy"] = policy and Propagation(policy)
    wishes["dryRun"] = bool(wishes.get("dryRun")) or options.dry_run
    if not isinstance(wishes.get("preconditions", {}), dict | None):
        raise errors.ApiError(400, "BadRequest", "preconditions: must be an object")
    return wishes


def _delete(store: Store, writes: Writes, target: routes.Target, wishes: Object) -> versions.Item:
    resource = eventviews.resource(target.kind)
    condition = wishes.get("preconditions") or {}
    uid, version = condition.get("uid") or "", condition.get("resourceVersion") or ""
    if wishes["dryRun"]:
        item = store.get(resource, target.key)
        versions.check_precondition(resource, item.obj, uid, version)
        return item
    noted = None
    grace = _grace(target.kind, wishes.get("gracePeriodSeconds"))
    if policy := wishes["propagationPolicy"]:
        noted = _note_propagation(store, writes, target, policy, uid, version)
    if noted is not None:
        version = ""
    try:
        return store.delete(
            resource,
            target.key,
            grace=grace,
            uid=uid,
            version=version,
            plan=writes.plan(target.kind),
        )
    except errors.ApiError as error:
        if noted is None or error.code != 404:
            raise
        return noted  # it had waited for the finalizer that the new policy does not have


def _note_propagation(
    store: Store,
    writes: Writes,
    target: routes.Target,
    policy: Propagation,
    uid: str,
    version: str,
) -> versions.Item | None:
    """Tell the garbage collector what to do; return the object if that has changed it.

    Who names no policy changes none: a deletion that waits for dependents goes on to wait.
    """
    resource = eventviews.resource(target.kind)
    before = store.get(resource, target.key).obj
    wanted = _FINALIZERS.get(policy)

    def change(old: Object) -> Object:
        versions.check_precondition(resource, old, uid, version)
        others = [
            name
            for name in old["metadata"].get("finalizers") or ()
            if name not in _FINALIZERS.values()
        ]
        names = [*others, wanted] if wanted else others
        return {**old, "metadata": {**old["metadata"], "finalizers": names}}

    have = before["metadata"].get("finalizers") or []
    if change(before)["metadata"]["finalizers"] == have:
        return None
    return store.update(resource, target.key, change, writes.plan(target.kind))


def _grace(kind: kinds.Kind, asked: Any) -> int | Callable[[Object], int]:
    if kind is not catalog.POD:
        return 0
    if asked is not None:
        try:
            asked = max(int(asked), 0)
            asked.to_bytes(8, signed=True)  # OverflowError: more than Kubernetes' 64 bits
        except (TypeError, ValueError, OverflowError):
            message = f"gracePeriodSeconds: {asked!r} is not a number"
            raise errors.ApiError(400, "BadRequest", message) from None
    return lambda pod: _pod_grace(pod, asked)


def _pod_grace(pod: Object, asked: int | None) -> int:
    """Return the grace period of a pod's deletion: 0 if no kubelet has anything to stop."""
    spec = pod.get("spec") or {}
    phase = (pod.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Failed", "Succeeded"):
        return 0
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", defaults.GRACE_PERIOD)
    return max(int(asked), 0)
