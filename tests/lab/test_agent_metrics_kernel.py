"""Metrics beside the kernel that they tell of: rules as ``iptables-save`` counts, and packets."""

import re
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import agent_node
import pytest
from agent_node import PATIENCE_S, Node
from exposition_parser import parse
from stub_api import service, slice_of
from test_agent_interfaces import get

from kproxy.backends import chains
from netns import namespace, wait

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-save")]

SYN_AND_FIN = 0x03
BAD_TCP = struct.pack("!HHIIBBHHH", 1024, 80, 1, 0, 5 << 4, SYN_AND_FIN, 1024, 0, 0)

POD, NODE_PORT = "10.128.0.5", 30080
RULES = "kubeproxy_sync_proxy_rules_iptables_"
ACCEPTED = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total"
DROPPED = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total"


@pytest.fixture
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    mode = getattr(request, "param", "iptables")
    with agent_node.running(tmp_path, mode) as node:
        node.run("ip", "address", "add", f"{POD}/32", "dev", "lo")
        node.run("ip", "route", "add", "default", "dev", "lo")
        web = service("web", "10.96.0.10")
        web["spec"] |= {"type": "NodePort"}
        web["spec"]["ports"][0]["nodePort"] = NODE_PORT
        node.api.put(web, slice_of("web", POD), service("idle", "10.96.0.11"))
        yield node


def told(node: Node) -> dict[tuple[str, str], float]:
    """Return values by name and by what labels say beside the family of addresses."""
    code, body = get(node, "/metrics")
    assert code == 200
    return {
        (name, " ".join(value for key, value in sorted(labels) if key != "ip_family")): value
        for family in parse(body).values()
        for (name, labels), value in family.samples.items()
    }


def rules(node: Node, *options: str) -> dict[str, list[str]]:
    """Return the rules in chains of the proxy's own by table."""
    found: dict[str, list[str]] = {}
    for program in ("iptables-legacy-save", "iptables-nft-save"):
        table = ""
        for line in node.run(program, *options, check=False).splitlines():
            if line.startswith("*"):
                table = line[1:]
            chain = re.match(r"(?:\[\d+:\d+\] )?-A (\S+)", line)
            if chain and chains.is_ours(chain[1]):
                found.setdefault(table, []).append(line)
    return found


def counts(node: Node) -> dict[str, int]:
    return {table: len(lines) for table, lines in rules(node).items()}


def told_total(node: Node) -> dict[str, float]:
    return {table: told(node).get((f"{RULES}total", table), -1) for table in chains.TABLES}


def test_as_many_rules_as_the_kernel_has(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("metrics")
    held = counts(node)
    assert held.keys() == set(chains.TABLES)
    assert told_total(node) == held
    node.api.put(slice_of("web", POD, "10.128.1.6"))
    wait.wait_until(
        lambda: told_total(node)["nat"] == held["nat"] + 3, PATIENCE_S, why="a new endpoint"
    )
    assert told_total(node) == counts(node)
    node.api.delete("EndpointSlice", "web-abc")
    wait.wait_until(lambda: told_total(node)["nat"] < held["nat"], PATIENCE_S, why="no endpoint")
    assert told_total(node) == counts(node)


def test_connections_to_localhost_are_counted_and_stay_so_after_a_restart(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("metrics")
    assert told(node)[ACCEPTED, ""] == 0
    with serving(node):
        connect(node, "127.0.0.1", 3)
        connect(node, POD, 2, port=8080)
        connect(node, "10.96.0.10", 2, port=80)
    assert told(node)[ACCEPTED, ""] == 3
    (line,) = (line for line in rules(node, "-c")["nat"] if "--ctorigdst 127.0.0.0/8" in line)
    assert line.startswith("[3:")
    node.api.put(service("more", "10.96.0.12"), slice_of("more", POD))
    # In the table filter it stands only until its endpoint has come, too.
    wait.wait_until(
        lambda: told_total(node) == counts(node) and "demo/more" in str(rules(node)["nat"]),
        PATIENCE_S,
        why="another service, with its endpoint",
    )
    assert told(node)[ACCEPTED, ""] == 3
    proxy.end(signal.SIGKILL)
    node.start(None, "-v=2").wait_for("metrics")
    found = told(node)
    assert (found[ACCEPTED, ""], found[DROPPED, ""]) == (3, 0)
    assert (found[f"{RULES}last", "nat"], found[f"{RULES}last", "filter"]) == (0, 0)


def test_packets_that_conntrack_cannot_place_are_counted(node: Node) -> None:
    node.start(None, "-v=2").wait_for("metrics")
    outside = f"{node.name}-outside"
    namespace.create(outside)
    try:
        node.run("ip", "link", "add", "outside", "type", "veth", "peer", "eth0", "netns", outside)
        node.run("ip", "address", "add", "192.0.2.1/24", "dev", "outside")
        node.run("ip", "link", "set", "outside", "up")
        with namespace.entered(outside):
            for words in (
                "address add 192.0.2.2/24 dev eth0",
                "link set eth0 up",
                "route add default via 192.0.2.1",
            ):
                subprocess.run(["ip", *words.split()], check=True)
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
                for _ in range(3):
                    raw.sendto(BAD_TCP, ("198.51.100.1", 0))
        wait.wait_until(
            lambda: told(node)[DROPPED, ""] == 3, PATIENCE_S, why="packets, forwarded and dropped"
        )
    finally:
        namespace.delete(outside)


@pytest.mark.parametrize("node", ["iptables", "nftables"], indirect=True)
def test_requests_are_counted_from_the_first_one(node: Node) -> None:
    proxy = node.start(None, "-v=2")
    proxy.wait_for("metrics")
    host = node.api.url.removeprefix("http://")
    found = told(node)
    # Lists of Services and EndpointSlices, at least, and watches of them.
    assert found["rest_client_requests_total", f"200 {host} GET"] >= 3
    assert found["rest_client_request_duration_seconds_count", f"{host} GET"] >= 2
    assert found["rest_client_response_size_bytes_sum", f"{host} GET"] > 100
    mine = {name for name, _ in found if name.startswith(("kubeproxy_iptables_", RULES))}
    assert bool(mine) == (node.mode == "iptables")


class serving:  # noqa: N801 read as a word
    """Accepts connections at the pod's address."""

    def __init__(self, node: Node) -> None:
        with namespace.entered(node.name):
            self._listener = socket.create_server((POD, 8080))
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._listener.close()

    def _accept(self) -> None:
        try:
            while True:
                self._listener.accept()[0].close()
        except OSError:
            return


def connect(node: Node, address: str, times: int, port: int = NODE_PORT) -> None:
    for _ in range(times):
        with namespace.entered(node.name):
            connection = socket.create_connection((address, port), PATIENCE_S)
        with connection:
            assert connection.recv(1) == b""
