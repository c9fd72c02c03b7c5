"""What packets to node ports, external and load balancer addresses meet: one table for all modes.

Where modes differ, kube-proxy's do so, too, in the same way.
"""

from dataclasses import dataclass, field

import msgspec
import pytest
import test_packet_flows as table
from packet_tracer import Node, Outcome, Packet, Tracer
from test_packet_flows import CLIENT_POD, NODE, OUTSIDE, POD_LOCAL, POD_REMOTE, at, to

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
    ServiceState,
    State,
)

MODES = ("iptables", "ipvs")
SECOND = "10.20.0.1"
"""Another address of the node."""
STRANGER = "203.0.113.99"
"""An outside address that no source range has."""
LOCALHOST = "127.0.0.1"

HERE, THERE = f"{POD_LOCAL}:8080", f"{POD_REMOTE}:8080"
BOTH = (HERE, THERE)


def published(
    number: int,
    name: str,
    *endpoints: Endpoint,
    protocol: Protocol = Protocol.TCP,
    **fields: object,
) -> ServiceState:
    """Return a service with every kind of address; its endpoints chosen as always."""
    port = ServicePort(
        name=ServicePortName("demo", name, "p", protocol),
        cluster_ip=Address(f"10.96.1.{number}"),
        port=80,
        node_port=30000 + number,
        external_ips=(Address(f"203.0.113.{number}"),),
        load_balancer_vips=(Address(f"192.0.2.{number}"),),
    )
    port = msgspec.structs.replace(port, **fields)
    return topology.categorize_endpoints(port, endpoints, topology.Place("node1"))


EVERYWHERE = (at(POD_LOCAL, 8080), at(POD_REMOTE, 8080))
ELSEWHERE = (at(POD_REMOTE, 8080),)
SERVICES = (
    published(1, "plain", *EVERYWHERE),
    published(2, "local", *EVERYWHERE, external_local=True, health_check_node_port=32002),
    published(3, "elsewhere", *ELSEWHERE, external_local=True, health_check_node_port=32003),
    published(4, "none"),
    published(5, "none-local", external_local=True),
    published(6, "ranges", *EVERYWHERE, source_ranges=(Prefix("198.51.100.0/24"),)),
    published(
        7,
        "ranges-local",
        *EVERYWHERE,
        external_local=True,
        source_ranges=(Prefix("198.51.100.0/24"), Prefix("10.128.0.0/9")),
    ),
    published(8, "sticky", *EVERYWHERE, affinity_seconds=60),
    published(9, "udp", *EVERYWHERE, protocol=Protocol.UDP),
    published(10, "sctp", *EVERYWHERE, protocol=Protocol.SCTP),
    published(11, "inner-local", *EVERYWHERE, internal_local=True),
    published(12, "inner-elsewhere", *ELSEWHERE, internal_local=True),
    published(13, "both-elsewhere", *ELSEWHERE, internal_local=True, external_local=True),
    published(14, "sticky-local", *EVERYWHERE, affinity_seconds=60, external_local=True),
)


def cluster(mode: str, *services: ServiceState, **fields: object) -> State:
    """Return the state of a node that serves node ports on both of its addresses."""
    node_ports = NodePorts(
        addresses=(Address(SECOND), Address(NODE)), localhost=mode == "iptables"
    )
    state = table.state(*services or SERVICES)
    return msgspec.structs.replace(state, **{"node_ports": node_ports, **fields})


@dataclass(frozen=True)
class Row:
    """A packet and its outcome; ``in_mode`` where a mode's is another."""

    name: str
    source: str
    target: str
    expected: set[Outcome]
    in_mode: dict[str, set[Outcome]] = field(default_factory=dict)
    after: str = ""
    """The endpoint that has served this client just before."""


def masqueraded(*ends: str) -> set[Outcome]:
    return to(*ends, masqueraded=True)


REFUSED, DROPPED, PASSES, OWN = to("refused"), to("dropped"), to("passes"), to("node")


