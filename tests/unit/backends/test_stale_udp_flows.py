import errno
import ipaddress
import time
from collections.abc import Sequence

import pytest
from fake_node import FakeNode, wanted, web

from kproxy.backends.udpflows import AGAIN_S, StaleFlows
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
NOW = 1000.0


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
    assert cleaner(table).sync(state("10.1.0.1"), NOW) == (2, [])
    assert table.held == [healthy, *elsewhere]


def test_endpoints_that_still_serve_keep_their_flows_though_no_longer_chosen() -> None:
    table = Table(flow("10.1.0.1"))
    assert cleaner(table).sync(state("10.1.0.1", serving=True), NOW) == (0, [])


def test_flows_of_the_last_endpoint() -> None:
    table = Table(flow("10.1.0.1"))
    assert cleaner(table, keep_last=True).sync(state(), NOW) == (0, [])
    assert cleaner(table, keep_last=False).sync(state(), NOW) == (1, [])


def test_tcp_is_left_to_itself() -> None:
    table = Table(flow("10.1.0.2"))
    assert cleaner(table).sync(state("10.1.0.1", protocol=Protocol.TCP), NOW) == (0, [])
    assert table.listed == 0


def test_the_table_is_listed_at_the_start_and_when_udp_endpoints_change() -> None:
    table = Table()
    flows = cleaner(table)
    for want in (state("10.1.0.1"), state("10.1.0.1"), state("10.1.0.2"), state("10.1.0.2")):
        flows.sync(want, NOW)
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
    flows.sync(state("10.1.0.1"), NOW)
    swept = flows.take_swept()
    assert swept is not None
    assert swept.deleted == 1
    flows.sync(state("10.1.0.1"), NOW)
    assert flows.take_swept() is None, "nothing was looked for"


def test_a_flow_that_ended_by_itself_is_no_failure() -> None:
    table = Table(flow("10.1.0.2"))
    table.refuse = NotFound("delete", errno.ENOENT, "gone")
    flows = cleaner(table)
    assert flows.sync(state("10.1.0.1"), NOW) == (1, [])


def test_what_failed_is_tried_again() -> None:
    table = Table(flow("10.1.0.2"))
    refusal = table.refuse = KernelError("delete", errno.EPERM, "no")
    flows = cleaner(table)
    assert flows.sync(state("10.1.0.1"), NOW) == (0, [refusal])
    table.refuse = None
    assert flows.sync(state("10.1.0.1"), NOW) == (1, [])
    assert table.held == []


LATER = NOW + AGAIN_S
A, B, C = "10.1.0.1", "10.1.0.2", "10.1.0.3"


def test_a_flow_tracked_just_after_the_table_was_listed_is_found_a_moment_later() -> None:
    table = Table()
    flows = cleaner(table, keep_last=True)
    flows.sync(state(A, B), NOW)
    flows.sync(state(A), NOW)
    assert flows.take_again_in() == AGAIN_S
    healthy, straggler = flow(A), flow(B)
    table.held = [healthy, straggler]
    listed = table.listed
    assert flows.sync(state(A), LATER - 0.1) == (0, [])
    assert table.listed == listed, "not yet"
    assert flows.take_again_in() == pytest.approx(0.1)
    assert flows.sync(state(A), LATER) == (1, [])
    assert table.held == [healthy]
    assert flows.take_again_in() is None
    listed = table.listed
    flows.sync(state(A), LATER + AGAIN_S)
    assert table.listed == listed, "once is enough"


def test_nobody_looks_again_where_no_udp_endpoint_has_left() -> None:
    table = Table()
    flows = cleaner(table)
    for want in (state(A), state(A, B), state(A, B, C), state(A, B, protocol=Protocol.TCP)):
        flows.sync(want, NOW)
        assert flows.take_again_in() is None
    listed = table.listed
    flows.sync(state(A, protocol=Protocol.TCP), NOW)
    assert flows.take_again_in() is None
    flows.sync(state(A, protocol=Protocol.TCP), LATER)
    assert table.listed == listed


