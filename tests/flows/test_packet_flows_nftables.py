"""What packets meet in nftables mode: the flows of the other modes, run through its table."""

from collections import Counter

import msgspec
import pytest
import test_explained_flows as explanations
import test_external_flows as external
import test_packet_flows as table
from nft_tracer import Contents, NftTracer
from packet_tracer import NODE_ADDRESSES, Outcome, Packet
from test_external_flows import (
    BOTH,
    DROPPED,
    HERE,
    LOCALHOST,
    OWN,
    PASSES,
    REFUSED,
    SECOND,
    Row,
    masqueraded,
)
from test_packet_flows import CLIENT_POD, NODE, OUTSIDE, POD_LOCAL, POD_REMOTE, at, to

from kproxy.backends.nftables.render import Renderer
from kproxy.desired import topology
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    NodePorts,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    State,
)

OTHERWISE = {
    "policy Local, none here": DROPPED,
    "none: load balancer from the node": REFUSED,
    "localhost": OWN,
    "localhost, no endpoints": OWN,
}
"""Where kube-proxy's nftables mode differs from its iptables mode (there: and from ipvs mode)."""


def tracer(wanted: State) -> NftTracer:
    renderer = Renderer()
    renderer.render(wanted)
    tables = renderer.tables
    return NftTracer(Contents(tables.sets, tables.chains, tables.elements))


def trace(row: Row, wanted: State) -> set[Outcome]:
    protocol, place = row.target.split()
    destination, _, port = place.rpartition(":")
    from_node = row.source in (NODE, LOCALHOST)
    outside = row.source in (OUTSIDE, external.STRANGER) or row.source.startswith("2001:")
    interface = "" if from_node else "eth0" if outside else "cali1"
    source = destination if from_node and destination in NODE_ADDRESSES else row.source
    packet = Packet(source, protocol, destination, int(port), interface=interface)
    return tracer(wanted).trace(packet, from_node=from_node, after=row.after)


def rows(wanted: State, *some: Row) -> None:
    """Check rows in a state of their own."""
    found = {row.name: trace(row, wanted) for row in some}
    assert found == {row.name: row.expected for row in some}


@pytest.mark.parametrize("flow", table.FLOWS, ids=lambda flow: flow.name)
def test_flow(flow: table.Flow) -> None:
    row = Row(flow.name, flow.source, f"{flow.protocol} {flow.destination}:{flow.port}", set())
    expected = OTHERWISE.get(flow.name, flow.expected)
    assert trace(row, table.state(*table.SERVICES)) == expected


@pytest.mark.parametrize("row", external.ROWS, ids=lambda row: row.name)
def test_external_flow(row: Row) -> None:
    expected = row.in_mode.get("nftables", OTHERWISE.get(row.name, row.expected))
    assert trace(row, external.cluster("nftables")) == expected


@pytest.mark.parametrize("row", external.STICKY, ids=lambda row: row.name)
def test_a_client_goes_where_it_went(row: Row) -> None:
    assert trace(row, external.cluster("nftables")) == row.expected


def test_masquerade_all_masquerades_pods_too() -> None:
    wanted = table.state(*table.SERVICES, masquerade_all=True)
    rows(wanted, Row("pod", CLIENT_POD, "tcp 10.96.0.10:80", masqueraded(*BOTH)))


def test_without_pod_network_only_hairpin_is_masqueraded() -> None:
    rows(
        table.state(*table.SERVICES, cidrs=()),
        Row("pod", CLIENT_POD, "tcp 10.96.0.10:80", to(*BOTH)),
        Row("outside", OUTSIDE, "tcp 10.96.0.10:80", to(*BOTH)),
        Row("itself", POD_LOCAL, "tcp 10.96.0.10:80", masqueraded(BOTH[0]) | to(BOTH[1])),
    )


def test_several_pod_networks() -> None:
    wanted = table.state(*table.SERVICES, cidrs=("10.200.0.0/16", "10.128.0.0/9"))
    rows(
        wanted,
        Row("pod", CLIENT_POD, "tcp 10.96.0.10:80", to(*BOTH)),
        Row("other pod", "10.200.3.4", "tcp 10.96.0.10:80", to(*BOTH)),
        Row("outside", OUTSIDE, "tcp 10.96.0.10:80", masqueraded(*BOTH)),
    )


