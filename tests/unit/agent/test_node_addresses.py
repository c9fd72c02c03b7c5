"""Where node ports are served, by configuration, addresses and Node object."""

from typing import Any

import pytest

from kproxy.agent.nodeaddresses import pod_networks, policy
from kproxy.api.config import KubeProxyConfiguration, with_defaults
from kproxy.api.core import Node, NodeAddress, NodeSpec, NodeStatus
from kproxy.api.meta import ObjectMeta
from kproxy.desired.model import Address, Family, NodePorts
from kproxy.errors import UsageError

OWN = ("192.168.1.1", "10.20.0.1")
OWN6 = ("fd00::9", "fd00::1")


def node(*internal: str, **spec: Any) -> Node:
    named = [NodeAddress(type="Hostname", address="n")]
    named += [NodeAddress(type="InternalIP", address=address) for address in internal]
    return Node(
        metadata=ObjectMeta(name="n"), spec=NodeSpec(**spec), status=NodeStatus(addresses=named)
    )


def served(
    mode: str,
    *wanted: str,
    family: Family = Family.IPV4,
    own: tuple[str, ...] = OWN,
    known: Node | None = None,
    **fields: Any,
) -> NodePorts:
    config = KubeProxyConfiguration(mode=mode, node_port_addresses=list(wanted) or None, **fields)
    return policy(with_defaults(config), family).node_ports(own, known)


@pytest.mark.parametrize("mode", ["ipvs", "iptables"])
def test_without_a_word_node_ports_are_everywhere(mode: str) -> None:
    found = served(mode)
    assert found.everywhere
    assert found.addresses == ("10.20.0.1", "192.168.1.1")
    assert found.localhost is (mode == "iptables")


def test_in_nftables_mode_they_are_on_the_primary_address() -> None:
    known = node("fd00::1", "10.20.0.1")
    four = NodePorts(everywhere=False, addresses=(Address("10.20.0.1"),))
    assert served("nftables", known=known) == four
    six = served("nftables", known=known, family=Family.IPV6, own=OWN6)
    assert six.addresses == ("fd00::1",)


def test_a_node_that_names_no_address_has_its_first_one() -> None:
    assert served("nftables", known=node()).addresses == ("192.168.1.1",)
    assert served("nftables", known=None).addresses == ("192.168.1.1",)
    assert served("nftables", known=node(), own=()).addresses == ()


def test_who_is_told_the_nodes_address_does_not_ask() -> None:
    known = node("10.20.0.1")
    for given, expected in (("10.9.9.9", "10.9.9.9"), ("0.0.0.0", "10.20.0.1")):
        found = served("nftables", known=known, node_ip_override=["fd00::5", given])
        assert found.addresses == (expected,)


def test_networks_choose_among_the_addresses() -> None:
    found = served("iptables", "192.168.0.0/16", "fd00::/64")
    assert (found.everywhere, found.addresses, found.localhost) == (False, OWN[:1], False)
    assert served("ipvs", "198.51.100.0/24").addresses == ()


def test_the_whole_world_and_networks_of_the_other_family_are_everywhere() -> None:
    for networks in (["192.168.0.0/16", "0.0.0.0/0"], ["fd00::/64"]):
        assert served("ipvs", *networks).everywhere


def test_on_localhost_only_in_iptables_mode_if_its_network_is_meant() -> None:
    assert served("iptables", "127.0.0.0/8").localhost
    assert served("iptables", "0.0.0.0/0").localhost
    assert not served("iptables", "10.0.0.0/8").localhost
    assert not served("iptables", "primary", known=node("10.20.0.1")).localhost
    assert not served("iptables", family=Family.IPV6, own=OWN6).localhost
    assert not served("ipvs", "127.0.0.0/8").localhost


def test_what_is_no_network_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.1"):
        served("iptables", "10.0.0.1")


def test_networks_of_a_nodes_pods() -> None:
    assert pod_networks(None) == {}
    assert pod_networks(node()) == {}
    assert pod_networks(node(pod_cidr="10.1.0.0/24")) == {Family.IPV4: ("10.1.0.0/24",)}
    both = node(pod_cidr="10.1.0.0/24", pod_cidrs=["10.1.0.0/24", "fd00:1::/64", "?"])
    assert pod_networks(both) == {Family.IPV4: ("10.1.0.0/24",), Family.IPV6: ("fd00:1::/64",)}
