"""Of all tracked flows exactly those go whose endpoint is gone, whatever happened before."""

import ipaddress

from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from kproxy.backends.udpflows import StaleFlows
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    NodePorts,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)
from kproxy.kernel import inet
from kproxy.kernel.conntrack.fake import FakeConntrack
from kproxy.kernel.conntrack.types import Flow

CLUSTER_IPS = ("10.96.0.1", "10.96.0.2")
OUTSIDE = ("192.0.2.1", "192.0.2.2")
NODE = ("192.168.1.1", "10.20.0.1")
PODS = ("10.128.0.1", "10.128.0.2", "10.128.1.1")
PORTS = (53, 30053)

endpoints = st.lists(st.sampled_from(PODS), unique=True, max_size=3).map(
    lambda found: tuple(Endpoint(address=Address(one), port=5353) for one in sorted(found))
)
outside = st.lists(st.sampled_from(OUTSIDE), unique=True, max_size=2).map(tuple)


@st.composite
def services(draw: st.DrawFn, index: int) -> dict[ServicePortName, ServiceState]:
    if draw(st.booleans()):
        return {}
    protocol = draw(st.sampled_from([Protocol.UDP, Protocol.UDP, Protocol.TCP]))
    name = ServicePortName("demo", f"dns{index}", "", protocol)
    service = ServicePort(
        name=name,
        cluster_ip=Address(CLUSTER_IPS[index]),
        port=53,
        node_port=draw(st.sampled_from([0, 30053])),
        external_ips=draw(outside),
        load_balancer_vips=draw(outside),
    )
    return {name: ServiceState(service=service, known=draw(endpoints))}


@st.composite
def states(draw: st.DrawFn) -> State:
    addresses = tuple(
        Address(one) for one in sorted(draw(st.sets(st.sampled_from(NODE), max_size=2)))
    )
    node_ports = NodePorts(addresses=addresses, localhost=draw(st.booleans()))
    both = draw(services(0)) | draw(services(1))
    return State(family=Family.IPV4, services=both, node_ports=node_ports)


CLIENT = ipaddress.ip_address("10.9.9.9")
EVERY_FLOW = [
    Flow(
        protocol,
        CLIENT,
        4000 + number,
        ipaddress.ip_address(destination),
        port,
        ipaddress.ip_address(answering),
        5353,
        CLIENT,
        4000 + number,
    )
    for protocol in (inet.Protocol.UDP, inet.Protocol.TCP)
    for destination in (*CLUSTER_IPS, *OUTSIDE, *NODE, "127.0.0.1")
    for port in PORTS
    for number, answering in enumerate(PODS)
]


def served(state: State, flow: Flow) -> set[str] | None:
    """Return who serves where a flow was sent to, said as plainly as possible; None: nobody's."""
    found: set[str] | None = None
    for one in state.services.values():
        service = one.service
        at_port = {service.cluster_ip, *service.external_ips, *service.load_balancer_vips}
        at_node = set(state.node_ports.addresses)
        if state.node_ports.localhost:
            at_node.add(Address("127.0.0.1"))
        to = str(flow.destination)
        meant = (to in at_port and flow.destination_port == 53) or (
            service.node_port == flow.destination_port and to in at_node
        )
        if service.protocol is Protocol.UDP and meant:
            found = (found or set()) | {endpoint.address for endpoint in one.known}
    return found


def stale(state: State, flow: Flow, *, keep_last: bool) -> bool:
    known = served(state, flow)
    if flow.protocol is not inet.Protocol.UDP or known is None or (keep_last and not known):
        return False
    return str(flow.reply_source) not in known


@examples(80)
@given(st.lists(states(), min_size=1, max_size=4), st.booleans(), st.data())
def test_after_any_changes_exactly_the_stale_flows_are_gone(
    ways: list[State], keep_last: bool, data: st.DataObject
) -> None:
    table = FakeConntrack()
    flows = StaleFlows(table, inet.Family.IPV4, keep_last=keep_last)
    for state in ways:
        # What is tracked anew follows the rules of the sync before; what they do not translate
        # belongs to somebody else.
        table.table = list(EVERY_FLOW)
        flows.forget()
        if data.draw(st.booleans(), label="one fails"):
            table.fail_delete = {0: 5}
            flows.sync(state, 0.0)
            table.fail_delete = {}
        assert flows.sync(state, 0.0)[1] == []
        kept = [flow for flow in EVERY_FLOW if not stale(state, flow, keep_last=keep_last)]
        assert table.table == kept


@examples(80)
@given(st.lists(states(), min_size=2, max_size=5), st.booleans())
def test_a_restart_cuts_no_flow_that_a_running_proxy_would_have_kept(
    ways: list[State], keep_last: bool
) -> None:
    def ended(*, restarting: bool) -> list[Flow]:
        table = FakeConntrack(EVERY_FLOW)
        flows = StaleFlows(table, inet.Family.IPV4, keep_last=keep_last)
        for state in ways:
            if restarting:
                flows = StaleFlows(table, inet.Family.IPV4, keep_last=keep_last)
            flows.sync(state, 0.0)
        return table.table

    running, restarted = ended(restarting=False), ended(restarting=True)
    assert restarted == running
    assert [flow for flow in restarted if stale(ways[-1], flow, keep_last=keep_last)] == []