def test_flows_of_an_endpoint_that_came_back_meanwhile_are_kept() -> None:
    back = flow(B)
    table = Table()
    flows = cleaner(table)
    flows.sync(state(A, B), NOW)
    flows.sync(state(A), NOW)
    table.held = [back]
    assert flows.sync(state(A, B), NOW + 0.5) == (0, [])
    assert flows.sync(state(A, B), LATER) == (0, [])
    assert table.held == [back]


def test_where_the_last_endpoint_has_left_it_is_looked_at_again_only_where_flows_end() -> None:
    for keep_last in (True, False):
        table = Table()
        flows = cleaner(table, keep_last=keep_last)
        flows.sync(state(A), NOW)
        flows.sync(state(), NOW)
        assert (flows.take_again_in() is None) == keep_last
        table.held = [flow(A)]
        assert flows.sync(state(), LATER) == (0 if keep_last else 1, [])


def test_a_service_that_vanished_is_nobodys_business_a_moment_later() -> None:
    table = Table()
    flows = cleaner(table)
    flows.sync(state(A), NOW)
    flows.sync(State(family=Family.IPV4, services={}), NOW)
    assert flows.take_again_in() is None


def test_who_starts_looks_again_where_there_were_stale_flows() -> None:
    table = Table(flow(B))
    flows = cleaner(table)
    assert flows.sync(state(A), NOW) == (1, [])
    assert flows.take_again_in() == AGAIN_S
    table.held = [flow(B)]
    assert flows.sync(state(A), LATER) == (1, [])
    assert flows.take_again_in() is None, "somebody else makes them, over and over"


def test_each_endpoint_that_leaves_has_its_own_second_look() -> None:
    table = Table()
    flows = cleaner(table)
    flows.sync(state(A, B, C), NOW)
    flows.sync(state(A, B), NOW)
    flows.sync(state(A), NOW + 0.5)
    assert flows.take_again_in() == AGAIN_S, "the place is the same: from its newest look on"
    table.held = [flow(B), flow(C)]
    assert flows.sync(state(A), NOW + 1.5) == (2, [])


def test_a_second_look_that_fails_is_made_again() -> None:
    table = Table()
    flows = cleaner(table)
    flows.sync(state(A, B), NOW)
    flows.sync(state(A), NOW)
    table.held = [flow(B)]
    refusal = table.refuse = KernelError("delete", errno.EPERM, "no")
    assert flows.sync(state(A), LATER) == (0, [refusal])
    assert flows.take_again_in() is None, "failures are tried again by themselves"
    table.refuse = None
    assert flows.sync(state(A), LATER) == (1, [])


@pytest.mark.parametrize("mode", ["ipvs", "iptables", "nftables"])
def test_every_mode_asks_for_the_second_look(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode()
    backend = node.backend(mode)
    before = wanted(web(A, B, protocol=Protocol.UDP, ip=VIP, port=53))
    assert backend.sync(before).flows_again_in is None
    after = wanted(web(A, protocol=Protocol.UDP, ip=VIP, port=53))
    assert backend.sync(after).flows_again_in == AGAIN_S
    node.conntrack.table = [flow(A, 8080), flow(B, 8080)._replace(source_port=4445)]
    ahead = time.monotonic() + AGAIN_S
    monkeypatch.setattr(time, "monotonic", lambda: ahead)
    result = backend.sync(after)
    assert (result.writes, result.swept.deleted, result.flows_again_in) == (1, 1, None)
    assert node.conntrack.table == [flow(A, 8080)]


def test_what_a_sync_would_delete_can_be_found_without_deleting_it() -> None:
    healthy, gone = flow("10.1.0.1"), flow("10.1.0.2")
    table = Table(healthy, gone)
    assert cleaner(table).find(state("10.1.0.1")) == [gone]
    assert table.held == [healthy, gone]
    assert cleaner(table, keep_last=True).find(state()) == []
    assert cleaner(table).find(state()) == [healthy, gone]
