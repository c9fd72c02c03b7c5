"""The cluster's layout: addresses do not clash, every pod's traffic passes its node."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from kproxy import errors
from kproxy.lab import plan


@pytest.mark.parametrize("nodes", [2, 3, plan.MAX_NODES])
def test_topology_is_valid_and_addresses_are_distinct(nodes: int) -> None:
    the_plan = plan.Plan(nodes=nodes)
    topology = plan.topology(the_plan)
    topology.validate()
    addresses = [
        address.ip
        for interface in topology.interfaces()
        for address in interface.addresses
        if address.ip != plan.GATEWAY  # the same on every node's side of a pod's cable, on purpose
    ]
    assert len(addresses) == len(set(addresses))


@pytest.mark.parametrize("nodes", [0, 1, plan.MAX_NODES + 1])
def test_a_lab_needs_a_hit_node_and_another(nodes: int) -> None:
    with pytest.raises(errors.UsageError, match="--nodes"):
        plan.Plan(nodes=nodes)


def test_pods_of_a_node_are_in_its_range_and_in_the_cluster() -> None:
    node = plan.Plan().node("node2")
    assert node.pod_cidr == IPv4Network("10.244.2.0/24")
    assert node.client_address in node.pod_cidr
    assert node.pod_cidr.subnet_of(plan.CLUSTER_CIDR)


def test_each_node_knows_the_way_to_the_pods_of_the_others() -> None:
    the_plan = plan.Plan(nodes=3)
    hosts = {host.name: host for host in plan.topology(the_plan).hosts}
    ways = {route.to: route.via for route in hosts["node1"].routes}
    assert ways == {
        IPv4Network("10.244.2.0/24"): IPv4Address("192.168.50.12"),
        IPv4Network("10.244.3.0/24"): IPv4Address("192.168.50.13"),
    }


def test_a_pods_only_way_out_is_its_node() -> None:
    link = plan.pod_link("node1", "web", IPv4Address("10.244.1.7"), node_end="veth1")
    assert [route.via for route in link.b.routes] == [plan.GATEWAY]
    assert [route.to for route in link.a.routes] == [IPv4Network("10.244.1.7/32")]
