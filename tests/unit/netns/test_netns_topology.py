"""A topology that cannot be is refused with the object, the field and a remedy."""

import dataclasses
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from netns.errors import TopologyError
from netns.topology import (
    Host,
    Interface,
    Link,
    Neighbour,
    Route,
    RouteKind,
    Segment,
    Topology,
)


def end(host: str, name: str = "eth0", *addresses: str, **more: Any) -> Interface:
    return Interface(host=host, name=name, addresses=tuple(map(ip_interface, addresses)), **more)


def pair(a: Interface, b: Interface, **host: Any) -> Topology:
    first = Host(name="a", **host)
    return Topology(hosts=(first, Host(name="b")), links=(Link(a=a, b=b),))


def routed(*routes: Route) -> Topology:
    return pair(end("a", "eth0", "192.0.2.1/24"), end("b", "eth0", "192.0.2.2/24"), routes=routes)


PLAIN = pair(end("a", "eth0", "192.0.2.1/24"), end("b", "eth0", "192.0.2.2/24"))
EVERYWHERE = ip_network("0.0.0.0/0")


def test_a_plain_topology_is_valid() -> None:
    PLAIN.validate()


@pytest.mark.parametrize(
    ("topology", "obj", "field"),
    [
        (Topology(hosts=(Host(name="a/b"),)), "host 'a/b'", "name"),
        (Topology(hosts=(Host(name=""),)), "host ''", "name"),
        (Topology(hosts=(Host(name="a"), Host(name="a"))), "host a", "name"),
        (Topology(hosts=(Host(name="a"),), segments=(Segment(name="a"),)), "segment a", "name"),
        (pair(end("a"), end("c")), "interface c:eth0", "host"),
        (pair(end("a"), end("a", "eth1")), "link a:eth0--a:eth1", "b.host"),
        (pair(end("a", "lo"), end("b")), "interface a:lo", "name"),
        (pair(end("a", "sixteen-letters!"), end("b")), "interface a:sixteen-letters!", "name"),
        (pair(end("a", "with space"), end("b")), "interface a:with space", "name"),
        (pair(end("a", mtu=67), end("b")), "interface a:eth0", "mtu"),
        (pair(end("a", "eth0", "2001:db8::1/64", mtu=1279), end("b")), "interface a:eth0", "mtu"),
        (pair(end("a", mac="02:00"), end("b")), "interface a:eth0", "mac"),
        (pair(end("a", mac="03:00:00:00:00:01"), end("b")), "interface a:eth0", "mac"),
        (
            pair(end("a", "eth0", "192.0.2.1/24", "192.0.2.1/24"), end("b")),
            "interface a:eth0",
            "addresses",
        ),
        (
            pair(end("a", "eth0", "192.0.2.1/24"), end("b", "eth0", "192.0.2.1/32")),
            "link a:eth0--b:eth0",
            "addresses",
        ),
        (
            pair(end("a", mac="02:00:00:00:00:0A"), end("b", mac="02:00:00:00:00:0a")),
            "link a:eth0--b:eth0",
            "mac",
        ),
        (routed(Route(to=EVERYWHERE)), "host a", "routes: 0.0.0.0/0"),
        (routed(Route(to=EVERYWHERE, dev="eth1")), "host a", "routes: 0.0.0.0/0"),
        (
            routed(Route(to=EVERYWHERE, via=ip_address("198.51.100.1"))),
            "host a",
            "routes: 0.0.0.0/0",
        ),
        (
            routed(Route(to=EVERYWHERE, via=ip_address("2001:db8::1"))),
            "host a",
            "routes: 0.0.0.0/0",
        ),
        (
            routed(Route(to=EVERYWHERE, via=ip_address("198.51.100.1"), onlink=True)),
            "host a",
            "routes: 0.0.0.0/0",
        ),
        (
            routed(Route(to=EVERYWHERE, dev="eth0", kind=RouteKind.BLACKHOLE)),
            "host a",
            "routes: 0.0.0.0/0",
        ),
        (
            routed(Route(to=EVERYWHERE, dev="eth0"), Route(to=EVERYWHERE, dev="eth0")),
            "host a",
            "routes",
        ),
        (
            pair(end("a", routes=(Route(to=EVERYWHERE, dev="eth1"),)), end("b")),
            "interface a:eth0",
            "routes",
        ),
        (
            pair(end("a"), end("b"), sysctls={"kernel.pid_max": "1"}),
            "host a",
            "sysctls",
        ),
        (pair(end("a"), end("b"), sysctls={"net.ipv4.ip_forward": 1}), "host a", "sysctls"),
        (
            pair(
                end("a"),
                end("b"),
                neighbours=(
                    Neighbour(
                        address=ip_address("192.0.2.9"), mac="02:00:00:00:00:09", dev="eth7"
                    ),
                ),
            ),
            "host a",
            "neighbours",
        ),
    ],
)
def test_a_mistake_is_named(topology: Topology, obj: str, field: str) -> None:
    with pytest.raises(TopologyError) as raised:
        topology.validate()
    assert (obj, field) == (raised.value.obj, raised.value.field)
    assert raised.value.remedy


