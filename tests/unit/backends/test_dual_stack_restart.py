"""What becomes of the second IP family when a proxy restarts."""

import pytest
from fake_node import FakeNode

from kproxy.api import core, discovery
from kproxy.api.meta import ObjectMeta
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family
from kproxy.proxier import DualStack, Proxier

modes = pytest.mark.parametrize("mode", ["ipvs", "iptables"])


def service(name: str, ip: str) -> core.Service:
    return core.Service(
        metadata=ObjectMeta(namespace="demo", name=name),
        spec=core.ServiceSpec(cluster_ip=ip, ports=[core.ServicePort(port=80)]),
    )


def endpoints(name: str, address: str) -> discovery.EndpointSlice:
    labels = {discovery.SERVICE_NAME_LABEL: name}
    return discovery.EndpointSlice(
        metadata=ObjectMeta(namespace="demo", name=f"{name}-1", labels=labels),
        address_type="IPv6" if ":" in address else "IPv4",
        endpoints=[discovery.Endpoint(addresses=[address])],
        ports=[discovery.EndpointPort(name="", port=8080)],
    )


def started(node: FakeNode, mode: str, *ips: str) -> DualStack:
    """Start a proxy on a node, with a service at each of these addresses, and sync once."""
    both = DualStack(
        [
            Proxier(
                NodeSettings(family=family, node="n"),
                lambda family: node.backend(mode, family=family),
            )
            for family in Family
        ]
    )
    for ip in ips:
        six = ":" in ip
        both.on_services([(None, service(f"web{4 + 2 * six}", ip))])
        both.on_slices([(None, endpoints(f"web{4 + 2 * six}", "fd01::1" if six else "10.1.0.1"))])
    assert not any(report.failed for report in both.sync())
    return both


@modes
def test_services_of_the_second_family_that_vanished_meanwhile_leave_the_kernel(mode: str) -> None:
    node = FakeNode()
    started(node, mode, "10.96.0.1", "fd00::1")
    assert "fd00::1" in str(node.contents())
    both = started(node, mode, "10.96.0.1")
    assert both.find_left_over()
    reports = both.sync()
    assert [report.family for report in reports] == [Family.IPV4, Family.IPV6]
    assert reports[1].result.writes > 0
    assert "fd00::1" not in str(node.contents())
    assert "10.1.0.1" in str(node.contents())
    assert not both.find_left_over(), "it is in use already"


@modes
def test_a_node_forwards_a_family_only_when_it_has_services_of_it(mode: str) -> None:
    """A node that forwards IPv6 no longer listens to router advertisements."""
    node = FakeNode()
    key = "net/ipv6/conf/all/forwarding"
    started(node, mode, "10.96.0.1", "fd00::1")
    assert node.sysctl.values[key] == "1"
    node.sysctl.values[key] = "0"
    both = started(node, mode, "10.96.0.1")
    assert both.find_left_over()
    both.sync()
    assert node.sysctl.values[key] == "0"
    assert node.sysctl.values["net/ipv4/ip_forward"] == "1"


@modes
def test_where_nothing_was_left_the_second_family_is_not_touched(mode: str) -> None:
    node = FakeNode()
    started(node, mode, "10.96.0.1")
    before = node.contents()
    both = started(node, mode, "10.96.0.1")
    assert not both.find_left_over()
    assert [report.family for report in both.sync()] == [Family.IPV4]
    assert node.contents() == before
    assert node.ip6tables.restored == []
