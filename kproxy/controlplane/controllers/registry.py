"""The controllers of workloads and Services: names, what wakes each, and how it is made.

A new controller is one more :class:`Registration` in :data:`ALL`, or in :mod:`clusterwide`. Its
``watches`` say which objects' changes it wants to hear of, and which keys such a change makes it
look at::

    Registration("thing", ThingController.of, {THING: own_key, catalog.POD: keys_of_pod})

A mapper is given the controller's :class:`Context` and the object before and after (one may be
None), and returns keys. It runs in an informer's thread, so it must be quick and write nothing.
A controller that wants to see the changes itself has methods for it, which :func:`told` makes a
mapper of.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kproxy import costs, logs
from kproxy.api import catalog, codec, kinds
from kproxy.controlplane.cluster import Cluster
from kproxy.controlplane.eventrecorder import Events

from . import daemonset, deployment, endpointslice, owned, replicaset, statefulset
from .times import DEFAULT, Times

Object = dict[str, Any]


class Known(Protocol):
    """Reads of cached kinds that ask nobody."""

    def list_objects(self, kind: kinds.Kind, namespace: str = "") -> Sequence[Object]:
        """Return the objects of a cached kind (in one namespace)."""
        ...

    def get(self, kind: kinds.Kind, namespace: str, name: str) -> Object | None:
        """Return one object of a cached kind; None if there is none."""
        ...


class Controller(Protocol):
    """What brings one object, given by its key, nearer to what it should be."""

    def reconcile(self, key: str) -> float | None:
        """Do what is to be done now; return in how many seconds to look again (None: no need).

        Raises KproxyError: try again, after a back-off.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What controllers are made with."""

    cluster: Cluster
    log: logs.Log
    events: Events
    known: Known
    """What the cache knows: for mappers, which must not ask the server."""
    enqueue: Callable[[str], None]
    """Queues a key of this controller; for what it learns by itself."""
    cost: costs.Costs = costs.FREE
    times: Times = DEFAULT


Mapper = Callable[[Context, Any, Object | None, Object | None], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Registration:
    """A controller, and what wakes it. ``name`` is that of its queue in the metrics."""

    name: str
    make: Callable[[Context], Controller]
    watches: Mapping[kinds.Kind, Mapper]
    reads: tuple[kinds.Kind, ...] = ()
    """Kinds that it reads from the cache without being woken by them."""


def own_key(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return the key of the object itself."""
    return [owned.key_of(new or old or {})]


def owners(kind: kinds.Kind) -> Mapper:
    """Return a mapper to the controllers, of a kind, that an object has, had, or may get.

    An orphan is for all that select it.
    """

    def mapper(
        context: Context, controller: Controller, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        keys = set()
        for one in (old, new):
            if one is None:
                continue
            namespace, owner = one["metadata"].get("namespace", ""), owned.owner(one)
            if owner.get("kind") == kind.name:
                keys.add(owned.key(namespace, owner.get("name", "")))
            elif not owner and one is new and not owned.terminating(one):
                labels = one["metadata"].get("labels")
                for parent in context.known.list_objects(kind, namespace):
                    if owned.selects(parent["spec"].get("selector"), labels):
                        keys.add(owned.key_of(parent))
        return keys

    return mapper


def told(kind: kinds.Kind, method: str) -> Mapper:
    """Return a mapper that hands typed objects to a method of the controller, and queues none."""

    def mapper(
        context: Context, controller: Any, old: Object | None, new: Object | None
    ) -> Iterable[str]:
        typed = (None if one is None else codec.from_dict(one, kind.type) for one in (old, new))
        getattr(controller, method)(*typed)
        return ()

    return mapper


def _every_daemon_set(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return all DaemonSets, unless what is new of a node is only a sign of life."""
    if old is not None and new is not None and _use(old) == _use(new):
        return ()
    return [owned.key_of(one) for one in context.known.list_objects(catalog.DAEMON_SET)]


def _use(node: Object) -> tuple[Any, ...]:
    """Return what of a node matters for whether a DaemonSet's pod belongs there."""
    return (node.get("spec") or {}).get("taints"), node["metadata"].get("labels")


def _deployments_of_pod(
    context: Context, controller: Controller, old: Object | None, new: Object | None
) -> Iterable[str]:
    """Return the Deployment of a pod that is gone: one that recreates waits for the last."""
    if new is not None or old is None:
        return ()
    owner, namespace = owned.owner(old), old["metadata"].get("namespace", "")
    if owner.get("kind") != catalog.REPLICA_SET.name:
        return ()
    parent = context.known.get(catalog.REPLICA_SET, namespace, owner.get("name", ""))
    name = owned.owner(parent).get("name") if parent else None
    return [owned.key(namespace, name)] if name else ()


def _plain(made: Callable[..., Controller]) -> Callable[[Context], Controller]:
    return lambda context: made(context.cluster, context.log, context.events)


def _endpoint_slices(context: Context) -> Controller:
    return endpointslice.EndpointSliceController(
        context.cluster, context.log, enqueue=context.enqueue, cost=context.cost
    )


ALL: tuple[Registration, ...] = (
    Registration(
        "deployment",
        _plain(deployment.DeploymentController),
        {
            catalog.DEPLOYMENT: own_key,
            catalog.REPLICA_SET: owners(catalog.DEPLOYMENT),
            catalog.POD: _deployments_of_pod,
        },
    ),
    Registration(
        "replicaset",
        _plain(replicaset.ReplicaSetController),
        {catalog.REPLICA_SET: own_key, catalog.POD: owners(catalog.REPLICA_SET)},
    ),
    Registration(
        "daemonset",
        _plain(daemonset.DaemonSetController),
        {
            catalog.DAEMON_SET: own_key,
            catalog.POD: owners(catalog.DAEMON_SET),
            kinds.NODE: _every_daemon_set,
            catalog.CONTROLLER_REVISION: owners(catalog.DAEMON_SET),
        },
    ),
    Registration(
        "statefulset",
        _plain(statefulset.StatefulSetController),
        {
            catalog.STATEFUL_SET: own_key,
            catalog.POD: owners(catalog.STATEFUL_SET),
            catalog.CONTROLLER_REVISION: owners(catalog.STATEFUL_SET),
        },
    ),
    Registration(
        "endpointslice",
        _endpoint_slices,
        {
            kinds.SERVICE: told(kinds.SERVICE, "service_changed"),
            catalog.POD: told(catalog.POD, "pod_changed"),
            kinds.ENDPOINT_SLICE: told(kinds.ENDPOINT_SLICE, "slice_changed"),
            kinds.NODE: told(kinds.NODE, "node_changed"),
        },
    ),
)
