"""EndpointSlices: says for every Service with a selector which pods are behind it.

Works on its own picture of Services, pods and slices, fed by informers: with thousands of Services
it must not ask the API server at every change. Own writes go into the picture at once. Where it
lags behind the writes of others, the server answers with a conflict and the key is tried again.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from kproxy import costs, logs
from kproxy.api import core, discovery, kinds, meta
from kproxy.api.pods import Pod
from kproxy.controlplane.cluster import Cluster
from kproxy.rfc3339 import microtime

from . import owned, slices, slicewriting

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
        self._writer = slicewriting.SliceWriter(
            cluster, log, MANAGER, noted=self._noted, cost=cost
        )
        self._enqueue = enqueue
        self._wall = wall
        self._lock = threading.Lock()
        self._zones: dict[str, str] = {}
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

    def node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        """Look at the Services with pods on a node that has come, gone or changed its zone."""
        one = new or old
        if one is None:
            return
        name = one.metadata.name
        with self._lock:
            before = self._zones.pop(name, None)
            if new is not None:
                self._zones[name] = (new.metadata.labels or {}).get(core.ZONE_LABEL, "")
            if self._zones.get(name) == before:
                return
            keys = [
                owned.key(namespace, service.metadata.name)
                for namespace, pods in self._pods.items()
                for pod in pods.values()
                if pod.spec.node_name == name
                for service in self._services.get(namespace, {}).values()
                if meta.matches(service.spec.selector, pod.metadata.labels)
            ]
        for key in dict.fromkeys(keys):
            self._enqueue(key)

    def slice_changed(
        self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None
    ) -> None:
        """Look at the Service of a slice: somebody else may have written or deleted it."""
        one = new or old
        if one is None:
            return
        with self._lock:
            _note(self._slices, old, new)
        if self._writer.owns(one):
            name = (one.metadata.labels or {})[discovery.SERVICE_NAME_LABEL]
            self._enqueue(owned.key(one.metadata.namespace, name))

    def reconcile(self, key: str) -> None:
        """Write what differs of one Service's slices. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        with self._lock:
            service = self._services.get(namespace, {}).get(name)
            triggered = self._triggered.pop(key, None)
        try:
            if service is None or not slices.selects_pods(service):
                for one in self._existing(namespace, name):
                    self._writer.delete(one)
            else:
                self._apply(service, triggered)
        except Exception:
            with self._lock:
                if triggered is not None:
                    earlier = self._triggered.get(key, triggered)
                    self._triggered[key] = min(triggered, earlier)
            raise

    def _apply(self, service: core.Service, triggered: float | None) -> None:
        of = service.metadata
        with self._lock:
            pods = list(self._pods.get(of.namespace, {}).values())
            zones = dict(self._zones)
            taken = set(self._slices.get(of.namespace, {}))
        families = service.spec.ip_families or ["IPv4"]
        endpoints = slices.wanted(service, pods, zones)
        plan = slices.plan(endpoints, self._existing(of.namespace, of.name), families)
        moment = microtime(self._wall() if triggered is None else triggered)
        self._writer.apply(_head(service, moment), plan, taken)

    def _existing(self, namespace: str, service: str) -> list[discovery.EndpointSlice]:
        with self._lock:
            found = self._slices.get(namespace, {}).values()
            return [one for one in found if self._writer.owns(one, service)]

    def _noted(
        self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None
    ) -> None:
        with self._lock:
            _note(self._slices, old, new)

    def _trigger(self, key: str) -> None:
        with self._lock:
            self._triggered.setdefault(key, self._wall())
        self._enqueue(key)


def _head(service: core.Service, moment: str) -> slicewriting.Head:
    of = service.metadata
    labels = dict(of.labels or {})
    if service.spec.cluster_ip == "None":
        labels[HEADLESS_LABEL] = ""
    return slicewriting.Head(
        namespace=of.namespace,
        service=of.name,
        labels=labels,
        owner=meta.OwnerReference(
            api_version="v1", kind="Service", name=of.name, uid=of.uid, controller=True
        ),
        annotations={TRIGGER_ANNOTATION: moment},
    )


def _note(picture: dict[str, dict[str, Any]], old: Any, new: Any) -> None:
    """Put a new version of an object into a picture, or take it out."""
    if new is not None:
        picture.setdefault(new.metadata.namespace, {})[new.metadata.name] = new
    else:
        picture.get(old.metadata.namespace, {}).pop(old.metadata.name, None)
