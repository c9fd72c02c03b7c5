"""Addresses are the same in every run and never given twice."""

import itertools
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns import addressing
from netns.errors import AddressesExhausted
from netns.topology import Host, Interface, Link, Neighbour, Route, Segment, Topology

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=15)


@given(NAMES, NAMES)
def test_a_mac_is_local_unicast_and_depends_on_the_names_only(host: str, interface: str) -> None:
    mac = addressing.mac_of(host, interface)
    assert mac == addressing.mac_of(host, interface)
    octets = [int(octet, 16) for octet in mac.split(":")]
    assert len(octets) == 6
    assert octets[0] == 2


def test_a_mac_is_the_same_in_every_run() -> None:
    assert addressing.mac_of("node1", "eth0") == "02:67:d4:cd:fd:74"


def test_names_are_not_run_together() -> None:
    assert addressing.mac_of("ab", "c") != addressing.mac_of("a", "bc")


@given(
    st.integers(min_value=0, max_value=2**32 - 1),
    st.integers(min_value=24, max_value=30),
    st.sets(st.integers(min_value=0, max_value=255)),
)
def test_a_pool_gives_each_usable_address_once(base: int, length: int, left_out: set[int]) -> None:
    network = IPv4Network((base, length), strict=False)
    reserved = {network.network_address + n for n in left_out if n < network.num_addresses}
    pool = addressing.AddressPool(network, reserved=reserved)
    usable = [each for each in network.hosts() if each not in reserved]
    assert usable == [pool.address() for _ in usable]
    with pytest.raises(AddressesExhausted, match=str(network)):
        pool.address()


def test_a_pool_gives_interface_addresses() -> None:
    pool = addressing.AddressPool(ip_network("2001:db8::/64"))
    assert pool.interface() == ip_interface("2001:db8::1/64")
    assert pool.interface(128) == ip_interface("2001:db8::2/128")


def test_subnets_are_given_once() -> None:
    pool = addressing.NetworkPool(ip_network("10.0.0.0/23"), prefixlen=24)
    assert [pool.subnet(), pool.subnet()] == list(ip_network("10.0.0.0/23").subnets())
    with pytest.raises(AddressesExhausted):
        pool.subnet()


def members(segment: str, *hosts: str, static: bool = True) -> Topology:
    return Topology(
        hosts=tuple(Host(name=host) for host in hosts),
        segments=(
            Segment(
                name=segment,
                static_neighbours=static,
                interfaces=tuple(
                    Interface(host=host, name="eth0", addresses=(ip_interface(f"192.0.2.{n}/24"),))
                    for n, host in enumerate(hosts, 1)
                ),
            ),
        ),
    )


def test_every_member_of_a_segment_knows_every_other() -> None:
    topology = addressing.with_macs(members("s", "a", "b", "c"))
    expected = {
        (
            here,
            Neighbour(
                address=ip_address(f"192.0.2.{n}"),
                mac=addressing.mac_of(there, "eth0"),
                dev="eth0",
            ),
        )
        for here, (n, there) in itertools.product("abc", enumerate("abc", 1))
        if here != there
    }
    assert expected == addressing.neighbours_of(topology)


def test_static_neighbours_can_be_declined() -> None:
    topology = addressing.with_macs(members("s", "a", "b", static=False))
    assert addressing.neighbours_of(topology) == frozenset()


def test_given_macs_are_kept() -> None:
    link = Link(
        a=Interface(host="a", name="eth0", mac="02:00:00:00:00:01"),
        b=Interface(host="b", name="eth0"),
    )
    topology = addressing.with_macs(
        Topology(hosts=(Host(name="a"), Host(name="b")), links=(link,))
    )
    assert [each.mac for each in topology.interfaces()] == [
        "02:00:00:00:00:01",
        addressing.mac_of("b", "eth0"),
    ]


def test_routes_to_gateways_come_before_routes_through_them() -> None:
    default = Route(to=ip_network("0.0.0.0/0"), via=ip_address("169.254.1.1"))
    gateway = Route(to=ip_network("169.254.1.1/32"))
    eth0 = Interface(host="a", name="eth0", routes=(gateway,))
    routes = addressing.routes_of(Host(name="a", routes=(default,)), [eth0])
    assert routes == [Route(to=gateway.to, dev="eth0"), default]