def lookalikes(number: int) -> dict[str, str]:
    """Return a service's addresses from outside: they are treated alike."""
    return {
        "node port": f"tcp {NODE}:{30000 + number}",
        "external IP": f"tcp 203.0.113.{number}:80",
        "load balancer": f"tcp 192.0.2.{number}:80",
    }


def alike(number: int, source: str, expected: set[Outcome], **in_mode: set[Outcome]) -> list[Row]:
    name = SERVICES[number - 1].service.name.name
    return [
        Row(f"{name}: {kind} from {source}", source, target, expected, in_mode)
        for kind, target in lookalikes(number).items()
    ]


ROWS = [
    *alike(1, OUTSIDE, masqueraded(*BOTH)),
    *alike(1, CLIENT_POD, masqueraded(*BOTH)),
    *alike(1, NODE, masqueraded(*BOTH)),
    # Policy Local keeps the client's address; this node's own clients may go anywhere.
    *alike(2, OUTSIDE, to(HERE)),
    *alike(2, CLIENT_POD, to(*BOTH), ipvs=to(HERE)),
    *alike(2, NODE, masqueraded(*BOTH), ipvs=to(HERE)),
    # Another node's pod may be led to itself.
    *alike(2, POD_REMOTE, to(HERE) | masqueraded(THERE), ipvs=to(HERE)),
    # ipvs mode sends it on, unmasqueraded: the client never sees the answer.
    *alike(3, OUTSIDE, DROPPED, ipvs=to(THERE)),
    *alike(3, CLIENT_POD, to(THERE)),
    *alike(4, OUTSIDE, REFUSED),
    *alike(4, CLIENT_POD, REFUSED),
    *alike(5, OUTSIDE, REFUSED),
    Row("none: load balancer from the node", NODE, "tcp 192.0.2.4:80", PASSES, {"ipvs": REFUSED}),
    Row("none: node port from the node", NODE, f"tcp {NODE}:30004", REFUSED),
    # Source ranges are for load balancer addresses alone.
    *alike(6, OUTSIDE, masqueraded(*BOTH)),
    Row("ranges: outside of them", STRANGER, "tcp 192.0.2.6:80", DROPPED),
    Row("ranges: a pod outside of them", CLIENT_POD, "tcp 192.0.2.6:80", DROPPED),
    Row("ranges: node port", STRANGER, f"tcp {NODE}:30006", masqueraded(*BOTH)),
    Row("ranges: external IP", STRANGER, "tcp 203.0.113.6:80", masqueraded(*BOTH)),
    Row("ranges: ClusterIP", STRANGER, "tcp 10.96.1.6:80", masqueraded(*BOTH)),
    Row("ranges-local: inside", OUTSIDE, "tcp 192.0.2.7:80", to(HERE)),
    Row("ranges-local: outside", STRANGER, "tcp 192.0.2.7:80", DROPPED),
    Row(
        "ranges-local: a pod inside", CLIENT_POD, "tcp 192.0.2.7:80", to(*BOTH), {"ipvs": to(HERE)}
    ),
    Row("udp: node port", OUTSIDE, f"udp {NODE}:30009", masqueraded(*BOTH)),
    Row("udp: the same over TCP", OUTSIDE, f"tcp {NODE}:30009", OWN),
    Row("sctp: node port", OUTSIDE, f"sctp {NODE}:30010", masqueraded(*BOTH)),
    Row("sctp: ClusterIP", CLIENT_POD, "sctp 10.96.1.10:80", to(*BOTH)),
    Row("inner-local: ClusterIP", CLIENT_POD, "tcp 10.96.1.11:80", to(HERE)),
    *alike(11, OUTSIDE, masqueraded(*BOTH)),
    Row(
        "inner-elsewhere: ClusterIP", CLIENT_POD, "tcp 10.96.1.12:80", DROPPED, {"ipvs": to(THERE)}
    ),
    *alike(12, OUTSIDE, masqueraded(THERE)),
    *alike(13, OUTSIDE, DROPPED, ipvs=to(THERE)),
    Row("wrong port of a load balancer", OUTSIDE, "tcp 192.0.2.1:81", PASSES, {"ipvs": REFUSED}),
    Row("port of no service", OUTSIDE, f"tcp {NODE}:30999", OWN),
    Row("second address", OUTSIDE, f"tcp {SECOND}:30001", masqueraded(*BOTH)),
    Row("localhost", LOCALHOST, f"tcp {LOCALHOST}:30001", masqueraded(*BOTH), {"ipvs": OWN}),
    Row("localhost, no endpoints", LOCALHOST, f"tcp {LOCALHOST}:30004", REFUSED, {"ipvs": OWN}),
    Row("health check node port", OUTSIDE, f"tcp {NODE}:32002", OWN),
]
STICKY = [
    Row(f"sticky: {target} after {end}", OUTSIDE, target, masqueraded(end), after=end)
    for target in (*lookalikes(8).values(), "tcp 10.96.1.8:80")
    for end in BOTH
] + [
    Row("sticky-local: outside", OUTSIDE, "tcp 192.0.2.14:80", to(HERE), after=HERE),
    Row("sticky-local: a pod", CLIENT_POD, "tcp 192.0.2.14:80", to(THERE), after=THERE),
]


