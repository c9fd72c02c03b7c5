import errno
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest
from fake_node import FakeNode, wanted, web

from kproxy.backends.base import Options
from kproxy.backends.ipvs import backend as ipvs_backend
from kproxy.desired.model import Prefix, Protocol
from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.ipset.types import CreateSet, SetSpec, SetType
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DelService,
    DestinationConfig,
    DestinationKey,
    DestinationStats,
    ServiceConfig,
    ServiceKey,
    Timeouts,
)

A, B = "10.128.0.1", "10.128.0.2"
SERVICE = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("10.96.0.10"), 80)


def server(address: str) -> DestinationKey:
    return DestinationKey(ipaddress.ip_address(address), 8080)


def connections(node: FakeNode, address: str, active: int, inactive: int = 0) -> None:
    node.ipvs.connections[SERVICE, server(address)] = DestinationStats(active, inactive)


def name(address: str, protocol: str = "tcp") -> str:
    return f"{protocol} 10.96.0.10:80 {address}:8080"


@pytest.mark.parametrize(("active", "inactive"), [(1, 0), (0, 1)])
def test_an_endpoint_with_connections_drains(active: int, inactive: int) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A, B)))
    connections(node, A, active, inactive)
    result = backend.sync(wanted(web(B)))
    assert node.weights() == {name(A): 0, name(B): 1}
    assert (result.writes, result.again_in) == (1, 60)
    # Looked at again: still busy, nothing to write; then free, and gone.
    again = backend.sync(wanted(web(B)))
    assert (again.writes, again.again_in) == (0, 60)
    connections(node, A, 0)
    last = backend.sync(wanted(web(B)))
    assert (last.writes, last.again_in) == (1, None)
    assert node.weights() == {name(B): 1}


def test_an_endpoint_without_connections_goes_at_once() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A, B)))
    assert backend.sync(wanted(web(B))).again_in is None
    assert node.weights() == {name(B): 1}


def test_connections_that_came_since_the_table_was_read_count() -> None:
    """Between syncs the backend trusts what it wrote, but never for this decision."""
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A, B)))
    backend.sync(wanted(web(A, B, "10.128.0.3")))
    connections(node, A, 1)
    backend.sync(wanted(web(B, "10.128.0.3")))
    assert node.weights()[name(A)] == 0


@pytest.mark.parametrize("mode", ["ipvs", "iptables"])
def test_a_switch_that_cannot_be_written_is_no_failure(mode: str) -> None:
    node = FakeNode()
    del node.sysctl.values["net/ipv4/ip_forward"]
    backend = node.backend(mode)
    for _ in range(2):
        result = backend.sync(wanted(web(A)))
        assert result.failures == ()
        assert [error.operation for error in result.refused] == ["read sysctl net/ipv4/ip_forward"]
    node.sysctl.values["net/ipv4/ip_forward"] = "0"
    backend.reread()
    assert backend.sync(wanted(web(A))).refused == ()
    assert node.sysctl.values["net/ipv4/ip_forward"] == "1"


def test_udp_endpoints_go_at_once() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A, B, protocol=Protocol.UDP)))
    key = ServiceKey(inet.Protocol.UDP, SERVICE.address, 80)
    node.ipvs.connections[key, server(A)] = DestinationStats(0, 5)
    backend.sync(wanted(web(B, protocol=Protocol.UDP)))
    assert node.weights() == {name(B, "udp"): 1}


def test_a_weight_of_zero_left_by_a_dead_proxy_heals() -> None:
    """kubernetes/kubernetes#92019: an endpoint that flaps while the proxy is down."""
    node = FakeNode()
    first = node.backend("ipvs")
    first.sync(wanted(web(A, B)))
    connections(node, A, 1)
    first.sync(wanted(web(B)))
    assert node.weights()[name(A)] == 0
    result = node.backend("ipvs").sync(wanted(web(A, B)))
    assert node.weights() == {name(A): 1, name(B): 1}
    assert result.writes == 1


