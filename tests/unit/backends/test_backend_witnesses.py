"""Small promises of ipvs and iptables mode, each of which no other test would miss."""

import ipaddress

import pytest
from fake_node import FakeNode, wanted, web
from msgspec import structs

from kproxy.backends.ipvs import backend as ipvs_backend
from kproxy.desired.model import Address, Family, NodePorts, Prefix, ServiceState, State
from kproxy.kernel.ipvs.types import DestinationStats

A, B = "10.128.0.1", "10.128.0.2"
NODE = Address("192.168.1.1")
HERE = NodePorts(addresses=(NODE,))


def reached(**how: object) -> ServiceState:
    """Return a service with other ways to it than its ClusterIP."""
    one = web(A)
    return structs.replace(one, service=structs.replace(one.service, **how))


def on_node(state: State, node_ports: NodePorts) -> State:
    return structs.replace(state, node_ports=node_ports)


@pytest.mark.parametrize("gone", [wanted(), wanted(web(A))])
def test_node_ports_that_vanished_while_no_proxy_ran_leave_the_kernel(gone: State) -> None:
    node = FakeNode()
    node.backend("ipvs").sync(on_node(wanted(reached(node_port=30080)), HERE))
    assert f"tcp {NODE}:30080" in map(str, node.ipvs.dump())
    node.backend("ipvs").sync(on_node(gone, HERE))
    assert f"tcp {NODE}:30080" not in map(str, node.ipvs.dump())


def test_connections_that_came_since_a_start_read_the_kernel_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ipvs_backend, "COUNTS_VALID_S", -1.0)
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A, B)))
    backend = node.backend("ipvs")
    backend.reread()
    ((key, entry),) = node.ipvs.dump().items()
    for server in entry.destinations:
        node.ipvs.connections[key, server] = DestinationStats(1, 0)
    assert backend.sync(wanted(web(B))).again_in == 60
    assert sorted(node.weights().values()) == [0, 1]


def test_a_load_balancer_that_is_gone_keeps_the_node_out_of_nothing() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    ranges = (Prefix("203.0.113.0/24"),)
    closed = reached(load_balancer_vips=(Address("198.51.100.7"),), source_ranges=ranges)

    def kept_out() -> tuple[str, ...]:
        return node.iptables.save("filter")["filter"]["KUBE-IPVS-OUT-FILTER"].rules

    backend.sync(on_node(wanted(closed), HERE))
    assert len(kept_out()) == 1
    backend.sync(on_node(wanted(web(A)), HERE))
    assert kept_out() == ()


def test_who_source_ranges_let_in_depends_on_the_nodes_addresses() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    vip = Address("198.51.100.7")
    state = wanted(reached(load_balancer_vips=(vip,), source_ranges=(Prefix("192.168.0.0/16"),)))

    def lets_itself_in() -> bool:
        return f"-s {vip}/32" in str(node.iptables.save("nat"))

    backend.sync(on_node(state, NodePorts(addresses=(Address("10.9.9.9"),))))
    assert not lets_itself_in()
    backend.sync(on_node(state, HERE))
    assert lets_itself_in()


def test_an_external_address_that_becomes_the_nodes_own_leaves_the_device() -> None:
    """At the next full sync, where node ports are not on all addresses of the node."""
    node = FakeNode()
    external = ipaddress.ip_interface("192.0.2.9/32")
    state = wanted(reached(external_ips=(Address("192.0.2.9"),)))
    state = on_node(state, NodePorts(everywhere=False, addresses=(NODE,)))
    backend = node.backend("ipvs")
    backend.sync(state)
    assert external in node.links.addresses("kube-ipvs0")
    node.links.put("eth0", [ipaddress.ip_interface("192.0.2.9/24")])
    backend.reread()
    assert backend.sync(state).failures == ()
    assert external not in node.links.addresses("kube-ipvs0")


@pytest.mark.parametrize("mode", ["ipvs", "iptables"])
def test_a_node_without_ipv6_services_does_not_begin_to_forward_it(mode: str) -> None:
    node = FakeNode()
    backend = node.backend(mode, family=Family.IPV6)
    backend.sync(State(family=Family.IPV6, services={}))
    assert node.sysctl.values["net/ipv6/conf/all/forwarding"] == "0"
    one = web("fd00::1", ip="fd00:96::1")
    backend.sync(State(family=Family.IPV6, services={one.service.name: one}))
    assert node.sysctl.values["net/ipv6/conf/all/forwarding"] == "1"
