"""Real servers with weight 0: stuck ones are told from those that drain, and healed."""

import errno
import ipaddress

from fake_node import FakeNode, wanted, web

from kproxy.backends.ipvs.render import DRAINING
from kproxy.desired.model import ServicePortName
from kproxy.kernel import inet
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationKey,
    DestinationStats,
    ServiceKey,
    SetDestination,
)

A, B, C = "10.128.0.1", "10.128.0.2", "10.128.0.3"
SERVICE = ServiceKey(inet.Protocol.TCP, ipaddress.ip_address("10.96.0.10"), 80)


def server(address: str) -> DestinationKey:
    return DestinationKey(ipaddress.ip_address(address), 8080)


def stick(node: FakeNode, *addresses: str) -> None:
    operations = [SetDestination(SERVICE, server(one), DRAINING) for one in addresses]
    assert node.ipvs.run(operations) == [None] * len(addresses)


def test_only_what_is_wanted_is_stuck_and_only_that_is_healed() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A, B, C)))
    stick(node, A, C)
    node.ipvs.connections[SERVICE, server(C)] = DestinationStats(2, 1)
    care = node.backend("ipvs")
    found = care.weights(wanted(web(A, B)))
    assert [one.server for one in found.stuck] == [server(A)]
    assert [(one.server, one.connections) for one in found.draining] == [(server(C), 3)]
    assert isinstance(found.stuck[0].owner, ServicePortName)
    assert care.heal(found.stuck) == [None]
    assert node.weights() == {
        f"{SERVICE} {A}:8080": 1,
        f"{SERVICE} {B}:8080": 1,
        f"{SERVICE} {C}:8080": 0,
    }
    assert care.weights(wanted(web(A, B))).stuck == []


def test_a_weight_that_somebody_chose_is_not_touched() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    heavy = DestinationConfig(weight=7)
    node.ipvs.run([SetDestination(SERVICE, server(A), heavy)])
    found = node.backend("ipvs").weights(wanted(web(A)))
    assert (found.stuck, found.draining) == ([], [])


def test_looking_writes_nothing_and_virtual_servers_of_others_are_not_looked_at() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A)))
    stick(node, A)
    before = len(node.ipvs.written)
    found = node.backend("ipvs").weights(wanted())
    assert (found.stuck, found.draining) == ([], [])
    assert len(node.ipvs.written) == before


def test_a_server_that_went_meanwhile_is_told() -> None:
    node = FakeNode()
    node.backend("ipvs").sync(wanted(web(A, B)))
    stick(node, A)
    care = node.backend("ipvs")
    found = care.weights(wanted(web(A, B)))
    node.backend("ipvs").sync(wanted(web(B)))
    (refused,) = care.heal(found.stuck)
    assert refused is not None
    assert refused.errno == errno.ENOENT
