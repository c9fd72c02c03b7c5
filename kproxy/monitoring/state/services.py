"""``kube_service_*``, ``kube_endpointslice_*``, ``kube_endpoint_*``. Pure.

``kube_endpoint_*`` is made of EndpointSlices, too: the API of Endpoints is deprecated, and nobody
need keep objects of it. As there, an endpoint is what belongs to the Service of the same name.
"""

from collections.abc import Iterator

from kproxy.api.core import Service
from kproxy.api.discovery import (
    SERVICE_NAME_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
    ObjectReference,
)

from .telling import Told, time

SERVICE_WORDS = {
    "kube_service_info": "A Service, with its address.",
    "kube_service_created": "When a Service was created, in seconds since 1970.",
    "kube_service_spec_type": "The type of a Service.",
}

SLICE_WORDS = {
    "kube_endpointslice_info": "An EndpointSlice.",
    "kube_endpointslice_created": "When an EndpointSlice was created, in seconds since 1970.",
    "kube_endpointslice_labels": "The Service that an EndpointSlice belongs to.",
    "kube_endpointslice_endpoints": "An endpoint of a slice, with its conditions.",
    "kube_endpointslice_ports": "A port of all endpoints of a slice.",
    "kube_endpoint_info": "What stands behind a Service, were it nothing at the moment.",
    "kube_endpoint_address": "An address behind a Service, and whether it is ready.",
}


def tell_service(one: Service) -> Iterator[Told]:
    """Yield what is told of a Service."""
    meta, spec = one.metadata, one.spec
    labels = {"namespace": meta.namespace, "service": meta.name, "uid": meta.uid}
    info = {
        "cluster_ip": spec.cluster_ip,
        "external_name": spec.external_name,
        "load_balancer_ip": spec.load_balancer_ip,
    }
    yield Told("kube_service_info", {**labels, **info}, 1)
    yield from time("kube_service_created", labels, meta.creation_timestamp)
    yield Told("kube_service_spec_type", {**labels, "type": spec.type}, 1)


def tell_slice(one: EndpointSlice) -> Iterator[Told]:
    """Yield what is told of an EndpointSlice, and of the endpoints of its Service."""
    meta = one.metadata
    labels = {"namespace": meta.namespace, "endpointslice": meta.name}
    yield Told("kube_endpointslice_info", {**labels, "addresstype": one.address_type}, 1)
    yield from time("kube_endpointslice_created", labels, meta.creation_timestamp)
    service = (meta.labels or {}).get(SERVICE_NAME_LABEL, "")
    named = {"label_kubernetes_io_service_name": service}
    yield Told("kube_endpointslice_labels", {**labels, **named}, 1)
    for port in one.ports or ():
        about = {
            "port_name": port.name or "",
            "port_protocol": port.protocol or "TCP",
            "port_number": "" if port.port is None else str(port.port),
        }
        yield Told("kube_endpointslice_ports", {**labels, **about}, 1)
    behind = {"namespace": meta.namespace, "endpoint": service}
    if service:
        yield Told("kube_endpoint_info", behind, 1)
    for endpoint in one.endpoints or ():
        for told in _endpoint(endpoint):
            yield Told("kube_endpointslice_endpoints", {**labels, **told}, 1)
            if service:
                address = {"ip": told["address"], "ready": told["ready"]}
                yield Told("kube_endpoint_address", {**behind, **address}, 1)


def _endpoint(one: Endpoint) -> Iterator[dict[str, str]]:
    conditions = one.conditions or EndpointConditions()
    pod = one.target_ref or ObjectReference()
    for address in one.addresses:
        yield {
            "address": address,
            "ready": _text(conditions.ready, if_unknown=True),
            "serving": _text(conditions.serving, if_unknown=True),
            "terminating": _text(conditions.terminating, if_unknown=False),
            "hostname": one.hostname or "",
            "targetref_kind": pod.kind,
            "targetref_name": pod.name,
            "targetref_namespace": pod.namespace,
            "nodename": one.node_name or "",
            "endpoint_zone": one.zone or "",
        }


def _text(value: bool | None, *, if_unknown: bool) -> str:
    return str(if_unknown if value is None else value).lower()
