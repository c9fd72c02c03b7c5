"""Random services, one packet: every mode gives it the same fate.

Left out is what kube-proxy's modes do differently, too (``test_external_flows`` has that row by
row): wrong ports, what the node itself sends where there are no endpoints, and in ipvs mode the
policy Local and the node's own source address.
"""

from collections.abc import Callable
from typing import Any

import test_external_flows as external
import test_packet_flows_nftables as nftables
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from packet_tracer import Outcome, Packet, Tracer
from test_packet_flows import CLIENT_POD, NODE, OUTSIDE, POD_LOCAL, POD_REMOTE

from kproxy.desired import topology
from kproxy.desired.model import (
    Address,
    Endpoint,
    NodePorts,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    State,
)

SOURCES = (CLIENT_POD, POD_LOCAL, OUTSIDE, external.STRANGER, NODE)
PODS = {POD_LOCAL: True, "10.128.0.7": True, "10.128.1.6": False, "10.128.1.7": False}

endpoints = st.builds(
    lambda address, port, state: Endpoint(
        address=Address(address),
        port=port,
        local=PODS[address],
        ready=state == "ready",
        serving=state != "dead",
        terminating=state != "ready",
    ),
    st.sampled_from(sorted(PODS)),
    st.sampled_from([80, 8080]),
    st.sampled_from(["ready", "ready", "ready", "terminating", "dead"]),
)
ranges = st.sampled_from(
    [(), (), (Prefix("198.51.100.0/24"),), (Prefix("10.128.0.0/9"), Prefix("192.168.1.0/24"))]
)


@st.composite
def states(draw: st.DrawFn, *, policies: bool) -> State:
    services = {}
    for number in range(1, draw(st.integers(1, 3)) + 1):
        pods = draw(st.lists(endpoints, max_size=4, unique_by=lambda one: (one.address, one.port)))
        port = ServicePort(
            name=ServicePortName("demo", f"s{number}", "p", draw(st.sampled_from(Protocol))),
            cluster_ip=Address(f"10.96.1.{number}"),
            port=80,
            node_port=30000 + number,
            external_ips=(Address(f"203.0.113.{number}"),),
            load_balancer_vips=(Address(f"192.0.2.{number}"),),
            source_ranges=draw(ranges),
            affinity_seconds=draw(st.sampled_from([None, 60])),
            external_local=policies and draw(st.booleans()),
            internal_local=policies and draw(st.booleans()),
        )
        services[port.name] = topology.categorize_endpoints(port, pods, topology.Place("node1"))
    return State(
        family=external.table.state().family,
        services=services,
        cluster_cidrs=draw(st.sampled_from([(), (Prefix("10.128.0.0/9"),)])),
        masquerade_all=draw(st.booleans()),
        node_ports=NodePorts(addresses=(Address(NODE), Address(external.SECOND))),
    )


def rows(state: State, sources: tuple[str, ...]) -> list[external.Row]:
    """Return a packet from every source to every address."""
    found = []
    for wanted in state.services.values():
        service = wanted.service
        places = [f"{service.cluster_ip}:80"]
        places += [f"{one}:80" for one in (*service.external_ips, *service.load_balancer_vips)]
        places += [f"{NODE}:{service.node_port}"]
        for source in sources:
            if source == NODE and not (wanted.cluster or wanted.local):
                continue
            for place in places:
                target = f"{service.protocol.lower()} {place}"
                found.append(external.Row(f"{source} to {target}", source, target, set()))
    return found


Trace = Callable[[external.Row], set[Outcome]]


def tracing(mode: str, state: State) -> Trace:
    """Return what traces rows through one state."""
    found: Any = nftables.tracer(state) if mode == "nftables" else None
    if found is None:
        found = Tracer(external.table.node(mode, state))

    def trace(row: external.Row) -> set[Outcome]:
        protocol, place = row.target.split()
        destination, _, port = place.rpartition(":")
        outside = row.source in (OUTSIDE, external.STRANGER)
        interface = "" if row.source == NODE else "eth0" if outside else "cali1"
        own = row.source == NODE and destination == NODE
        source = destination if own else row.source
        packet = Packet(source, protocol, destination, int(port), interface=interface)
        outcomes: set[Outcome] = found.trace(packet, from_node=row.source == NODE)
        return outcomes

    return trace


@given(state=states(policies=True))
@examples(40)
def test_nftables_and_iptables(state: State) -> None:
    one, other = tracing("nftables", state), tracing("iptables", state)
    for row in rows(state, (*SOURCES, POD_REMOTE)):
        if not _differs(state, row):
            assert one(row) == other(row), row.name


@given(state=states(policies=False))
@examples(40)
def test_nftables_and_ipvs(state: State) -> None:
    one, other = tracing("nftables", state), tracing("ipvs", state)
    for row in rows(state, SOURCES[:-1]):
        assert one(row) == other(row), row.name


def _differs(state: State, row: external.Row) -> bool:
    """Tell whether kube-proxy's modes nftables and iptables differ in this."""
    address = row.target.split()[1].rpartition(":")[0]
    for wanted in state.services.values():
        service = wanted.service
        if address == service.cluster_ip and service.internal_local and not wanted.local:
            return row.source == NODE  # who has no rule against it in iptables mode
        if address == service.cluster_ip and row.source == POD_REMOTE:
            # To itself; but its own node's proxy sees to that (nftables' README: hairpin).
            return any(one.address == POD_REMOTE for one in wanted.cluster)
        if address in service.load_balancer_vips and not (wanted.cluster or wanted.local):
            return bool(service.source_ranges)  # looked at first, or only if there are endpoints
    return False


def test_the_packets_are_not_all_refused() -> None:
    """Or the agreement would be worth nothing."""
    state = external.cluster("nftables")
    trace = tracing("nftables", state)
    ends = {one.end for row in rows(state, SOURCES) for one in trace(row)}
    assert {"refused", "dropped", f"{POD_LOCAL}:8080"} <= ends
