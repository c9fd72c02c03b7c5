"""``kproxy explain``, ``diff`` and ``state`` on a node whose kernel and packets are real."""

import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agent_node
import click.testing
import pytest
import reached
from agent_node import Node
from reached import NODE, OUTSIDE, PODS, REMOTE_POD, Answer, Surroundings

from kproxy.cli.main import cli
from netns import namespace

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

TRIES = 30
"""Of two endpoints picked at random one is missed with a probability below 2e-9."""

LOCAL, REMOTE = {PODS["pod5"]: "node1"}, {REMOTE_POD: "node2"}
SOURCES = (PODS["client"], PODS["pod5"], NODE[0], OUTSIDE)


def service(name: str, ip: str, **spec: Any) -> dict[str, Any]:
    port = {"name": "p", "port": 80, "protocol": "TCP"}
    if "nodePort" in spec:
        port["nodePort"] = spec.pop("nodePort")
    ingress = [{"ip": one} for one in spec.pop("balancer", ())]
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"namespace": "demo", "name": name},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [port], **spec},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def endpoints(name: str, places: dict[str, str], **conditions: bool) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "demo",
            "name": f"{name}-abc",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [address], "nodeName": node, "conditions": conditions}
            for address, node in places.items()
        ],
        "ports": [{"name": "p", "port": 8080, "protocol": "TCP"}],
    }


CLUSTER = [
    {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDR": "10.128.0.0/24", "podCIDRs": ["10.128.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE[0]}]},
    },
    {
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.0/12"]},
    },
]
EXPOSED: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
OBJECTS = [
    service("web", "10.96.0.10", type="NodePort", nodePort=30080, externalIPs=["203.0.113.5"]),
    endpoints("web", LOCAL | REMOTE),
    service("here", "10.96.0.11", internalTrafficPolicy="Local"),
    endpoints("here", LOCAL | REMOTE),
    service("elsewhere", "10.96.0.12", internalTrafficPolicy="Local"),
    endpoints("elsewhere", REMOTE),
    service("none", "10.96.0.13", type="NodePort", nodePort=30083, externalIPs=["203.0.113.6"]),
    endpoints("none", LOCAL | REMOTE, ready=False, serving=False),
    service("local", "10.96.0.14", nodePort=30084, balancer=["203.0.113.7"], **EXPOSED),
    endpoints("local", LOCAL | REMOTE),
    service(
        "guarded",
        "10.96.0.15",
        type="LoadBalancer",
        nodePort=30085,
        balancer=["203.0.113.8"],
        loadBalancerSourceRanges=["198.51.100.0/24"],
    ),
    endpoints("guarded", LOCAL),
    service(
        "guarded-none",
        "10.96.0.17",
        type="LoadBalancer",
        nodePort=30087,
        balancer=["203.0.113.9"],
        loadBalancerSourceRanges=["198.51.100.0/24"],
    ),
    service("away", "10.96.0.18", nodePort=30088, balancer=["203.0.113.10"], **EXPOSED),
    endpoints("away", REMOTE),
    service(
        "both-away",
        "10.96.0.19",
        nodePort=30089,
        balancer=["203.0.113.11"],
        internalTrafficPolicy="Local",
        **EXPOSED,
    ),
    endpoints("both-away", REMOTE),
    service("draining", "10.96.0.16"),
    endpoints("draining", REMOTE, ready=False, serving=True, terminating=True),
]
TARGETS = (
    ("10.96.0.10", 80),
    ("10.96.0.10", 2222),
    ("10.96.0.11", 80),
    ("10.96.0.12", 80),
    ("10.96.0.13", 80),
    ("10.96.0.16", 80),
    ("10.96.0.99", 80),
    ("203.0.113.5", 80),
    ("203.0.113.5", 2222),
    ("203.0.113.6", 80),
    ("203.0.113.7", 80),
    ("203.0.113.8", 80),
    ("203.0.113.9", 80),
    ("203.0.113.10", 80),
    ("203.0.113.11", 80),
    ("10.96.0.19", 80),
    (NODE[0], 30087),
    (NODE[0], 30088),
    (NODE[0], 30089),
    (NODE[0], 30080),
    (NODE[1], 30080),
    (NODE[0], 30083),
    (NODE[0], 30084),
    (NODE[0], 30085),
    (NODE[0], 30099),
)


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        pytest.param("nftables", marks=pytest.mark.needs_tool("nft")),
    ]
)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with agent_node.running(tmp_path, request.param) as node:
        node.api.put(*CLUSTER, *OBJECTS)
        yield node


@pytest.fixture
def around(node: Node) -> Iterator[Surroundings]:
    with reached.surroundings(node.name) as around:
        yield around