def test_draining_goes_on_after_a_restart() -> None:
    node = FakeNode()
    first = node.backend("ipvs")
    first.sync(wanted(web(A, B)))
    connections(node, A, 1)
    first.sync(wanted(web(B)))
    result = node.backend("ipvs").sync(wanted(web(B)))
    assert (result.writes, result.again_in) == (0, 60)


def test_a_service_that_is_gone_goes_with_its_connections() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A)))
    connections(node, A, 1)
    assert backend.sync(wanted()).again_in is None
    contents = node.contents()
    assert (contents["ipvs"], contents["addresses"]) == ({}, frozenset())


def test_addresses_are_bound_with_the_longest_prefix() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    assert node.contents()["addresses"] == {ipaddress.ip_interface("10.96.0.10/32")}


def test_virtual_services_of_others_are_left_alone() -> None:
    """What is neither on our device nor in our set is somebody else's: keepalived, for example."""
    node = FakeNode()
    other = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("192.0.2.1"), 80)
    node.ipvs.run([
        AddService(other, ServiceConfig(scheduler="sh")),
        AddDestination(other, server(A), DestinationConfig(weight=7)),
    ])  # fmt: skip
    before = node.ipvs.dump()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A)))
    backend.sync(wanted())
    backend.cleanup()
    assert node.ipvs.dump() == before


def test_excluded_networks_are_left_alone_even_on_our_device() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    options = Options(exclude_cidrs=(Prefix("10.96.0.0/16"),))
    node.backend("ipvs", options).sync(wanted())
    assert list(node.ipvs.dump()) == [SERVICE]


def test_a_service_of_ours_is_known_by_the_set_alone() -> None:
    """A proxy that died before it had bound the address must not leave its service for ever."""
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    node.links.remove_addresses("kube-ipvs0", [ipaddress.ip_interface("10.96.0.10/32")])
    node.backend("ipvs").sync(wanted())
    assert node.ipvs.dump() == {}


def test_the_order_of_adding_and_removing() -> None:
    """No moment at which a packet could reach a port of the node itself."""
    node = FakeNode()
    seen: list[str] = []
    for name, client, calls in (
        ("set", node.ipset, ("run",)),
        ("rules", node.iptables, ("restore",)),
        ("ipvs", node.ipvs, ("run",)),
        ("address", node.links, ("ensure_dummy", "add_addresses", "remove_addresses")),
    ):
        for call in calls:
            setattr(client, call, _noting(seen, name, getattr(client, call)))
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A)))
    assert seen == ["set", "rules", "ipvs", "address"]
    seen.clear()
    backend.sync(wanted())
    assert seen == ["set", "ipvs", "address", "set"]


def _noting(seen: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*args: Any) -> Any:
        if seen[-1:] != [name]:
            seen.append(name)
        return call(*args)

    return noting


def test_switches_of_the_kernel_are_kube_proxys() -> None:
    node = FakeNode(release=(6, 1))
    node.backend("ipvs").sync(wanted())
    values = node.sysctl.values
    for key in (
        "vs/conntrack",
        "vs/expire_nodest_conn",
        "vs/expire_quiescent_template",
        "ip_forward",
    ):
        assert values[f"net/ipv4/{key}"] == "1"
    assert values["net/ipv4/vs/conn_reuse_mode"] == "1"
    assert values["net/ipv4/conf/all/arp_ignore"] == "0"


@pytest.mark.parametrize(
    ("release", "mode"), [((4, 0), "1"), ((4, 1), "0"), ((5, 8), "0"), ((5, 9), "1")]
)
def test_conn_reuse_mode_depends_on_the_kernel(release: tuple[int, int], mode: str) -> None:
    node = FakeNode(release)
    node.backend("ipvs").sync(wanted())
    assert node.sysctl.values["net/ipv4/vs/conn_reuse_mode"] == mode


