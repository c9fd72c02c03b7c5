import errno
import ipaddress
from collections.abc import Sequence

import pytest
from fake_node import FakeNode, wanted, web

from kproxy.backends.udpflows import StaleFlows
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import Flow

VIP = "10.96.0.10"


def flow(endpoint: str, port: int = 5353, *, vip: str = VIP, vip_port: int = 53) -> Flow:
    pod, source = ipaddress.ip_address(endpoint), ipaddress.ip_address("10.0.0.9")
    to = ipaddress.ip_address(vip)
    return Flow(inet.Protocol.UDP, source, 4444, to, vip_port, pod, port, source, 4444)


class Table:
    """A connection tracking table of flows that the kernel may refuse to delete."""

    def __init__(self, *flows: Flow) -> None:
        self.held = list(flows)
        self.listed = 0
        self.refuse: KernelError | None = None

    def supported(self) -> str | None:
        return None

    def flows(
        self, family: inet.Family, protocol: inet.Protocol = inet.Protocol.UDP
    ) -> list[Flow]:
        self.listed += 1
        return [one for one in self.held if one.protocol == protocol]

    def delete(self, flows: Sequence[Flow]) -> list[KernelError | None]:
        if self.refuse is None:
            self.held = [one for one in self.held if one not in flows]
        return [self.refuse for _ in flows]

    def close(self) -> None:
        pass


def state(*addresses: str, protocol: Protocol = Protocol.UDP, serving: bool = True) -> State:
    name = ServicePortName("demo", "dns", "dns", protocol)
    endpoints = tuple(
        Endpoint(address=Address(address), port=5353, serving=serving) for address in addresses
    )
    service = ServiceState(
        service=ServicePort(name=name, cluster_ip=Address(VIP), port=53),
        known=endpoints,
    )
    return State(family=Family.IPV4, services={name: service})


def cleaner(table: Table, *, keep_last: bool = False) -> StaleFlows:
    return StaleFlows(table, inet.Family.IPV4, keep_last=keep_last)


def test_only_flows_of_ours_to_endpoints_that_are_gone_are_deleted() -> None:
    healthy, gone = flow("10.1.0.1"), flow("10.1.0.2")
    untranslated = flow(VIP, 53)  # began before the service was programmed
    elsewhere = [flow("10.1.0.2", vip="10.96.0.99"), flow("10.1.0.2", vip_port=54)]
    table = Table(healthy, gone, untranslated, *elsewhere)
    assert cleaner(table).sync(state("10.1.0.1")) == (2, [])
    assert table.held == [healthy, *elsewhere]


def test_endpoints_that_still_serve_keep_their_flows_though_no_longer_chosen() -> None:
    table = Table(flow("10.1.0.1"))
    assert cleaner(table).sync(state("10.1.0.1", serving=True)) == (0, [])


def test_flows_of_the_last_endpoint() -> None:
    table = Table(flow("10.1.0.1"))
    assert cleaner(table, keep_last=True).sync(state()) == (0, [])
    assert cleaner(table, keep_last=False).sync(state()) == (1, [])


def test_tcp_is_left_to_itself() -> None:
    table = Table(flow("10.1.0.2"))
    assert cleaner(table).sync(state("10.1.0.1", protocol=Protocol.TCP)) == (0, [])
    assert table.listed == 0


def test_the_table_is_listed_at_the_start_and_when_udp_endpoints_change() -> None:
    table = Table()
    flows = cleaner(table)
    for want in (state("10.1.0.1"), state("10.1.0.1"), state("10.1.0.2"), state("10.1.0.2")):
        flows.sync(want)
    assert table.listed == 2


@pytest.mark.parametrize("mode", ["ipvs", "iptables"])
def test_a_full_sync_looks_for_flows_that_somebody_elses_rules_misled(mode: str) -> None:
    node = FakeNode()
    backend = node.backend(mode)
    want = wanted(web("10.1.0.1", protocol=Protocol.UDP, ip=VIP, port=53))
    backend.sync(want)
    misled = flow("10.9.9.9", 8080)
    node.conntrack.table.append(misled)
    assert backend.sync(want).writes == 0
    backend.reread()
    assert backend.sync(want).writes == 1
    assert node.conntrack.table == []


def test_what_was_swept_is_told_once() -> None:
    flows = cleaner(Table(flow("10.1.0.2")))
    assert flows.take_swept() is None
    flows.sync(state("10.1.0.1"))
    swept = flows.take_swept()
    assert swept is not None
    assert swept.deleted == 1
    flows.sync(state("10.1.0.1"))
    assert flows.take_swept() is None, "nothing was looked for"


def test_a_flow_that_ended_by_itself_is_no_failure() -> None:
    table = Table(flow("10.1.0.2"))
    table.refuse = NotFound("delete", errno.ENOENT, "gone")
    flows = cleaner(table)
    assert flows.sync(state("10.1.0.1")) == (1, [])


def test_what_failed_is_tried_again() -> None:
    table = Table(flow("10.1.0.2"))
    refusal = table.refuse = KernelError("delete", errno.EPERM, "no")
    flows = cleaner(table)
    assert flows.sync(state("10.1.0.1")) == (0, [refusal])
    table.refuse = None
    assert flows.sync(state("10.1.0.1")) == (1, [])
    assert table.held == []