def ask(node: Node, *words: str) -> tuple[int, Any]:
    """Run a command on the node; return its exit code, and what it prints as JSON."""
    options = ["--kubeconfig", str(node.kubeconfig), "--config", str(node.config), "--json"]
    with namespace.entered(node.name):
        done = click.testing.CliRunner().invoke(cli, [*words, *options], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, json.loads(done.stdout)


def predicted(packet: dict[str, Any]) -> set[Answer]:
    """Return what a client should meet by the answer of ``kproxy explain``."""
    if packet["fate"] == "endpoint":
        return {
            Answer(f"{one['address']}:{one['port']}", one["masqueraded"])
            if one["answered"]
            else Answer("dropped")
            for one in packet["endpoints"]
        }
    # No process of the node listens, and its kernel refuses.
    return {Answer("refused" if packet["fate"] == "node" else packet["fate"])}


def met(around: Surroundings, source: str, address: str, port: int) -> set[Answer]:
    """Return what a client meets."""
    found = {around.connect(source, address, port)}
    if found & {Answer("refused"), Answer("passes"), Answer("dropped")}:
        return found
    return found | {around.connect(source, address, port) for _ in range(TRIES)}


def agrees(seen: set[Answer], expected: set[Answer], source: str) -> bool:
    """Return whether packets fared as predicted."""
    if source in NODE:
        # Masqueraded or not: an address of the node may come out as the same one.
        return {one.end for one in seen} == {one.end for one in expected}
    return seen == expected


def test_what_is_explained_is_what_packets_meet(node: Node, around: Surroundings) -> None:
    node.start().wait_for("synced", first=True)
    different = []
    for address, port in TARGETS:
        for source in SOURCES:
            _, answer = ask(node, "explain", f"{address}:{port}/TCP", "--from", source)
            packets = [one for match in answer["services"] for one in match["packets"]]
            (packet,) = packets or answer["packets"]
            seen = met(around, source, address, port)
            if not agrees(seen, expected := predicted(packet), source):
                different.append(f"{source} to {address}:{port}: {seen}, not {expected}")
            for match in answer["services"]:
                assert match["kernel"]["agrees"] is True, match["kernel"]
    assert different == []


def damage(node: Node, ip: str) -> None:
    """Take a ClusterIP out of the kernel, as another program might."""
    if node.mode == "ipvs":
        node.run("ipvsadm", "-D", "-t", f"{ip}:80")
        return
    if node.mode == "nftables":
        element = f"{{ tcp . {ip} . 80 }}"
        node.run("nft", "delete", "element", "ip", "kube-proxy", "service-ips", element)
        return
    for tool in ("iptables-legacy", "iptables-nft"):
        for line in node.run(tool, "-t", "nat", "-S", "KUBE-SERVICES", check=False).splitlines():
            if f"-d {ip}/32" in line:
                words = shlex.split(line)
                node.run(tool, "-t", "nat", "-D", *words[1:])


def test_damage_is_told_of_the_service_that_has_it(
    node: Node,
    around: Surroundings,  # gives the node its addresses
) -> None:
    proxy = node.start()
    proxy.wait_for("synced", first=True)
    proxy.end(signal.SIGKILL)
    code, answer = ask(node, "diff")
    assert (code, answer["mode"]) == (0, node.mode)
    assert all(not one["differences"] for one in answer["families"])
    damage(node, "10.96.0.10")
    code, answer = ask(node, "diff")
    found = [one for family in answer["families"] for one in family["differences"]]
    assert code == 1
    assert {one["deviation"] for one in found} == {"missing"}
    assert {one["service"] for one in found} == {"demo/web:p"}
    _, answer = ask(node, "explain", "10.96.0.10:80")
    assert answer["services"][0]["kernel"]["agrees"] is False
    assert answer["services"][0]["kernel"]["differences"] == found
    _, answer = ask(node, "explain", "10.96.0.11:80")
    assert answer["services"][0]["kernel"]["agrees"] is True
    node.start().wait_for("synced", first=True)
    assert ask(node, "diff")[0] == 0


def test_the_kernel_is_shown_beside_what_is_wanted(node: Node) -> None:
    node.start().wait_for("synced", first=True)
    code, answer = ask(node, "state", "--kernel")
    assert (code, answer["mode"], answer["mode_from"]) == (0, node.mode, "kernel")
    services = {one["name"]: one for one in answer["families"][0]["services"]}
    assert services.keys() == {one["metadata"]["name"] for one in OBJECTS if "spec" in one}
    assert [one["local"] for one in services["web"]["endpoints"]] == [True, False]
    assert answer["zone"] == "a"
    assert all(answer["kernel"]["counts"].values())
    servers = {one["address"]: one for one in answer["kernel"]["virtual_servers"]}
    assert bool(servers) == (node.mode == "ipvs")
    if servers:
        real = servers["tcp 10.96.0.10:80"]["real_servers"]
        assert [one["weight"] for one in real] == [1, 1]


def test_where_no_proxy_ran_the_mode_has_to_be_given(node: Node) -> None:
    with namespace.entered(node.name):
        words = ["diff", "--kubeconfig", str(node.kubeconfig)]
        done = click.testing.CliRunner().invoke(cli, words, standalone_mode=False)
    assert "give --mode" in str(done.exception)