def test_unused_service_addresses_are_dropped() -> None:
    wanted = msgspec.structs.replace(
        table.state(*table.SERVICES),
        service_cidrs=(Prefix("10.96.0.0/16"), Prefix("10.97.0.0/24")),
    )
    rows(
        wanted,
        Row("unused", CLIENT_POD, "tcp 10.96.0.99:80", DROPPED),
        Row("from the node", NODE, "udp 10.97.0.99:80", DROPPED),
        Row("outside of the ranges", CLIENT_POD, "tcp 10.97.1.99:80", PASSES),
        Row("wrong port", CLIENT_POD, "tcp 10.96.0.10:2222", REFUSED),
        Row("right port", CLIENT_POD, "tcp 10.96.0.10:80", to(*BOTH)),
    )


def test_node_ports_on_chosen_addresses_only() -> None:
    one = NodePorts(everywhere=False, addresses=(Address(NODE),))
    services = (external.SERVICES[0], external.SERVICES[3])
    rows(
        external.cluster("nftables", *services, node_ports=one),
        Row("chosen", OUTSIDE, f"tcp {NODE}:30001", masqueraded(*BOTH)),
        Row("second", OUTSIDE, f"tcp {SECOND}:30001", OWN),
        Row("no endpoints", OUTSIDE, f"tcp {NODE}:30004", REFUSED),
        Row("no endpoints, second", OUTSIDE, f"tcp {SECOND}:30004", OWN),
    )
    none = NodePorts(everywhere=False)
    rows(
        external.cluster("nftables", *services, node_ports=none),
        Row("none", OUTSIDE, f"tcp {NODE}:30001", OWN),
        Row("ClusterIP", CLIENT_POD, "tcp 10.96.1.1:80", to(*BOTH)),
    )


@pytest.mark.parametrize("interface", ["cali1", "cali+"])
def test_pods_told_by_their_interface(interface: str) -> None:
    rows(
        external.cluster(
            "nftables", *external.SERVICES[:2], cluster_cidrs=(), local_interface=interface
        ),
        Row("pod to ClusterIP", CLIENT_POD, "tcp 10.96.1.1:80", to(*BOTH)),
        Row("outside to ClusterIP", OUTSIDE, "tcp 10.96.1.1:80", masqueraded(*BOTH)),
        Row("pod to local", CLIENT_POD, "tcp 192.0.2.2:80", to(*BOTH)),
        Row("outside to local", OUTSIDE, "tcp 192.0.2.2:80", to(HERE)),
    )


def test_of_unknown_pods_external_traffic_with_policy_local_stays_here() -> None:
    rows(
        external.cluster("nftables", external.SERVICES[1], cluster_cidrs=()),
        Row("pod", CLIENT_POD, "tcp 192.0.2.2:80", to(HERE)),
        Row("node", NODE, "tcp 192.0.2.2:80", masqueraded(*BOTH)),
    )


def test_who_comes_second_keeps_what_is_its_own() -> None:
    other = external.published(20, "z", at(POD_REMOTE, 9090))
    port = msgspec.structs.replace(
        other.service, node_port=30001, external_ips=external.SERVICES[0].service.external_ips
    )
    second = msgspec.structs.replace(other, service=port)
    wanted = external.cluster("nftables", external.SERVICES[0], second)
    rows(
        wanted,
        Row("node port", OUTSIDE, f"tcp {NODE}:30001", masqueraded(*BOTH)),
        Row("external IP", OUTSIDE, "tcp 203.0.113.1:80", masqueraded(*BOTH)),
        Row("its load balancer", OUTSIDE, "tcp 192.0.2.20:80", masqueraded(f"{POD_REMOTE}:9090")),
        Row("its ClusterIP", CLIENT_POD, "tcp 10.96.1.20:80", to(f"{POD_REMOTE}:9090")),
    )
    renderer = Renderer()
    renderer.render(wanted)
    assert [problem.field for problem in renderer.invalid] == [
        "spec.externalIPs",
        "spec.ports['p'].nodePort",
    ]


def test_a_load_balancers_own_address_is_admitted_where_the_node_is() -> None:
    """What the node sends to an address of its own has that very address as its source."""
    ranges = (Prefix("192.168.1.0/24"),)
    one = external.published(1, "ranges", *external.EVERYWHERE, source_ranges=ranges)
    rows(
        external.cluster("nftables", one),
        Row("from the address itself", "192.0.2.1", "tcp 192.0.2.1:80", masqueraded(*BOTH)),
        Row("from elsewhere", OUTSIDE, "tcp 192.0.2.1:80", DROPPED),
    )


