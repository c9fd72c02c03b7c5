"""A user's manifests become a workload that can be measured."""

from typing import Any

import pytest

from kproxy import errors
from kproxy.lab import plan, workload

CIDR = plan.SERVICE_CIDR


def deployment(name: str = "web", ports: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name, "image": "nginx"}
    if ports is not None:
        container["ports"] = ports
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container]},
            },
        },
    }


def service(name: str = "web", **port: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, **port}]},
    }


def container_ports(load: workload.Workload, name: str = "web") -> set[tuple[int, str]]:
    (found,) = [d for d in load.of_kind("Deployment") if d["metadata"]["name"] == name]
    ports = found["spec"]["template"]["spec"]["containers"][0]["ports"]
    return {(port["containerPort"], port.get("protocol", "TCP")) for port in ports}


def test_undeclared_target_ports_are_listened_on_and_told() -> None:
    load = workload.prepare([deployment(), service(targetPort=8080, protocol="UDP")])
    assert container_ports(load) == {(8080, "UDP")}
    assert any("UDP 8080" in note for note in load.notes)


def test_without_targetport_the_port_itself_is_meant() -> None:
    load = workload.prepare([deployment(), service(protocol="UDP")])
    assert container_ports(load) == {(80, "UDP")}


def test_tcp_only_workload_gets_udp_twins() -> None:
    ports = [{"name": "http", "containerPort": 8080}]
    load = workload.prepare([deployment(ports=ports), service(name="web", targetPort="http")])
    services = {s["metadata"]["name"]: s["spec"] for s in load.of_kind("Service")}
    twin = services["web" + workload.PROBE_SUFFIX]
    assert [(p["port"], p["protocol"], p["targetPort"]) for p in twin["ports"]] == [
        (80, "UDP", 8080)
    ]
    assert twin["selector"] == services["web"]["selector"]
    assert container_ports(load) == {(8080, "TCP"), (8080, "UDP")}
    assert any("UDP" in note for note in load.notes)


def test_a_workload_with_udp_is_left_alone() -> None:
    ports = [{"containerPort": 53, "protocol": "UDP"}]
    load = workload.prepare([deployment(ports=ports), service(port=53, protocol="UDP")])
    assert [s["metadata"]["name"] for s in load.of_kind("Service")] == ["web"]
    assert load.notes == ()


def test_input_is_not_changed() -> None:
    manifests = [deployment(), service(targetPort=8080)]
    before = repr(manifests)
    workload.prepare(manifests)
    assert repr(manifests) == before


def test_missing_namespaces_are_added_first() -> None:
    load = workload.prepare([deployment(), service()])
    assert load.manifests[0]["kind"] == "Namespace"
    assert load.manifests[0]["metadata"]["name"] == "shop"


def test_unknown_named_target_port_is_named() -> None:
    with pytest.raises(errors.InvalidObject, match=r"Service shop/web.*'http'"):
        workload.prepare([deployment(), service(targetPort="http")])


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(errors.UsageError, match="no Service"):
        workload.prepare([deployment("other"), service("web")])


def test_kinds_that_the_lab_does_not_run_are_left_out_by_name() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "shop"}}
    good, problems = workload.runnable([deployment(), service(), pod], CIDR)
    assert [one["kind"] for one in good] == ["Deployment", "Service"]
    (problem,) = problems
    assert str(problem).startswith("Pod shop/x: kind: ")


def test_an_address_outside_the_range_is_left_out_with_the_field() -> None:
    given = service()
    given["spec"]["clusterIP"] = "10.97.0.9"
    good, problems = workload.runnable([given, service(name="other")], CIDR)
    assert [one["metadata"]["name"] for one in good] == ["other"]
    assert "Service shop/web: spec.clusterIP: 10.97.0.9" in str(problems[0])


def test_targets_are_the_ports_with_an_address() -> None:
    given = service(name="dns", protocol="UDP")
    given["spec"]["clusterIP"] = "10.96.0.10"
    headless = service(name="db")
    headless["spec"]["clusterIP"] = "None"
    (target,) = workload.targets([headless, given])
    assert (target.address, target.port, target.protocol) == ("10.96.0.10", 80, "UDP")
    assert str(target) == "shop/dns"