def trace(mode: str, row: Row, wanted: State) -> set[Outcome]:
    kernel = table.node(mode, wanted)
    protocol, place = row.target.split()
    destination, _, port = place.rpartition(":")
    from_node = row.source in (NODE, LOCALHOST)
    outside = row.source in (OUTSIDE, STRANGER) or row.source.startswith("2001:")
    interface = "" if from_node else "eth0" if outside else "cali1"
    # To one of its own addresses the node sends from that very address.
    own = kernel.addresses | kernel.device
    source = destination if from_node and destination in own else row.source
    packet = Packet(source, protocol, destination, int(port), interface=interface)
    return Tracer(kernel).trace(packet, from_node=from_node, after=row.after)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_flow(mode: str, row: Row) -> None:
    assert trace(mode, row, cluster(mode)) == row.in_mode.get(mode, row.expected)


@pytest.mark.parametrize("row", STICKY, ids=lambda row: row.name)
def test_a_client_goes_where_it_went(row: Row) -> None:
    """Of IPVS the kernel's own persistence is trusted, so only rules are traced."""
    assert trace("iptables", row, cluster("iptables")) == row.expected


def rows(wanted: State, *some: Row) -> None:
    """Check rows in a state of their own, in iptables mode."""
    found = {row.name: trace("iptables", row, wanted) for row in some}
    assert found == {row.name: row.expected for row in some}


def test_node_ports_on_chosen_addresses_only() -> None:
    one = NodePorts(everywhere=False, addresses=(Address(NODE),))
    rows(
        cluster("iptables", SERVICES[0], node_ports=one),
        Row("chosen", OUTSIDE, f"tcp {NODE}:30001", masqueraded(*BOTH)),
        Row("second", OUTSIDE, f"tcp {SECOND}:30001", OWN),
        Row("localhost", LOCALHOST, f"tcp {LOCALHOST}:30001", OWN),
    )
    none = NodePorts(everywhere=False)
    rows(
        cluster("iptables", SERVICES[0], node_ports=none),
        Row("none", OUTSIDE, f"tcp {NODE}:30001", OWN),
        Row("ClusterIP", CLIENT_POD, "tcp 10.96.1.1:80", to(*BOTH)),
    )


def test_without_localhost_node_ports_loopback_is_left_alone() -> None:
    rows(
        cluster("iptables", SERVICES[0], node_ports=NodePorts()),
        Row("localhost", LOCALHOST, f"tcp {LOCALHOST}:30001", OWN),
        Row("node", NODE, f"tcp {NODE}:30001", masqueraded(*BOTH)),
    )


