"""Objects of the API as targets, with the labels of Prometheus' own discovery."""

from typing import Any

import pytest

from kproxy.api import codec
from kproxy.api.core import Service
from kproxy.api.pods import Pod
from kproxy.errors import InvalidObject
from kproxy.monitoring.discovery.groups import of_nodes, of_pods, of_slices, ordered
from kproxy.monitoring.discovery.objects import EndpointSlice, Node

M = "__meta_kubernetes_"


def pod(name: str = "web-1", **status: Any) -> Pod:
    ports = [{"name": "http", "containerPort": 80}, {"containerPort": 81, "protocol": "UDP"}]
    data = {
        "metadata": {"name": name, "namespace": "shop", "uid": "u", "labels": {"k8s-app": "web"}},
        "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "i", "ports": ports}]},
        "status": {"podIP": "10.244.1.2", "hostIP": "192.168.50.11", "phase": "Running"} | status,
    }
    return codec.from_dict(data, Pod)


def node(*addresses: tuple[str, str], port: int = 0) -> Node:
    status: dict[str, Any] = {"addresses": [{"type": t, "address": a} for t, a in addresses]}
    if port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    meta = {"name": "node1", "labels": {"topology.io/zone": "a"}}
    return codec.from_dict({"metadata": meta, "status": status}, Node)


def test_a_node_is_its_kubelet_at_its_internal_address() -> None:
    addresses = (("Hostname", "node1"), ("InternalIP", "192.0.2.1"), ("InternalIP", "2001:db8::1"))
    (group,) = of_nodes([node(*addresses, port=1250)])
    assert group["targets"] == ["192.0.2.1:1250"]
    assert group["labels"] == {
        "instance": "node1",
        f"{M}node_name": "node1",
        f"{M}node_label_topology_io_zone": "a",
        f"{M}node_labelpresent_topology_io_zone": "true",
        f"{M}node_address_Hostname": "node1",
        f"{M}node_address_InternalIP": "192.0.2.1",
    }


def test_a_node_without_a_word_of_its_port_has_the_usual_one_and_none_without_address() -> None:
    (group,) = of_nodes([node(("InternalIP", "2001:db8::1"))])
    assert group["targets"] == ["[2001:db8::1]:10250"]
    assert of_nodes([node()]) == []


def test_a_pod_is_a_target_for_each_port() -> None:
    ready = [{"type": "Ready", "status": "True"}]
    first, second = of_pods([pod(conditions=ready)])
    assert [first["targets"], second["targets"]] == [["10.244.1.2:80"], ["10.244.1.2:81"]]
    assert first["labels"] == {
        f"{M}namespace": "shop",
        f"{M}pod_name": "web-1",
        f"{M}pod_uid": "u",
        f"{M}pod_ip": "10.244.1.2",
        f"{M}pod_host_ip": "192.168.50.11",
        f"{M}pod_node_name": "node1",
        f"{M}pod_phase": "Running",
        f"{M}pod_ready": "true",
        f"{M}pod_label_k8s_app": "web",
        f"{M}pod_labelpresent_k8s_app": "true",
        f"{M}pod_container_name": "c",
        f"{M}pod_container_image": "i",
        f"{M}pod_container_port_name": "http",
        f"{M}pod_container_port_number": "80",
        f"{M}pod_container_port_protocol": "TCP",
        f"{M}pod_container_init": "false",
    }
    assert second["labels"][f"{M}pod_container_port_name"] == ""
    assert second["labels"][f"{M}pod_container_port_protocol"] == "UDP"


def test_a_pod_without_address_is_no_target() -> None:
    assert of_pods([pod(podIP="")]) == []


def slice_(ref: dict[str, str] | None, ready: bool | None = True) -> EndpointSlice:
    endpoint: dict[str, Any] = {"addresses": ["10.244.1.2", "10.244.1.9"], "conditions": {}}
    if ready is not None:
        endpoint["conditions"] = {"ready": ready}
    if ref:
        endpoint["targetRef"] = ref
    labels = {"kubernetes.io/service-name": "web"}
    data = {
        "metadata": {"name": "web-abc", "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "metrics", "port": 9153}, {"name": "all"}],
        "endpoints": [endpoint],
    }
    return codec.from_dict(data, EndpointSlice)


def test_an_endpoint_has_the_labels_of_its_service_and_its_pod() -> None:
    meta = {"name": "web", "namespace": "shop", "labels": {"a": "b"}}
    service = codec.from_dict({"metadata": meta}, Service)
    ref = {"kind": "Pod", "namespace": "shop", "name": "web-1"}
    group, other = of_slices([slice_(ref, ready=False)], [service], [pod()])
    assert group["targets"] == ["10.244.1.2:9153"]
    assert other == {"targets": ["10.244.1.9:9153"], "labels": group["labels"]}
    labels = group["labels"]
    assert labels[f"{M}endpointslice_port_name"] == "metrics"
    assert labels[f"{M}endpointslice_address_type"] == "IPv4"
    assert labels[f"{M}endpointslice_endpoint_conditions_ready"] == "false"
    assert labels[f"{M}endpointslice_address_target_name"] == "web-1"
    assert labels[f"{M}service_name"] == "web"
    assert labels[f"{M}endpointslice_label_kubernetes_io_service_name"] == "web"
    assert labels[f"{M}service_label_a"] == "b"
    assert labels[f"{M}pod_node_name"] == "node1"


def test_an_endpoint_without_pod_or_service_is_a_target_all_the_same() -> None:
    group, _ = of_slices([slice_(None, ready=None)], [], [pod()])
    assert f"{M}service_name" not in group["labels"]
    assert f"{M}pod_name" not in group["labels"]
    assert f"{M}endpointslice_endpoint_conditions_ready" not in group["labels"]


def test_the_order_of_objects_does_not_matter() -> None:
    one, other = pod("a", podIP="10.0.0.1"), pod("b", podIP="10.0.0.2")
    assert ordered(of_pods([one, other])) == ordered(of_pods([other, one]))


@pytest.mark.parametrize(
    ("wanted", "data", "words"),
    [
        (
            EndpointSlice,
            {"metadata": {"name": "s", "namespace": "shop"}},
            "EndpointSlice shop/s: addressType: is missing (add it)",
        ),
        (
            EndpointSlice,
            {"metadata": {"name": "s", "namespace": "shop"}, "addressType": "MAC"},
            "EndpointSlice shop/s: addressType: ",
        ),
        (
            Node,
            {"metadata": {"name": "n"}, "status": {"daemonEndpoints": 7}},
            "Node n: status.daemonEndpoints: must be a mapping, not a whole number",
        ),
    ],
)
def test_what_no_api_server_should_take_is_refused_by_name(
    wanted: type[Any], data: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidObject) as refused:
        codec.from_dict(data, wanted)
    assert str(refused.value).startswith(words)
