"""Keeps a zone as the cluster's objects want it: a change costs what its Service costs.

Its methods are called by informers, each from a thread of its own.
"""

import threading
from collections.abc import Sequence

from kproxy.api import core, discovery, pods
from kproxy.client.informer import Change

from . import records
from .zone import Zone

Key = tuple[str, str]
OWN_SERVICE: Key = ("kube-system", "kube-dns")
"""The Service whose addresses are those of the zone's name server."""
_OVER = ("Succeeded", "Failed")


class Directory:
    """From what informers tell to a zone."""

    def __init__(self, zone: Zone, domain: str) -> None:
        self._zone = zone
        self._domain = domain
        self._lock = threading.Lock()
        self._services: dict[Key, core.Service] = {}
        self._slices: dict[Key, dict[str, discovery.EndpointSlice]] = {}
        zone.replace("", records.about_zone(domain))

    def on_services(self, changes: Sequence[Change[core.Service]]) -> None:
        """Take changes of Services."""
        with self._lock:
            for old, new in changes:
                key = _key(old, new)
                if new is None:
                    self._services.pop(key, None)
                else:
                    self._services[key] = new
                self._refresh(key)

    def on_slices(self, changes: Sequence[Change[discovery.EndpointSlice]]) -> None:
        """Take changes of EndpointSlices; a list of them at once."""
        with self._lock:
            concerned: dict[Key, None] = {}
            for old, new in changes:
                name = _key(old, new)[1]
                if (before := _service(old)) is not None:
                    self._slices.get(before, {}).pop(name, None)
                    concerned[before] = None
                if (after := _service(new)) is not None and new is not None:
                    self._slices.setdefault(after, {})[name] = new
                    concerned[after] = None
            for key in concerned:
                if not self._slices.get(key):
                    self._slices.pop(key, None)
                self._refresh(key)

    def on_pods(self, changes: Sequence[Change[pods.Pod]]) -> None:
        """Take changes of Pods, where their names are to be true."""
        with self._lock:
            for old, new in changes:
                namespace, name = _key(old, new)
                found: list[records.Record] = []
                for address in _addresses(new):
                    found += records.of_pod(address, namespace, self._domain)
                self._zone.replace(("pod", namespace, name), found)

    def _refresh(self, key: Key) -> None:
        service = self._services.get(key)
        found: list[records.Record] = []
        if service is not None:
            slices = self._slices.get(key, {})
            ordered = [slices[name] for name in sorted(slices)]
            found += records.of_service(service, ordered, self._domain)
            if key == OWN_SERVICE:
                found += _name_server(found, self._domain)
        self._zone.replace(key, found)


def _name_server(found: Sequence[records.Record], domain: str) -> list[records.Record]:
    own = f"{OWN_SERVICE[1]}.{OWN_SERVICE[0]}.svc.{domain}"
    kinds = (records.Type.A, records.Type.AAAA)
    return [
        one._replace(name=f"ns.dns.{domain}")
        for one in found
        if one.name == own and one.type in kinds
    ]


def _service(item: discovery.EndpointSlice | None) -> Key | None:
    if item is None:
        return None
    name = (item.metadata.labels or {}).get(discovery.SERVICE_NAME_LABEL)
    return (item.metadata.namespace, name) if name else None


def _addresses(pod: pods.Pod | None) -> list[str]:
    """Return the addresses that a pod has of its own and uses."""
    if pod is None or pod.status is None or pod.spec.host_network or pod.status.phase in _OVER:
        return []
    listed = [one.ip for one in pod.status.pod_ips or ()]
    return listed or [pod.status.pod_ip]


def _key(
    old: core.Service | discovery.EndpointSlice | pods.Pod | None,
    new: core.Service | discovery.EndpointSlice | pods.Pod | None,
) -> Key:
    known = new or old
    assert known is not None  # a change has at least one side
    return known.metadata.namespace, known.metadata.name
