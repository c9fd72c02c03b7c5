"""Which service is meant by an address, and which may have been."""

import pytest
from inspected import endpoint, node, service, sides, slice_of

from kproxy.desired.model import Address, Protocol
from kproxy.errors import UsageError
from kproxy.inspect import flows, lookup
from kproxy.inspect.flows import Fate
from kproxy.inspect.world import Kind, Origin, Source, Target, World


def world(mode: str = "iptables") -> World:
    return sides(
        mode,
        node(),
        service("web", "10.96.0.10", type="NodePort", nodePort=30080, externalIPs=["203.0.113.5"]),
        slice_of("web", endpoint("10.128.1.6")),
        service("dns", "10.96.0.11", 53, protocol="UDP"),
        service("also-dns", "10.96.0.11", 53, protocol="TCP"),
        service("zweb", "10.96.0.10"),
        service("lb", "10.96.0.12", balancer=["203.0.113.7"], type="LoadBalancer",
                loadBalancerSourceRanges=["198.51.100.0/24"]),
    )[0].world  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.96.0.10:80", ("10.96.0.10", 80, None)),
        ("10.96.0.10:53/udp", ("10.96.0.10", 53, Protocol.UDP)),
        ("[FD00:0::1]:80/SCTP", ("fd00::1", 80, Protocol.SCTP)),
    ],
)
def test_targets(text: str, expected: tuple[str, int, Protocol | None]) -> None:
    address, port, protocol = expected
    wanted = Target(address=Address(address), port=port, protocol=protocol)
    assert lookup.parse_target(text) == wanted


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("web:80", "not an IP address"),
        ("10.96.0.10", "lacks a port"),
        ("10.96.0.10:http", "not a port"),
        ("10.96.0.10:0", "not a port"),
        ("10.96.0.10:65536", "not a port"),
        ("10.96.0.10:80/ICMP", "unknown protocol"),
        ("fd00::1:80", "brackets"),
    ],
)
def test_what_is_no_target_is_told(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        lookup.parse_target(text)


@pytest.mark.parametrize(
    ("text", "names", "kind"),
    [
        ("10.96.0.10:80", ["web"], Kind.CLUSTER_IP),
        ("203.0.113.5:80", ["web"], Kind.EXTERNAL_IP),
        ("203.0.113.7:80", ["lb"], Kind.LOAD_BALANCER),
        ("192.168.1.1:30080", ["web"], Kind.NODE_PORT),
        ("127.0.0.1:30080", ["web"], Kind.NODE_PORT),
        ("10.96.0.11:53", ["also-dns", "dns"], Kind.CLUSTER_IP),
        ("10.96.0.11:53/UDP", ["dns"], Kind.CLUSTER_IP),
        ("10.96.0.10:30080", [], None),
        ("192.168.1.2:30080", [], None),
    ],
)
def test_services_are_found(text: str, names: list[str], kind: Kind | None) -> None:
    target = lookup.parse_target(text)
    found = [one.service for one in lookup.find(world(), target)]
    assert [service.name.name for service in found] == names
    assert {flows.kind_of(service, target) for service in found} == ({kind} if kind else set())


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("10.96.0.11:54", ["10.96.0.11:53/TCP is demo/also-dns:p",
                           "10.96.0.11:53/UDP is demo/dns:p"]),
        ("10.96.0.10:80/UDP", ["10.96.0.10:80/TCP is demo/web:p (another protocol)",
                               "10.96.0.10:80/TCP is demo/zweb:p (another protocol)"]),
        ("10.128.1.6:8080", ["10.128.1.6 is an endpoint of demo/web:p, no service address"]),
        ("192.0.2.1:30080", ["30080/TCP is the node port of demo/web:p"]),
        ("10.96.9.9:53", ["10.96.0.11:53/TCP is demo/also-dns:p",
                          "10.96.0.11:53/UDP is demo/dns:p"]),
        ("192.0.2.1:1", []),
    ],
)  # fmt: skip
def test_near_misses(text: str, near: list[str]) -> None:
    assert near == lookup.near_misses(world(), lookup.parse_target(text))


def test_very_many_near_misses_are_counted() -> None:
    services = [service(f"s{number}", f"10.96.1.{number}") for number in range(1, 9)]
    world = sides("iptables", *services)[0].world
    misses = lookup.near_misses(world, lookup.parse_target("10.96.9.9:80"))
    assert len(misses) == lookup.NEAR_MAX + 1
    assert misses[-1] == "… and 3 more"


def test_typical_sources_differ_where_source_ranges_do() -> None:
    found = {one.service.name.name: one for one in world().state.services.values()}
    web = lookup.typical_sources(world(), found["web"], Kind.CLUSTER_IP)
    assert [one.origin for one in web] == [Origin.POD, Origin.NODE, Origin.OUTSIDE]
    balancer = lookup.typical_sources(world(), found["lb"], Kind.LOAD_BALANCER)
    assert [one.in_ranges for one in balancer] == [False, None, True, False]
    nobody = Source(origin=Origin.OUTSIDE, in_ranges=False)
    target = lookup.parse_target("203.0.113.7:80")
    assert flows.predict(world("ipvs"), target, found["lb"], nobody).fate is Fate.DROPPED


def test_sources_by_interface() -> None:
    by_bridge = sides(
        "iptables",
        node(),
        service("web", "10.96.0.10"),
        slice_of("web", endpoint("10.128.1.6")),
        detectLocalMode="BridgeInterface",
        detectLocal={"bridgeInterface": "cni0"},
    )[0].world
    pod = by_bridge.source(Address("10.128.0.9"))
    assert by_bridge.is_pod(pod)
    assert not by_bridge.is_pod(by_bridge.source(Address("10.129.0.9")))


def test_what_several_claim_is_a_problem_of_all_but_the_first() -> None:
    side = sides("iptables", service("web", "10.96.0.10"), service("zweb", "10.96.0.10"))[0]
    (problem,) = side.problems
    assert problem.obj == "Service demo/zweb"
    assert "belongs to Service demo/web:p already" in problem.problem
