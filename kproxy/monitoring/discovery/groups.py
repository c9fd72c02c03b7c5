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
from kproxy.api.discovery import SERVICE_NAME_LABEL

Object = dict[str, Any]
Labels = dict[str, str]
Group = dict[str, Any]
"""``targets``, addresses; and ``labels``, which they all have."""

KUBELET_PORT = 10250
_META = "__meta_kubernetes_"
_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")


class Role(StrEnum):
    """What is looked for, as in ``kubernetes_sd_configs``."""

    NODE = "node"
    POD = "pod"
    ENDPOINT_SLICE = "endpointslice"


def of_nodes(nodes: Iterable[Object]) -> list[Group]:
    """Return a target for each node that has an address: its kubelet."""
    return [group for node in nodes for group in _node(node)]


def of_pods(pods: Iterable[Object]) -> list[Group]:
    """Return a target for each port of each container that has an address."""
    return [group for pod in pods for group in _pod_groups(pod)]


def of_slices(
    slices: Iterable[Object], services: Iterable[Object], pods: Iterable[Object]
) -> list[Group]:
    """Return a target for each port of each endpoint, with the labels of its pod if it is one."""
    by_name = {_key(one): one for one in services}
    backing = {_key(one): one for one in pods}
    return [group for one in slices for group in _slice(one, by_name, backing)]


def _node(node: Object) -> Iterator[Group]:
    meta, status = node["metadata"], node.get("status") or {}
    addresses = status.get("addresses") or []
    ordered = [
        one["address"]
        for kind in ("InternalIP", "ExternalIP", "Hostname")
        for one in addresses
        if one["type"] == kind
    ]
    if not ordered:
        return
    labels = {
        "instance": meta["name"],
        f"{_META}node_name": meta["name"],
        **_named("node_label", meta.get("labels")),
    }
    for one in reversed(addresses):  # of several of a kind the first counts
        labels[f"{_META}node_address_{_plain(one['type'])}"] = one["address"]
    endpoints = status.get("daemonEndpoints") or {}
    port = (endpoints.get("kubeletEndpoint") or {}).get("Port") or KUBELET_PORT
    yield _group(ordered[0], port, labels)


def _pod_groups(pod: Object) -> Iterator[Group]:
    address = (pod.get("status") or {}).get("podIP", "")
    if not address:
        return
    of_pod = _pod(pod)
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            labels = {
                f"{_META}pod_container_name": container["name"],
                f"{_META}pod_container_image": container.get("image", ""),
                f"{_META}pod_container_port_name": port.get("name", ""),
                f"{_META}pod_container_port_number": str(port["containerPort"]),
                f"{_META}pod_container_port_protocol": port.get("protocol", "TCP"),
                f"{_META}pod_container_init": "false",
            }
            yield _group(address, port["containerPort"], of_pod | labels)


def _pod(pod: Object) -> Labels:
    meta, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    ready: Object = next(
        (one for one in status.get("conditions") or [] if one["type"] == "Ready"), {}
    )
    return {
        f"{_META}namespace": meta["namespace"],
        f"{_META}pod_name": meta["name"],
        f"{_META}pod_uid": meta.get("uid", ""),
        f"{_META}pod_ip": status.get("podIP", ""),
        f"{_META}pod_host_ip": status.get("hostIP", ""),
        f"{_META}pod_node_name": spec.get("nodeName", ""),
        f"{_META}pod_phase": status.get("phase", ""),
        f"{_META}pod_ready": str(ready.get("status", "unknown")).lower(),
        **_named("pod_label", meta.get("labels")),
    }


def _slice(
    one: Object,
    services: Mapping[tuple[str, str], Object],
    pods: Mapping[tuple[str, str], Object],
) -> Iterator[Group]:
    meta = one["metadata"]
    service = (meta.get("labels") or {}).get(SERVICE_NAME_LABEL, "")
    common = {
        f"{_META}namespace": meta["namespace"],
        f"{_META}endpointslice_name": meta["name"],
        f"{_META}endpointslice_address_type": one["addressType"],
        **_named("endpointslice_label", meta.get("labels")),
    }
    if found := services.get((meta["namespace"], service)):
        common[f"{_META}service_name"] = service
        common |= _named("service_label", found["metadata"].get("labels"))
    for endpoint in one.get("endpoints") or []:
        of_endpoint = _endpoint(endpoint, pods)
        for port in one.get("ports") or []:
            if port.get("port") is None:
                continue
            labels = {
                f"{_META}endpointslice_port_name": port.get("name") or "",
                f"{_META}endpointslice_port": str(port["port"]),
                f"{_META}endpointslice_port_protocol": port.get("protocol") or "TCP",
            }
            for address in endpoint["addresses"]:
                yield _group(address, port["port"], common | of_endpoint | labels)


def _endpoint(endpoint: Object, pods: Mapping[tuple[str, str], Object]) -> Labels:
    labels = {}
    ready = (endpoint.get("conditions") or {}).get("ready")
    if ready is not None:
        labels[f"{_META}endpointslice_endpoint_conditions_ready"] = str(ready).lower()
    target = endpoint.get("targetRef") or {}
    if target:
        labels[f"{_META}endpointslice_address_target_kind"] = target.get("kind", "")
        labels[f"{_META}endpointslice_address_target_name"] = target.get("name", "")
    pod = pods.get((target.get("namespace", ""), target.get("name", "")))
    if target.get("kind") == "Pod" and pod is not None:
        labels = _pod(pod) | labels
    return labels


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


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def ordered(groups: Sequence[Group]) -> list[Group]:
    """Return groups in one order, whatever the order of the objects was."""
    return sorted(groups, key=lambda one: (one["targets"], sorted(one["labels"].items())))
