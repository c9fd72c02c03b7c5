"""What a running proxy tells: metrics, its configuration, health; and Events when it suffers."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import PATIENCE_S, Node
from exposition_parser import Parsed, parse
from stub_api import service, slice_of

from netns import namespace

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
        yield node


def get(node: Node, path: str, port: int = 10249) -> tuple[int, str]:
    """Ask the proxy, as soon as it listens."""
    with namespace.entered(node.name):
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    with connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


def metrics(node: Node) -> dict[str, Parsed]:
    code, body = get(node, "/metrics")
    assert code == 200
    return parse(body)


def total(family: Parsed) -> float:
    return sum(value for (name, _), value in family.samples.items() if not name.endswith("_sum"))


def test_metrics_configuration_and_mode(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("synced", first=True)
    proxy.wait_for("metrics")
    found = metrics(node)
    assert {
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "kubernetes_build_info",
        "process_resident_memory_bytes",
        "kproxy_kernel_writes_total",
    } <= found.keys()
    assert total(found["kproxy_kernel_writes_total"]) > 0
    assert found["process_open_fds"].samples["process_open_fds", ()] > 3
    if node.mode == "ipvs":
        weights = found["kproxy_ipvs_real_server_weight"].samples
        assert {dict(labels)["service"] for _, labels in weights} == {"demo/web:p"}
        assert sorted(weights.values()) == [1, 1]
        assert get(node, "/metrics/ipvs")[0] == 200
    shown = json.loads(get(node, "/configz")[1])["kubeproxy.config.k8s.io"]
    assert (shown["mode"], shown["hostnameOverride"]) == (node.mode, "node1")
    assert get(node, "/proxyMode") == (200, node.mode)
    assert get(node, "/healthz") == (200, "ok")
    assert get(node, "/nothing")[0] == 404


def test_drift_is_repaired_told_and_counted(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("synced", first=True)
    proxy.wait_for("metrics")
    before = node.contents()
    assert total(metrics(node)["kproxy_drift_repaired_total"]) == 0
    if node.mode == "ipvs":
        node.run("ip", "address", "del", "10.96.0.10/32", "dev", "kube-ipvs0")
    else:
        program = _program(node)
        node.run(program, "-t", "nat", "-F", "KUBE-SERVICES")
    assert proxy.wait_for("drift repaired")["objects"] > 0
    assert node.contents() == before
    assert total(metrics(node)["kproxy_drift_repaired_total"]) > 0


def _program(node: Node) -> str:
    return next(
        name
        for name in ("iptables-legacy", "iptables-nft")
        if "KUBE-SERVICES" in node.run(f"{name}-save", check=False)
    )


def test_health_checks_are_counted_by_code(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("metrics")
    node.await_healthy()  # it is another thread that listens there
    before = total(metrics(node).get("kubeproxy_proxy_healthz_total") or Parsed("", "", {}))
    assert get(node, "/healthz", 10256)[0] == 200
    assert total(metrics(node)["kubeproxy_proxy_healthz_total"]) == before + 1


def test_a_port_that_is_taken_is_told_and_had_when_it_is_free(node: Node) -> None:
    with namespace.entered(node.name):
        taken = socket.create_server(("127.0.0.1", 10249))
    proxy = node.start(None, "-v=2")
    with taken:
        proxy.wait_for("synced", first=True)
        failed = proxy.wait_for("metrics failed")
        assert failed["address"] == "127.0.0.1:10249"
        assert failed["error"] == os.strerror(errno.EADDRINUSE)
        event = node.api.posted.get(timeout=PATIENCE_S)
        assert event["reason"] == "FailedToStartMetricsServer"
        assert event["regarding"]["name"] == "node1"
    proxy.wait_for("metrics")
    assert metrics(node)
