"""A running proxy looks for stale UDP flows once more, unasked and long before a resync.

The flow that it missed is inserted when it has just looked, as a packet that was under way then
would do it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import Node
from stub_api import service, slice_of

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "conntrack")]

VIP, HEALTHY = "10.96.0.53", "10.128.0.1"
TRIES = 20
"""On a busy machine a flow may be inserted too late; then it is tried with another endpoint."""


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        "nftables",
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        config = json.loads(node.config.read_text())
        for mode in ("iptables", "ipvs", "nftables"):
            config[mode]["syncPeriod"] = "1h"
        node.config.write_text(json.dumps(config))
        yield node


def endpoints(node: Node, *addresses: str) -> None:
    node.api.put(slice_of("dns", *addresses, port=5353, protocol="UDP"))


def track(node: Node, endpoint: str, source_port: int) -> None:
    node.run(
        *("conntrack", "-I", "-p", "udp", "-t", "600", "-s", "10.128.0.99", "-d", VIP),
        *("--sport", str(source_port), "--dport", "53", "-r", endpoint, "-q", "10.128.0.99"),
        *("--reply-port-src", "5353", "--reply-port-dst", str(source_port)),
    )


def tracked(node: Node, endpoint: str) -> bool:
    return f"src={endpoint} " in node.run("conntrack", "-L", "-p", "udp", "-d", VIP)


def test_what_was_missed_goes_by_itself(node: Node) -> None:
    node.api.put(service("dns", VIP, 53, "UDP"))
    endpoints(node, HEALTHY)
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    track(node, HEALTHY, 4000)
    for attempt in range(TRIES):
        gone = f"10.128.1.{attempt + 1}"
        endpoints(node, HEALTHY, gone)
        while not proxy.wait_for("synced")["writes"]:
            pass
        endpoints(node, HEALTHY)
        while not proxy.wait_for("synced")["writes"]:
            pass
        track(node, gone, 4001 + attempt)
        # Nobody changes anything now: this round is one that the proxy has asked itself for.
        if proxy.wait_for("synced")["writes"]:
            assert not tracked(node, gone)
            assert tracked(node, HEALTHY)
            return
    raise AssertionError("no flow was inserted in time")