def test_two_interfaces_of_one_name_in_a_host() -> None:
    hosts = (Host(name="a"), Host(name="b"), Host(name="c"))
    links = (Link(a=end("a"), b=end("b")), Link(a=end("a"), b=end("c")))
    with pytest.raises(TopologyError, match="two interfaces of this name"):
        Topology(hosts=hosts, links=links).validate()


@pytest.mark.parametrize(
    "route",
    [
        Route(to=EVERYWHERE, via=ip_address("192.0.2.2")),
        Route(to=EVERYWHERE, dev="eth0"),
        Route(to=EVERYWHERE, via=ip_address("198.51.100.1"), dev="eth0", onlink=True),
        Route(to=EVERYWHERE, kind=RouteKind.UNREACHABLE),
        Route(to=ip_network("10.0.0.0/8"), dev="lo", kind=RouteKind.LOCAL),
    ],
)
def test_sound_routes_are_accepted(route: Route) -> None:
    routed(route).validate()


def test_a_gateway_may_be_reached_by_another_route() -> None:
    gateway = ip_address("169.254.1.1")
    pod = end("a", "eth0", "10.0.0.2/32", routes=(Route(to=ip_network("169.254.1.1/32")),))
    pair(pod, end("b"), routes=(Route(to=EVERYWHERE, via=gateway),)).validate()


def test_one_address_may_be_on_several_links_of_a_host() -> None:
    hosts = (Host(name="a"), Host(name="b"), Host(name="c"))
    links = (
        Link(a=end("a", "v1", "169.254.1.1/32"), b=end("b")),
        Link(a=end("a", "v2", "169.254.1.1/32"), b=end("c")),
    )
    Topology(hosts=hosts, links=links).validate()


def test_merging_extends_a_segment_of_the_same_name() -> None:
    first = Topology(
        hosts=(Host(name="a"),), segments=(Segment(name="s", interfaces=(end("a"),)),)
    )
    more = Topology(hosts=(Host(name="b"),), segments=(Segment(name="s", interfaces=(end("b"),)),))
    merged = first.merged(more)
    assert [segment.interfaces for segment in merged.segments] == [(end("a"), end("b"))]
    assert merged.without("b") == first


def test_without_and_around_divide_a_topology() -> None:
    lan = Segment(name="s", interfaces=(end("a", "eth1"), end("b", "eth1")))
    whole = dataclasses.replace(PLAIN, segments=(lan,))
    rest, gone = whole.without("b"), whole.around("b")
    assert [interface.host for interface in rest.interfaces()] == ["a"]
    assert gone.hosts == (Host(name="b"),)
    assert gone.links == PLAIN.links
    assert gone.segments == (Segment(name="s", interfaces=(end("b", "eth1"),)),)
