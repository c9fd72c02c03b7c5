"""Node ports are served at the addresses that the node has, also when those change."""

import json
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node
from stub_api import service, slice_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

NODE_PORT = 30080


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        exposed = service("web", "10.96.0.10")
        exposed["spec"]["type"] = "NodePort"
        exposed["spec"]["ports"][0]["nodePort"] = NODE_PORT
        node.api.put(exposed, slice_of("web", "10.128.0.5"))
        config = json.loads(node.config.read_text())
        config["nodePortAddresses"] = ["192.0.2.0/24"]
        # No full sync: what is noticed is noticed because the kernel tells.
        config["iptables"] = config["ipvs"] = {"minSyncPeriod": "10ms", "syncPeriod": "1h"}
        node.config.write_text(json.dumps(config))
        node.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        yield node


def served(node: Node, address: str) -> bool:
    """Return whether rules or virtual servers serve the node port at an address."""
    if node.mode == "ipvs":
        return f"{address}:{NODE_PORT}" in node.run("ipvsadm", "-Sn")
    lines = node.contents().splitlines()
    return any("KUBE-NODEPORTS" in line and f"-d {address}/32" in line for line in lines)


def test_addresses_that_come_and_go(node: Node) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    assert served(node, "192.0.2.1")
    node.run("ip", "address", "add", "192.0.2.9/32", "dev", "lo")
    while not served(node, "192.0.2.9"):
        proxy.wait_for("synced")
    node.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
    node.run("ip", "address", "del", "192.0.2.1/32", "dev", "lo")
    while served(node, "192.0.2.1"):
        proxy.wait_for("synced")
    assert served(node, "192.0.2.9")
    assert not served(node, "198.51.100.1"), "not among nodePortAddresses"
