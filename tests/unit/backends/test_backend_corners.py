"""What goes wrong rarely: a device set down, writes that fail while flows run, hash seeds."""

import errno
import ipaddress
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_node import FakeNode, wanted, web
from msgspec import structs

from kproxy.backends import chaindiff
from kproxy.backends.base import Options
from kproxy.backends.chains import WantedTable
from kproxy.backends.iptables import isolate
from kproxy.backends.ipvs import rules
from kproxy.desired.model import Family, Prefix, Protocol, ServiceState, State
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.iptables.types import Chain
from kproxy.kernel.ipvs.types import ServiceKey

A, B, C = "10.128.0.1", "10.128.0.2", "10.128.0.3"
SERVICE = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("10.96.0.10"), 80)


def six(*services: ServiceState) -> State:
    """Return an IPv6 state of these services."""
    named = {one.service.name: one for one in services}
    return State(family=Family.IPV6, services=named)


def test_a_device_that_somebody_has_set_down_is_brought_up() -> None:
    """IPv6 addresses that were kept on it are all listed, but no packet reaches them."""
    node, state = FakeNode(), six(web("fd00::1", ip="fd00:96::1"))
    backend = node.backend("ipvs", family=Family.IPV6)
    backend.sync(state)
    node.links.down.add("kube-ipvs0")
    (difference,) = backend.differences(state)
    assert (difference.kind, difference.name) == ("device", "kube-ipvs0")
    assert (difference.want, difference.have) == ("up", "down")
    backend.reread()
    result = backend.sync(state)
    assert (result.writes, result.failures, node.links.down) == (1, (), set())
    assert backend.differences(state) == []
    backend.reread()
    assert backend.sync(state).writes == 0


def test_a_device_that_is_down_is_brought_up_with_what_is_new() -> None:
    node = FakeNode()
    node.backend("ipvs", family=Family.IPV6).sync(six(web("fd00::1", ip="fd00:96::1")))
    node.links.down.add("kube-ipvs0")
    node.backend("ipvs", family=Family.IPV6).sync(six(web("fd00::1", ip="fd00:96::2")))
    assert node.links.down == set()
    assert node.links.addresses("kube-ipvs0") == {ipaddress.ip_interface("fd00:96::2/128")}


def test_ipv4_alone_does_not_mind_a_device_that_is_down() -> None:
    """Nothing was lost by it: it takes no write."""
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    node.links.down.add("kube-ipvs0")
    assert node.backend("ipvs").sync(wanted(web(A))).writes == 0


def test_a_device_without_addresses_may_be_down() -> None:
    node = FakeNode()
    node.backend("ipvs", family=Family.IPV6).sync(six(web("fd00::1", ip="fd00:96::1")))
    node.backend("ipvs", family=Family.IPV6).sync(six())
    node.links.down.add("kube-ipvs0")
    assert node.backend("ipvs", family=Family.IPV6).sync(six()).writes == 0


def test_excluded_networks_are_left_alone_whether_or_not_the_kernel_was_read_anew() -> None:
    """kube-proxy never deletes a virtual service there, nor does a proxy that has just started."""
    node = FakeNode()
    backend = node.backend("ipvs", Options(exclude_cidrs=(Prefix("10.96.0.0/16"),)))
    backend.sync(wanted(web(A)))
    backend.sync(wanted())
    assert list(node.ipvs.dump()) == [SERVICE]
    # When its Service comes back it is taken over, as it is found.
    result = backend.sync(wanted(web(B)))
    assert (result.failures, list(node.weights())) == ((), [f"{SERVICE} {B}:8080"])


def flow(endpoint: str) -> Flow:
    source, to, pod = map(ipaddress.ip_address, ("10.128.3.3", "10.96.0.10", endpoint))
    port = 40000 + int(pod) % 256
    return Flow(inet.Protocol.UDP, source, port, to, 80, pod, 8080, source, port)


