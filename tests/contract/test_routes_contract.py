"""What routes and neighbours promise: the fake and the kernel keep it alike."""

import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from kproxy.kernel.inet import Family
from kproxy.kernel.links.cards import cards
from kproxy.kernel.routes.client import Routes
from kproxy.kernel.routes.fake import FakeRoutes
from kproxy.kernel.routes.types import Query, Route, RouteKind, RoutesClient
from netns import namespace

GATEWAY, OWN, NEIGHBOUR = (ip_address(f"192.0.2.{n}") for n in (254, 1, 9))
NAME = f"kproxy-routes-{os.getpid()}"
SETUP = f"""
    link add va type veth peer name vb
    link add vc type veth peer name vd
    link set lo up
    link set va up
    link set vb up
    link set vc up
    link set vd up
    addr add {OWN}/24 dev va
    addr add 2001:db8::1/64 dev va nodad
    route add default via {GATEWAY}
    route add 198.51.100.0/24 dev vc
    route add unreachable 203.0.113.0/24
    route add blackhole 203.0.114.0/24
    route add prohibit 203.0.115.0/24
    route add anycast 2001:db8:7::7/128 dev va
    neigh add {NEIGHBOUR} lladdr 02:00:00:00:00:09 dev va
"""


def kernel() -> Iterator[tuple[RoutesClient, dict[str, int]]]:
    namespace.create(NAME)
    try:
        with namespace.entered(NAME):
            for line in SETUP.strip().splitlines():
                subprocess.run(["ip", *line.split()], check=True)
            with Routes() as routes:
                yield routes, {card.name: card.index for card in cards().values()}
    finally:
        namespace.delete(NAME)


def fake() -> Iterator[tuple[RoutesClient, dict[str, int]]]:
    index = {"lo": 1, "va": 3, "vc": 5}
    unicast = RouteKind.UNICAST
    made = FakeRoutes(
        {
            ip_network("0.0.0.0/0"): Route(kind=unicast, device=3, gateway=GATEWAY, source=OWN),
            ip_network("192.0.2.0/24"): Route(kind=unicast, device=3, source=OWN),
            ip_network("192.0.2.1/32"): Route(kind=RouteKind.LOCAL, device=1),
            ip_network("198.51.100.0/24"): Route(kind=unicast, device=5),
            ip_network("203.0.113.0/24"): Route(kind=RouteKind.UNREACHABLE),
            ip_network("203.0.114.0/24"): Route(kind=RouteKind.BLACKHOLE),
            ip_network("203.0.115.0/24"): Route(kind=RouteKind.PROHIBIT),
            ip_network("2001:db8:7::7/128"): Route(kind=RouteKind.LOCAL, device=3),
        },
        {3: (ip_address("fe80::1"), OWN, ip_address("2001:db8::1"))},
    )
    made.neighbours[3, NEIGHBOUR] = "02:00:00:00:00:09"
    yield made, index


@pytest.fixture(
    params=[fake, pytest.param(kernel, marks=[pytest.mark.kernel, pytest.mark.needs_tool("ip")])]
)
def given(request: pytest.FixtureRequest) -> Iterator[tuple[RoutesClient, dict[str, int]]]:
    yield from request.param()


Given = tuple[RoutesClient, dict[str, int]]


def test_a_way_has_a_device_and_perhaps_a_gateway(given: Given) -> None:
    routes, index = given
    far = routes.lookup(Query(destination=ip_address("8.8.8.8")))
    assert (far.kind, far.device, far.gateway) == (RouteKind.UNICAST, index["va"], GATEWAY)
    near = routes.lookup(Query(destination=NEIGHBOUR))
    assert (near.device, near.gateway, near.source) == (index["va"], None, OWN)
    other = routes.lookup(Query(destination=ip_address("198.51.100.7")))
    assert other.device == index["vc"]


def test_ports_and_protocol_may_be_given(given: Given) -> None:
    routes, index = given
    asked = Query(
        destination=NEIGHBOUR, source=OWN, protocol=17, source_port=40000, destination_port=53
    )
    assert routes.lookup(asked).device == index["va"]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("192.0.2.1", RouteKind.LOCAL),
        ("2001:db8:7::7", RouteKind.LOCAL),  # anycast: of this host, too
        ("203.0.113.7", RouteKind.UNREACHABLE),
        ("203.0.114.7", RouteKind.BLACKHOLE),
        ("203.0.115.7", RouteKind.PROHIBIT),
        ("2001:db9::1", RouteKind.UNREACHABLE),
    ],
)
def test_where_a_packet_goes_nowhere_the_kind_says_so(
    given: Given, address: str, kind: RouteKind
) -> None:
    assert given[0].lookup(Query(destination=ip_address(address))).kind is kind


def test_devices_of_default_routes_are_known(given: Given) -> None:
    routes, index = given
    assert routes.default_devices() == {index["va"]}


def test_neighbours_are_known_or_not(given: Given) -> None:
    routes, index = given
    known = routes.neighbour(index["va"], NEIGHBOUR)
    assert known is not None
    assert known.mac == "02:00:00:00:00:09"
    assert routes.neighbour(index["vc"], NEIGHBOUR) is None
    assert routes.neighbour(index["va"], GATEWAY) is None


def test_the_address_of_a_device_is_one_that_others_reach(given: Given) -> None:
    routes, index = given
    assert routes.address_on(index["va"], Family.IPV4) == OWN
    assert routes.address_on(index["va"], Family.IPV6) == ip_address("2001:db8::1")
    assert routes.address_on(index["vc"], Family.IPV4) is None
