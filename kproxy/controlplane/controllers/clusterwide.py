"""The controllers that keep a cluster in order: nodes, namespaces, and what nobody owns any more.

Further registrations, beside those of workloads and Services in :mod:`registry`.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kproxy.api import catalog, kinds

from . import (
    endpointmirroring,
    garbagecollector,
    namespace,
    nodelifecycle,
    nodetaints,
    owned,
    podgc,
    serviceaccount,
    tainteviction,
    taints,
)
from .registry import Context, Controller, Mapper, Registration, own_key

Object = dict[str, Any]


def _all_at_once(
    make: Callable[[Context], Controller], key: str
) -> Callable[[Context], Controller]:
    """Return what makes a controller that looks at everything, under one key, time and again."""

    def made(context: Context) -> Controller:
        context.enqueue(key)
        return make(context)

    return made


def _node_lifecycle(context: Context) -> Controller:
    return nodelifecycle.NodeLifecycleController(
        context.cluster, context.log, context.events, times=context.times
    )


def _pod_gc(context: Context) -> Controller:
    return podgc.PodGarbageCollector(context.cluster, context.log, times=context.times)


def _pods_of_node(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return the pods of a node whose taints NoExecute have changed."""
    before, after = _no_execute(old), _no_execute(new)
    if before == after:
        return ()
    name = (new or old or {})["metadata"]["name"]
    pods = context.known.list_objects(catalog.POD)
    return [owned.key_of(pod) for pod in pods if pod["spec"].get("nodeName") == name]


def _no_execute(node: Object | None) -> list[Object]:
    return [one for one in taints.of(node or {}) if one.get("effect") == "NoExecute"]


def _bound(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return a pod that has a node, unless only its status is new."""
    if new is None or old is None or (_stay(old) != _stay(new)):
        return [owned.key_of(new or old or {})]
    return ()


def _stay(pod: Object) -> tuple[Any, ...]:
    """Return what of a pod matters for how long it stays."""
    spec = pod["spec"]
    return owned.uid(pod), spec.get("nodeName"), spec.get("tolerations"), owned.active(pod)


def _own_namespace(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return the namespace of an object that is gone."""
    gone = old if new is None else None
    return [owned.key("", gone["metadata"].get("namespace", ""))] if gone is not None else ()


def _graph(kind: kinds.Kind) -> Mapper:
    """Return a mapper that tells the garbage collector of objects of a kind."""

    def mapper(
        context: Context, controller: Any, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        found: Iterable[str] = controller.changed(kind, old, new)
        return found

    return mapper


def _owning() -> list[kinds.Kind]:
    """Return all kinds that are stored but events, which nobody owns and nobody waits for."""
    return [kind for kind in kinds.known() if kind.plural != catalog.EVENT.plural]


ALL: tuple[Registration, ...] = (
    Registration(
        "endpointslicemirroring",
        lambda context: endpointmirroring.EndpointMirroringController(
            context.cluster, context.log
        ),
        {catalog.ENDPOINTS: own_key, kinds.SERVICE: own_key},
        reads=(kinds.ENDPOINT_SLICE,),
    ),
    Registration(
        "nodelifecycle",
        _all_at_once(_node_lifecycle, nodelifecycle.KEY),
        {},
        reads=(kinds.NODE, catalog.LEASE, catalog.POD),
    ),
    Registration(
        "nodetaints",
        lambda context: nodetaints.NodeTaintController(context.cluster, context.log),
        {kinds.NODE: own_key},
    ),
    Registration(
        "tainteviction",
        lambda context: tainteviction.TaintEvictionController(
            context.cluster, context.log, context.events
        ),
        {catalog.POD: _bound, kinds.NODE: _pods_of_node},
    ),
    Registration("podgc", _all_at_once(_pod_gc, podgc.KEY), {}, reads=(kinds.NODE, catalog.POD)),
    Registration(
        "garbagecollector",
        lambda context: garbagecollector.GarbageCollector(context.cluster, context.log),
        {kind: _graph(kind) for kind in _owning()},
    ),
    Registration(
        "namespace",
        lambda context: namespace.NamespaceController(context.cluster, context.log),
        {kinds.NAMESPACE: own_key, catalog.POD: _own_namespace},
    ),
    Registration(
        "serviceaccount",
        lambda context: serviceaccount.ServiceAccountController(context.cluster, context.log),
        {kinds.NAMESPACE: own_key, catalog.SERVICE_ACCOUNT: _own_namespace},
    ),
)