def test_flows_are_looked_for_again_when_an_endpoint_that_should_have_gone_stayed() -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    backend.sync(wanted(web(A, B, protocol=Protocol.UDP)))
    state = wanted(web(B, protocol=Protocol.UDP))
    node.ipvs.fail_write = {0: errno.ENOBUFS}
    assert len(backend.sync(state).failures) == 1
    # The endpoint is there still, and gets a flow.
    node.conntrack.table = [flow(A), flow(B)]
    assert backend.sync(state).failures == ()
    assert node.conntrack.table == [flow(B)]


def test_flows_are_looked_for_again_when_rules_had_to_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolate, "ATTEMPTS_MAX", 1)
    node = FakeNode()
    backend = node.backend("iptables")
    other = web(A, ip="10.96.0.11", protocol=Protocol.SCTP)
    backend.sync(wanted(web(A, B, protocol=Protocol.UDP), other))
    node.iptables.reject, node.iptables.anonymous = (C,), True
    other = web(C, ip="10.96.0.11", protocol=Protocol.SCTP)
    state = wanted(web(A, protocol=Protocol.UDP), other)
    assert len(backend.sync(state).failures) == 2
    node.conntrack.table = [flow(A), flow(B)]
    node.iptables.reject = ()
    assert backend.sync(state).failures == ()
    assert node.conntrack.table == [flow(A)]


WRITTEN = """
from fake_node import FakeNode, wanted, web
from kproxy.kernel.ipvs.types import DestinationStats
from msgspec import structs

def services(*endpoints):
    for n in range(20):
        one = web(*endpoints, ip=f"10.96.1.{n}")
        name = one.service.name._replace(name=f"s{n * 7 % 20}")
        yield structs.replace(one, service=structs.replace(one.service, name=name))

for mode in ("ipvs", "iptables"):
    node = FakeNode()
    backend = node.backend(mode)
    backend.sync(wanted(*services("10.128.0.1", "10.128.0.2")))
    for key, entry in node.ipvs.dump().items():
        for server in entry.destinations:
            node.ipvs.connections[key, server] = DestinationStats(1, 0)
    backend.sync(wanted(*services("10.128.0.2")))
    node.ipvs.connections.clear()
    backend.sync(wanted(*services("10.128.0.2")))
    backend.reread()
    backend.sync(wanted())
    print(node.ipvs.written, node.ipset.written, node.iptables.restored)
"""


def written(seed: str) -> str:
    """Return all that is written on some ways, by a process with this seed of hashes."""
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", WRITTEN], env=environment, check=True, capture_output=True
    )
    return done.stdout.decode()


def test_what_is_written_comes_in_the_same_order_whatever_the_seed_of_hashes() -> None:
    first = written("1")
    assert first.count("AddService") == 20
    assert written("2") == first
    assert written("3") == first


@pytest.mark.parametrize(("family", "cidr"), [("IPv4", "0.0.0.0/0"), ("IPv6", "::/0")])
def test_where_everybody_is_a_pod_no_rule_says_not_from_anywhere(family: str, cidr: str) -> None:
    """The nft variant refuses ``! -s 0.0.0.0/0``, and with it the whole table."""
    state = State(family=Family(family), services={}, cluster_cidrs=(Prefix(cidr),))
    known = structs.replace(state, cluster_cidrs=())
    version = inet.Family.IPV4 if family == "IPv4" else inet.Family.IPV6
    assert rules.rules(state, version) == rules.rules(known, version)


class Compared(str):
    """A rule that counts how often it is compared."""

    __slots__ = ()
    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_telling_the_difference_of_a_long_chain_is_no_quadratic_work() -> None:
    def long(start: int) -> Sequence[str]:
        return [Compared(f"-A KUBE-SERVICES --dport {n} -j ACCEPT") for n in range(start, 2000)]

    have = {"nat": {"KUBE-SERVICES": Chain(tuple(long(0)))}}
    want = {"nat": WantedTable(chains={"KUBE-SERVICES": long(1)})}
    (difference,) = chaindiff.differences(have, want)
    assert difference.have.endswith("--dport 0 -j ACCEPT")
    assert Compared.times < 20_000
