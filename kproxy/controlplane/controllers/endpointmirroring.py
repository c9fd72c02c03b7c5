"""Mirrors Endpoints, which people write for Services without selector, as EndpointSlices.

A node proxy reads EndpointSlices only. As in Kubernetes Endpoints are left alone that say so
(label ``endpointslice.kubernetes.io/skip-mirror: "true"``), that have no Service of their name, or
whose Service has a selector; of each subset at most 1,000 addresses are taken.
"""

import ipaddress
from collections.abc import Iterable

from kproxy import logs
from kproxy.api import catalog, codec, configuration, core, discovery, kinds, meta
from kproxy.controlplane.cluster import Cluster

from . import owned, slices, slicewriting

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
SUBSET_MOST = 1000
_NOT_COPIED = (
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
)


class EndpointMirroringController:
    """Looks at the Endpoints of one name at a time."""

    def __init__(self, cluster: Cluster, log: logs.Log) -> None:
        self._cluster = cluster
        self._writer = slicewriting.SliceWriter(cluster, log, MANAGER)

    def reconcile(self, key: str) -> float | None:
        """Write what differs of the mirrored slices. Raises KproxyError: try again."""
        namespace, name = owned.split(key)
        found = self._cluster.get(catalog.ENDPOINTS, namespace, name)
        service = self._cluster.get(kinds.SERVICE, namespace, name)
        there = [
            codec.from_dict(one, discovery.EndpointSlice)
            for one in self._cluster.list_objects(kinds.ENDPOINT_SLICE, namespace)
        ]
        existing = [one for one in there if self._writer.owns(one, name)]
        mirrored = None
        if found is not None and service is not None:
            mirrored = codec.from_dict(found, configuration.Endpoints)
            if not mirrors(mirrored, codec.from_dict(service, core.Service)):
                mirrored = None
        if mirrored is None:
            for one in existing:
                self._writer.delete(one)
            return None
        plan = slices.plan(groups(mirrored), existing, ())
        self._writer.apply(_head(mirrored), plan, {one.metadata.name for one in there})
        return None


def mirrors(endpoints: configuration.Endpoints, service: core.Service) -> bool:
    """Return whether the Endpoints of a Service are mirrored."""
    skipped = (endpoints.metadata.labels or {}).get(SKIP_LABEL) == "true"
    return not skipped and not service.spec.selector


def groups(
    endpoints: configuration.Endpoints,
) -> dict[slices.Group, list[discovery.Endpoint]]:
    """Return the endpoints by what their slices share: family and ports."""
    result: dict[slices.Group, list[discovery.Endpoint]] = {}
    for subset in endpoints.subsets or ():
        ports = tuple(
            discovery.EndpointPort(name=one.name, protocol=one.protocol, port=one.port)
            for one in subset.ports or ()
        )
        ready = [(one, True) for one in subset.addresses or ()]
        others = [(one, False) for one in subset.not_ready_addresses or ()]
        for address, is_ready in [*ready, *others][:SUBSET_MOST]:
            family = f"IPv{ipaddress.ip_address(address.ip).version}"
            group = result.setdefault(slices.Group(family, ports), [])
            if all(address.ip != one.addresses[0] for one in group):
                group.append(_endpoint(address, ready=is_ready))
    return result


def _endpoint(address: configuration.EndpointAddress, *, ready: bool) -> discovery.Endpoint:
    return discovery.Endpoint(
        addresses=[address.ip],
        conditions=discovery.EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
    )


def _head(endpoints: configuration.Endpoints) -> slicewriting.Head:
    of = endpoints.metadata
    annotations = _without(of.annotations, _NOT_COPIED)
    return slicewriting.Head(
        namespace=of.namespace,
        service=of.name,
        labels=dict(of.labels or {}),
        owner=meta.OwnerReference(
            api_version="v1", kind="Endpoints", name=of.name, uid=of.uid, controller=True
        ),
        annotations=annotations,
    )


def _without(found: dict[str, str] | None, names: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in (found or {}).items() if name not in names}
