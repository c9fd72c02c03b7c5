"""``kproxy trace`` on real packets: the hops of every mode of the proxy."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

import agent_node
import pytest
import reached
import test_lab_explain
from agent_node import Node

from kproxy.kernel.inet import Protocol
from kproxy.trace import places, run
from kproxy.trace.facts import Kind, Trace
from kproxy.trace.packet import Way

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "nft")]

MODES = [
    "iptables",
    pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
    "nftables",
]
SERVICE = {
    "iptables": "ip nat PREROUTING: KUBE-SERVICES (kubernetes service portals) > KUBE-SVC-",
    "ipvs": "ip nat PREROUTING: KUBE-SERVICES (kubernetes service portals) > accept",
    "nftables": "ip kube-proxy nat-prerouting: services > ",
}


@pytest.fixture(scope="module", params=MODES)
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A node with its proxy and its surroundings, for all tests of a mode: nobody changes it."""
    with agent_node.running(tmp_path_factory.mktemp("node"), request.param) as node:
        node.api.put(*test_lab_explain.CLUSTER, *test_lab_explain.OBJECTS)
        with reached.surroundings(node.name):
            node.start().wait_for("synced", first=True)
            yield node


def trace(
    prefix: str,
    target: str,
    port: int,
    *,
    source: str = "-client",
    protocol: Protocol = Protocol.TCP,
    hidden: str = "",
    timeout_s: float = 2.0,
) -> Trace:
    others = [one for one in places.every(prefix) if not hidden or one.name != hidden]
    origin = next(one for one in places.every(prefix) if one.name == source)
    asked = run.Asked(
        protocol=protocol,
        target=ip_address(target),
        port=port,
        origin=origin,
        others=others,
        timeout_s=timeout_s,
    )
    return run.trace(asked)


def hops(found: Trace, way: Way) -> list[tuple[str, str]]:
    return [(hop.place, str(hop.kind)) for hop in found.hops if hop.way is way]


def only(found: Trace, kind: Kind, place: str, way: Way = Way.THERE) -> list[str]:
    return [hop.text for hop in found.hops if (hop.kind, hop.place, hop.way) == (kind, place, way)]


def test_every_mode_is_shown_hop_by_hop(node: Node) -> None:
    found = trace(node.name, "10.96.0.15", 80)  # its only endpoint is pod5
    assert found.answered
    there, back = hops(found, Way.THERE), hops(found, Way.BACK)
    assert [place for place, kind in there if kind == "device"] == [
        "-client", node.name, node.name, "-pod5",
    ]  # fmt: skip
    assert [place for place, kind in back if kind == "device"] == [
        "-pod5", node.name, node.name, "-client",
    ]  # fmt: skip
    assert there[0] == ("-client", "socket")
    assert there[-1] == ("-pod5", "socket")
    assert back[-1] == ("-client", "socket")
    assert only(found, Kind.DEVICE, node.name)[1].endswith("→ 10.128.0.5:8080")
    tracked = only(found, Kind.CONNTRACK, node.name)
    assert tracked == ["a connection, translated to 10.128.0.5:8080"]
    (answer,) = only(found, Kind.CONNTRACK, node.name, Way.BACK)
    assert answer.startswith("an answer, goes on as 10.96.0.15:80 → ")
    assert "dev pod5" in only(found, Kind.ROUTE, node.name)
    rules = only(found, Kind.RULES, node.name)
    assert rules[0].startswith(SERVICE[node.mode])
    servers = only(found, Kind.VIRTUAL_SERVER, node.name)
    expected = ["tcp 10.96.0.15:80 → real server 10.128.0.5:8080"]
    assert servers == (expected if node.mode == "ipvs" else [])
    (taken,) = [text for text in only(found, Kind.SOCKET, "-pod5") if "taken" in text]
    assert f"[{os.getpid()}]" in taken
    stamps = [hop.ns for hop in found.hops if hop.ns is not None]
    assert len(stamps) == 8
    assert stamps == sorted(stamps)
    assert stamps[0] >= found.sent_ns


def test_a_masqueraded_client_is_followed(node: Node) -> None:
    found = trace(node.name, "203.0.113.8", 80, source="-outside")
    assert found.answered
    (tracked,) = only(found, Kind.CONNTRACK, node.name)
    assert "as from 10.128.0.1:" in tracked
    leaving = only(found, Kind.DEVICE, node.name)[1]
    assert "198.51.100.7" not in leaving
    assert hops(found, Way.BACK)[-1] == ("-outside", "socket")


def test_a_service_without_endpoints_refuses_where_the_rules_say_so(node: Node) -> None:
    found = trace(node.name, "10.96.0.13", 80)
    assert (found.outcome, found.answered) == ("refused", False)
    assert hops(found, Way.BACK)[0] == (node.name, "socket")
    assert only(found, Kind.SOCKET, "-client", Way.BACK) == ["learns: port unreachable"]
    if node.mode == "ipvs":
        assert only(found, Kind.VIRTUAL_SERVER, node.name) == ["10.96.0.13:80 has 0 real servers"]
    else:
        assert "drop" in only(found, Kind.RULES, node.name)[-1]


def test_the_node_itself_is_traced(node: Node) -> None:
    found = trace(node.name, "10.96.0.15", 80, source=node.name)
    assert found.answered
    assert hops(found, Way.THERE)[0] == (node.name, "socket")
    assert hops(found, Way.THERE)[-1] == ("-pod5", "socket")
    assert hops(found, Way.BACK)[-1] == (node.name, "socket")


def test_nothing_of_it_stays_in_any_namespace(node: Node) -> None:
    before = node.contents()
    trace(node.name, "10.96.0.15", 80)
    assert "kproxy-trace" not in node.run("nft", "list", "tables")
    assert node.contents() == before
