"""EndpointSlices: says for every Service with a selector which pods are behind it.

Works on its own picture of Services, pods and slices, fed by informers: with thousands of Services
it must not ask the API server at every change. Own writes go into the picture at once. Where it
lags behind the writes of others, the server answers with a conflict and the key is tried again.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from kproxy import costs, logs
from kproxy.api import codec, core, discovery, kinds, meta
from kproxy.api.pods import Pod
from kproxy.controlplane.cluster import Cluster

from . import owned, slices

Object = dict[str, Any]

MANAGER = "endpointslice-controller.k8s.io"
TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"
HEADLESS_LABEL = "service.kubernetes.io/headless"


class EndpointSliceController:
    """Makes the slices of Services what they should be, one Service at a time.

    ``enqueue`` is given the keys of Services to look at. The ``…_changed`` methods are handlers
    of informers (old and new object, one of them may be None) and may run in any thread.
    """

    kind = kinds.SERVICE

    def __init__(
        self,
        cluster: Cluster,
        log: logs.Log,
        *,
        enqueue: Callable[[str], None],
        wall: Callable[[], float] = time.time,
        cost: costs.Costs = costs.FREE,
    ) -> None:
        self._cost = cost
        self._cluster = cluster
        self._log = log
        self._enqueue = enqueue
        self._wall = wall
        self._lock = threading.Lock()
        self._services: dict[str, dict[str, core.Service]] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._slices: dict[str, dict[str, discovery.EndpointSlice]] = {}
        self._triggered: dict[str, float] = {}

    def service_changed(self, old: core.Service | None, new: core.Service | None) -> None:
        """Look at a Service that has changed."""
        with self._lock:
            _note(self._services, old, new)
        for service in (new, old):
            if service is not None:
                self._trigger(owned.key(service.metadata.namespace, service.metadata.name))
                return

    def pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Look at the Services that select a pod, or did before it changed."""
        one = new or old
        if one is None:
            return
        with self._lock:
            _note(self._pods, old, new)
            services = list(self._services.get(one.metadata.namespace, {}).values())
        versions = [pod for pod in (old, new) if pod is not None]
        for service in services:
            if any(meta.matches(service.spec.selector, pod.metadata.labels) for pod in versions):
                self._trigger(owned.key(service.metadata.namespace, service.metadata.name))

    def slice_changed(
        self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None
    ) -> None:
        """Look at the Service of a slice: somebody else may have written or deleted it."""
        one = new or old
        if one is None:
            return
        with self._lock:
            _note(self._slices, old, new)
        name = (one.metadata.labels or {}).get(discovery.SERVICE_NAME_LABEL)
        if name and _ours(one):
            self._enqueue(owned.key(one.metadata.namespace, name))

    def reconcile(self, key: str) -> None:
        """Write what differs of one Service's slices. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        with self._lock:
            service = self._services.get(namespace, {}).get(name)
            pods = list(self._pods.get(namespace, {}).values())
            existing = [
                one
                for one in self._slices.get(namespace, {}).values()
                if _ours(one) and (one.metadata.labels or {})[discovery.SERVICE_NAME_LABEL] == name
            ]
            triggered = self._triggered.pop(key, None)
        if service is None or not slices.selects_pods(service):
            for one in existing:
                self._delete(one)
            return
        try:
            self._apply(service, pods, existing, triggered)
        except Exception:
            with self._lock:
                if triggered is not None:
                    earlier = self._triggered.get(key, triggered)
                    self._triggered[key] = min(triggered, earlier)
            raise

    def _apply(
        self,
        service: core.Service,
        pods: Sequence[Pod],
        existing: Sequence[discovery.EndpointSlice],
        triggered: float | None,
    ) -> None:
        families = service.spec.ip_families or ["IPv4"]
        plan = slices.plan(slices.wanted(service, pods), existing, families)
        moment = _precise(self._wall() if triggered is None else triggered)
        for group, endpoints in plan.create:
            made = self._slice(service, group, endpoints, moment)
            self._write(self._cluster.create, made)
            self._tell("slice created", made)
        for one, endpoints in plan.keep:
            group = slices.Group(one.address_type, tuple(one.ports or ()))
            made = self._slice(service, group, endpoints, moment, one.metadata)
            if _content(made) != _content(one):
                self._cost.pay(costs.SLICE)
                self._write(self._cluster.update, made)
                self._tell("slice updated", made)
        for one in plan.delete:
            self._delete(one)

    def _write(
        self, write: Callable[[kinds.Kind, Object], Object], made: discovery.EndpointSlice
    ) -> None:
        data = codec.to_dict(made)
        # to_dict leaves out empty text, but a label may well be empty.
        data["metadata"]["labels"] = made.metadata.labels
        written = codec.from_dict(write(kinds.ENDPOINT_SLICE, data), discovery.EndpointSlice)
        with self._lock:
            _note(self._slices, None, written)

    def _delete(self, one: discovery.EndpointSlice) -> None:
        of = one.metadata
        self._cluster.delete(kinds.ENDPOINT_SLICE, of.namespace, of.name, uid=of.uid)
        with self._lock:
            _note(self._slices, one, None)
        self._tell("slice deleted", one)

    def _slice(
        self,
        service: core.Service,
        group: slices.Group,
        endpoints: slices.Endpoints,
        moment: str,
        old: meta.ObjectMeta | None = None,
    ) -> discovery.EndpointSlice:
        """Return a slice as it should be; with ``old`` a new version of that one."""
        of = service.metadata
        labels = {
            **(of.labels or {}),
            discovery.SERVICE_NAME_LABEL: of.name,
            discovery.MANAGED_BY_LABEL: MANAGER,
        }
        if service.spec.cluster_ip == "None":
            labels[HEADLESS_LABEL] = ""
        reference = meta.OwnerReference(
            api_version="v1", kind="Service", name=of.name, uid=of.uid, controller=True
        )
        return discovery.EndpointSlice(
            metadata=meta.ObjectMeta(
                name=old.name if old else self._free_name(of.namespace, of.name),
                namespace=of.namespace,
                resource_version=old.resource_version if old else "",
                labels=labels,
                annotations={TRIGGER_ANNOTATION: moment},
                owner_references=[reference],
            ),
            address_type=group.family,
            endpoints=list(endpoints),
            ports=list(group.ports),
        )

    def _free_name(self, namespace: str, service: str) -> str:
        """Return a name for a new slice; a reader of the API sees them in order."""
        with self._lock:
            taken = self._slices.get(namespace, {})
            number = 1
            while f"{service}-{number}" in taken:
                number += 1
        return f"{service}-{number}"

    def _trigger(self, key: str) -> None:
        with self._lock:
            self._triggered.setdefault(key, self._wall())
        self._enqueue(key)

    def _tell(self, msg: str, one: discovery.EndpointSlice) -> None:
        ready = [e.conditions for e in one.endpoints or () if e.conditions and e.conditions.ready]
        self._log.info(
            msg,
            slice=f"{one.metadata.namespace}/{one.metadata.name}",
            endpoints=len(one.endpoints or ()),
            ready=len(ready),
        )


def _note(picture: dict[str, dict[str, Any]], old: Any, new: Any) -> None:
    """Put a new version of an object into a picture, or take it out."""
    if new is not None:
        picture.setdefault(new.metadata.namespace, {})[new.metadata.name] = new
    else:
        picture.get(old.metadata.namespace, {}).pop(old.metadata.name, None)


def _ours(one: discovery.EndpointSlice) -> bool:
    labels = one.metadata.labels or {}
    return labels.get(discovery.MANAGED_BY_LABEL) == MANAGER and bool(
        labels.get(discovery.SERVICE_NAME_LABEL)
    )


def _content(one: discovery.EndpointSlice) -> tuple[Any, ...]:
    """Return what decides whether a slice has to be written."""
    ports, endpoints = one.ports or [], one.endpoints or []
    return one.metadata.labels, one.metadata.owner_references, one.address_type, ports, endpoints


def _precise(seconds: float) -> str:
    """Return a time as RFC 3339 with microseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1e6):06d}Z"
