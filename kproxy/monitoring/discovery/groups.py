"""Nodes, pods and endpoints as groups of targets with Prometheus' ``__meta_kubernetes_*``. Pure.

The labels are those of ``kubernetes_sd_configs`` of the roles node, pod and endpointslice, so that
``relabel_configs`` written for them fit. What is missing: annotations, owners, and of a Service's
pods the ports that the Service does not have.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from kproxy.api.addresses import with_port
from kproxy.api.core import Service
from kproxy.api.discovery import SERVICE_NAME_LABEL, Endpoint, ObjectReference
from kproxy.api.pods import Pod, PodStatus

from .objects import DaemonEndpoint, EndpointSlice, Node, NodeDaemonEndpoints, NodeStatus

Labels = dict[str, str]
Group = dict[str, Any]
"""``targets``, addresses; and ``labels``, which they all have."""

KUBELET_PORT = 10250
_META = "__meta_kubernetes_"
_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")
_NO_STATUS = PodStatus(phase="")


class Role(StrEnum):
    """What is looked for, as in ``kubernetes_sd_configs``."""

    NODE = "node"
    POD = "pod"
    ENDPOINT_SLICE = "endpointslice"


def of_nodes(nodes: Iterable[Node]) -> list[Group]:
    """Return a target for each node that has an address: its kubelet."""
    return [group for node in nodes for group in _node(node)]


def of_pods(pods: Iterable[Pod]) -> list[Group]:
    """Return a target for each port of each container that has an address."""
    return [group for pod in pods for group in _pod_groups(pod)]


def of_slices(
    slices: Iterable[EndpointSlice], services: Iterable[Service], pods: Iterable[Pod]
) -> list[Group]:
    """Return a target for each port of each endpoint, with the labels of its pod if it is one."""
    by_name = {(one.metadata.namespace, one.metadata.name): one for one in services}
    backing = {(one.metadata.namespace, one.metadata.name): one for one in pods}
    return [group for one in slices for group in _slice(one, by_name, backing)]


def _node(node: Node) -> Iterator[Group]:
    meta, status = node.metadata, node.status or NodeStatus()
    addresses = status.addresses or []
    ordered = [
        one.address
        for kind in ("InternalIP", "ExternalIP", "Hostname")
        for one in addresses
        if one.type == kind
    ]
    if not ordered:
        return
    labels = {
        "instance": meta.name,
        f"{_META}node_name": meta.name,
        **_named("node_label", meta.labels),
    }
    for one in reversed(addresses):  # of several of a kind the first counts
        labels[f"{_META}node_address_{_plain(one.type)}"] = one.address
    endpoints = status.daemon_endpoints or NodeDaemonEndpoints()
    port = (endpoints.kubelet_endpoint or DaemonEndpoint()).port or KUBELET_PORT
    yield _group(ordered[0], port, labels)


def _pod_groups(pod: Pod) -> Iterator[Group]:
    address = (pod.status or _NO_STATUS).pod_ip
    if not address:
        return
    of_pod = _pod(pod)
    for container in pod.spec.containers:
        for port in container.ports or ():
            labels = {
                f"{_META}pod_container_name": container.name,
                f"{_META}pod_container_image": container.image,
                f"{_META}pod_container_port_name": port.name,
                f"{_META}pod_container_port_number": str(port.container_port),
                f"{_META}pod_container_port_protocol": port.protocol,
                f"{_META}pod_container_init": "false",
            }
            yield _group(address, port.container_port, of_pod | labels)


def _pod(pod: Pod) -> Labels:
    meta, status = pod.metadata, pod.status or _NO_STATUS
    ready = next((one.status for one in status.conditions or () if one.type == "Ready"), "unknown")
    return {
        f"{_META}namespace": meta.namespace,
        f"{_META}pod_name": meta.name,
        f"{_META}pod_uid": meta.uid,
        f"{_META}pod_ip": status.pod_ip,
        f"{_META}pod_host_ip": status.host_ip,
        f"{_META}pod_node_name": pod.spec.node_name,
        f"{_META}pod_phase": status.phase,
        f"{_META}pod_ready": ready.lower(),
        **_named("pod_label", meta.labels),
    }


def _slice(
    one: EndpointSlice,
    services: Mapping[tuple[str, str], Service],
    pods: Mapping[tuple[str, str], Pod],
) -> Iterator[Group]:
    meta = one.metadata
    service = (meta.labels or {}).get(SERVICE_NAME_LABEL, "")
    common = {
        f"{_META}namespace": meta.namespace,
        f"{_META}endpointslice_name": meta.name,
        f"{_META}endpointslice_address_type": one.address_type.value,
        **_named("endpointslice_label", meta.labels),
    }
    if found := services.get((meta.namespace, service)):
        common[f"{_META}service_name"] = service
        common |= _named("service_label", found.metadata.labels)
    for endpoint in one.endpoints or ():
        of_endpoint = _endpoint(endpoint, pods)
        for port in one.ports or ():
            if port.port is None:
                continue
            labels = {
                f"{_META}endpointslice_port_name": port.name or "",
                f"{_META}endpointslice_port": str(port.port),
                f"{_META}endpointslice_port_protocol": port.protocol or "TCP",
            }
            for address in endpoint.addresses:
                yield _group(address, port.port, common | of_endpoint | labels)


def _endpoint(endpoint: Endpoint, pods: Mapping[tuple[str, str], Pod]) -> Labels:
    labels = {}
    if endpoint.conditions is not None and endpoint.conditions.ready is not None:
        ready = str(endpoint.conditions.ready).lower()
        labels[f"{_META}endpointslice_endpoint_conditions_ready"] = ready
    if endpoint.target_ref is not None:
        labels |= _target(endpoint.target_ref, pods)
    return labels


def _target(ref: ObjectReference, pods: Mapping[tuple[str, str], Pod]) -> Labels:
    pod = pods.get((ref.namespace, ref.name)) if ref.kind == "Pod" else None
    return {
        **(_pod(pod) if pod is not None else {}),
        f"{_META}endpointslice_address_target_kind": ref.kind,
        f"{_META}endpointslice_address_target_name": ref.name,
    }


def _group(address: str, port: int, labels: Labels) -> Group:
    return {"targets": [with_port(address, port)], "labels": labels}


def _named(prefix: str, labels: Mapping[str, str] | None) -> Labels:
    found = {}
    for name, value in (labels or {}).items():
        found[f"{_META}{prefix}_{_plain(name)}"] = value
        found[f"{_META}{prefix}present_{_plain(name)}"] = "true"
    return found


def _plain(name: str) -> str:
    return _NO_NAME.sub("_", name)


def ordered(groups: Sequence[Group]) -> list[Group]:
    """Return groups in one order, whatever the order of the objects was."""
    return sorted(groups, key=lambda one: (one["targets"], sorted(one["labels"].items())))