def test_options() -> None:
    node = FakeNode()
    options = Options(scheduler="wrr", strict_arp=True, tcp_timeout_s=100, udp_timeout_s=50)
    node.backend("ipvs").sync(wanted(web(A)))
    node.backend("ipvs", options).sync(wanted(web(A)))
    assert node.ipvs.dump()[SERVICE].config.scheduler == "wrr"
    assert node.ipvs.timeouts() == Timeouts(100, 120, 50)
    assert node.sysctl.values["net/ipv4/conf/all/arp_ignore"] == "1"
    assert node.sysctl.values["net/ipv4/conf/all/arp_announce"] == "2"
    assert node.weights() == {name(A): 1}


def test_one_refused_object_does_not_stop_the_others() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    bad = web("255.255.255.255", A)
    result = backend.sync(wanted(bad, web(B, protocol=Protocol.UDP)))
    assert result.failures == (), "nothing waits for what will be refused again"
    assert [error.errno for error in result.refused] == [errno.EINVAL]
    assert "255.255.255.255" in str(result.refused[0])
    assert node.weights() == {name(A): 1, name(B, "udp"): 1}
    assert backend.sync(wanted(web(A), web(B, protocol=Protocol.UDP))).refused == ()


def test_a_set_of_another_type_under_our_name_is_told() -> None:
    node = FakeNode()
    node.ipset.run([CreateSet("KUBE-CLUSTER-IP", SetSpec(SetType.HASH_NET))])
    backend = node.backend("ipvs")
    for read in (backend.reread, lambda: backend.sync(wanted(web(A)))):
        with pytest.raises(
            KernelError, match=r"KUBE-CLUSTER-IP: it is hash:net for IPv4"
        ) as caught:
            read()
        assert "ipset destroy KUBE-CLUSTER-IP" in caught.value.remedy
    assert backend.cleanup() > 0
    assert node.ipset.dump() == {}
    assert backend.sync(wanted(web(A))).failures == ()


def test_a_set_of_a_type_that_is_never_used_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    monkeypatch.setattr(node.ipset, "exists", lambda name: name == "KUBE-LOOP-BACK")
    with pytest.raises(KernelError, match="KUBE-LOOP-BACK"):
        node.backend("ipvs").sync(wanted(web(A)))


def test_a_set_of_another_size_is_adopted() -> None:
    node = FakeNode()
    small = SetSpec(SetType.HASH_IP_PORT, inet.Family.IPV4, 65536)
    node.ipset.run([CreateSet("KUBE-CLUSTER-IP", small)])
    assert node.backend("ipvs").sync(wanted(web(A))).failures == ()


def test_unsupported_kernels_are_told() -> None:
    node = FakeNode()
    assert node.backend("ipvs").supported() is None
    node.ipset.unsupported = "no sets here"
    assert node.backend("ipvs").supported() == "no sets here"


def test_cleanup_tells_what_it_could_not_remove() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    node.ipvs.fail_write = {0: 16}
    with pytest.raises(KernelError, match=r"10\.96\.0\.10"):
        node.backend("ipvs").cleanup()
    assert node.backend("ipvs").cleanup() > 0
    assert DelService(SERVICE) in node.ipvs.written
    assert node.ipvs.dump() == {}


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-18-amd64", (6, 1)), ("6.18", (6, 18)), ("5.10+deb", (5, 10)), ("4.19.0", (4, 19))],
)
def test_kernel_versions(release: str, expected: tuple[int, int]) -> None:
    assert ipvs_backend._release(release) == expected


def test_time_outs_that_are_right_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    options = Options(tcp_timeout_s=100)
    assert node.backend("ipvs", options).sync(wanted()).writes > 0
    monkeypatch.setattr(node.ipvs, "set_timeouts", None)
    result = node.backend("ipvs", options).sync(wanted())
    assert (result.writes, result.refused) == (0, ())