def test_with_localhost_node_ports_nobody_else_reaches_the_loopback_network() -> None:
    rows(
        cluster("iptables", SERVICES[0]),
        Row("from outside", OUTSIDE, f"tcp {LOCALHOST}:22", DROPPED),
        Row("the node itself", LOCALHOST, f"tcp {LOCALHOST}:22", OWN),
    )


@pytest.mark.parametrize("interface", ["cali1", "cali+"])
def test_pods_told_by_their_interface(interface: str) -> None:
    wanted = cluster("iptables", *SERVICES[:2], cluster_cidrs=(), local_interface=interface)
    rows(
        wanted,
        Row("pod to ClusterIP", CLIENT_POD, "tcp 10.96.1.1:80", to(*BOTH)),
        Row("outside to ClusterIP", OUTSIDE, "tcp 10.96.1.1:80", masqueraded(*BOTH)),
        Row("pod to local", CLIENT_POD, "tcp 192.0.2.2:80", to(*BOTH)),
        Row("outside to local", OUTSIDE, "tcp 192.0.2.2:80", to(HERE)),
    )


def test_of_unknown_pods_external_traffic_with_policy_local_stays_here() -> None:
    rows(
        cluster("iptables", SERVICES[1], cluster_cidrs=()),
        Row("pod", CLIENT_POD, "tcp 192.0.2.2:80", to(HERE)),
        Row("node", NODE, "tcp 192.0.2.2:80", masqueraded(*BOTH)),
    )


def test_who_comes_second_keeps_what_is_its_own() -> None:
    other = published(20, "z", at(POD_REMOTE, 9090))
    port = msgspec.structs.replace(
        other.service, node_port=30001, external_ips=SERVICES[0].service.external_ips
    )
    second = msgspec.structs.replace(other, service=port)
    rows(
        cluster("iptables", SERVICES[0], second),
        Row("node port", OUTSIDE, f"tcp {NODE}:30001", masqueraded(*BOTH)),
        Row("external IP", OUTSIDE, "tcp 203.0.113.1:80", masqueraded(*BOTH)),
        Row("its load balancer", OUTSIDE, "tcp 192.0.2.20:80", masqueraded(f"{POD_REMOTE}:9090")),
        Row("its ClusterIP", CLIENT_POD, "tcp 10.96.1.20:80", to(f"{POD_REMOTE}:9090")),
    )


def test_health_checks_are_accepted_where_the_node_drops_all_else() -> None:
    kernel = table.node("iptables", cluster("iptables"))
    filter_ = dict(kernel.rules["filter"])
    filter_["INPUT"] = (*filter_["INPUT"], "-A INPUT -j DROP")
    strict = Node(rules={"nat": kernel.rules["nat"], "filter": filter_})
    for port, expected in ((32002, OWN), (32003, OWN), (32001, DROPPED)):
        packet = Packet(OUTSIDE, "tcp", NODE, port, interface="eth0")
        assert Tracer(strict).trace(packet) == expected


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
    one = topology.categorize_endpoints(port, pods, topology.Place("node1"))
    wanted = State(
        family=Family.IPV6,
        services={port.name: one},
        cluster_cidrs=(Prefix("fd00:10:128::/48"),),
        node_ports=NodePorts(localhost=True),
    )
    here, all_of_them = "[fd00:10:128::5]:8080", ("[fd00:10:128::5]:8080", "[fd00:10:128::6]:8080")
    outside, pod = "2001:db8:9::7", "fd00:10:128::99"
    rows(
        wanted,
        Row("ClusterIP", pod, "tcp fd00:10:96::a:80", to(*all_of_them)),
        Row("node port", outside, "tcp fd00:1::1:30001", to(here)),
        Row("load balancer", outside, "tcp 2001:db8:1::1:80", to(here)),
        Row("outside its ranges", "2001:db8:8::7", "tcp 2001:db8:1::1:80", DROPPED),
        Row("pod to external IP", pod, "tcp 2001:db8::1:80", to(*all_of_them)),
        Row("affinity", outside, "tcp fd00:1::1:30001", to(here), after=here),
    )