def test_picks_are_even_also_for_new_clients_with_affinity() -> None:
    """Five endpoints have five equal shares; no client is remembered yet."""
    pods = [at(f"10.128.1.{n}", 8080) for n in range(10, 15)]
    one = external.published(1, "sticky", *pods, affinity_seconds=60)
    renderer = Renderer()
    renderer.render(external.cluster("nftables", one))
    chain = renderer.tables.chains["sticky-tcp-10.96.1.1-80"]
    left, shares = 1.0, Counter[int]()
    for number, rule in enumerate(chain.rules[5:10]):
        modulus = next((one.modulus for one in rule if hasattr(one, "modulus")), 1)
        shares[number] = left / modulus
        left -= left / modulus
    assert list(shares.values()) == pytest.approx([0.2] * 5)


def test_ipv6() -> None:
    pods = [
        Endpoint(address=Address(f"fd00:10:128::{n}"), port=8080, local=n == 5) for n in (5, 6)
    ]
    port = ServicePort(
        name=ServicePortName("demo", "six", "p", Protocol.TCP),
        cluster_ip=Address("fd00:10:96::a"),
        port=80,
        node_port=30001,
        external_ips=(Address("2001:db8::1"),),
        load_balancer_vips=(Address("2001:db8:1::1"),),
        source_ranges=(Prefix("2001:db8:9::/64"),),
        external_local=True,
        affinity_seconds=60,
    )
    plain = msgspec.structs.replace(
        port,
        name=ServicePortName("demo", "plain", "p", Protocol.TCP),
        cluster_ip=Address("fd00:10:96::b"),
        node_port=30002,
        external_ips=(),
        load_balancer_vips=(),
        external_local=False,
        affinity_seconds=None,
    )
    some = [
        topology.categorize_endpoints(one, pods, topology.Place("node1")) for one in (port, plain)
    ]
    wanted = State(
        family=Family.IPV6,
        services={one.service.name: one for one in some},
        cluster_cidrs=(Prefix("fd00:10:128::/48"),),
        service_cidrs=(Prefix("fd00:10:96::/112"),),
    )
    here, everywhere = "[fd00:10:128::5]:8080", ("[fd00:10:128::5]:8080", "[fd00:10:128::6]:8080")
    outside, pod = "2001:db8:9::7", "fd00:10:128::99"
    rows(
        wanted,
        Row("ClusterIP", pod, "tcp fd00:10:96::a:80", to(*everywhere)),
        Row("node port", outside, "tcp fd00:1::1:30001", to(here)),
        Row("node port, policy Cluster", outside, "tcp fd00:1::1:30002", masqueraded(*everywhere)),
        Row("loopback", "::1", "tcp ::1:30002", OWN),
        Row("load balancer", outside, "tcp 2001:db8:1::1:80", to(here)),
        Row("outside its ranges", "2001:db8:8::7", "tcp 2001:db8:1::1:80", DROPPED),
        Row("pod to external IP", pod, "tcp 2001:db8::1:80", to(*everywhere)),
        Row("affinity", outside, "tcp fd00:1::1:30001", to(here), after=here),
        Row("itself", "fd00:10:128::5", "tcp fd00:10:96::b:80",
            masqueraded(everywhere[0]) | to(everywhere[1])),
        Row("wrong port", pod, "tcp fd00:10:96::b:81", REFUSED),
        Row("unused address", pod, "tcp fd00:10:96::c:80", DROPPED),
    )  # fmt: skip


@pytest.mark.parametrize("name", explanations.STATES)
def test_explanations_say_what_the_table_does(name: str) -> None:
    wanted = explanations.STATES[name]
    walk = tracer(wanted)
    wrong = {}
    for address, port in sorted(explanations.targets(wanted)):
        for source in explanations.SOURCES:
            flow = table.Flow("", source, "tcp", address, port, set())
            own = source == NODE and address in NODE_ADDRESSES
            packet = Packet(address if own else source, "tcp", address, port)
            found = walk.trace(packet, from_node=source == NODE)
            said = explanations.explained("nftables", wanted, flow)
            if found != said:
                wrong[f"{source} → {address}:{port}"] = (found, said)
    assert wrong == {}
