"""``kproxy explain`` says what the rendered rules do: both are asked for the same packets."""

import itertools
from collections.abc import Callable

import msgspec
import pytest
import test_packet_flows as table
from packet_tracer import Outcome, Packet, Tracer

from kproxy.desired.model import Address, Endpoint, NodePorts, Prefix, Protocol, State
from kproxy.desired.topology import Place, categorize_endpoints
from kproxy.inspect import flows, lookup
from kproxy.inspect.flows import Fate
from kproxy.inspect.world import Node, Target, World

WORDS = {
    Fate.REFUSED: "refused",
    Fate.DROPPED: "dropped",
    Fate.PASSES: "passes",
    Fate.NODE: "node",
}
SOURCES = (table.CLIENT_POD, table.POD_LOCAL, table.POD_REMOTE, table.OUTSIDE, table.NODE)


def explained(backend: str, wanted: State, flow: table.Flow) -> set[Outcome]:
    """Return what is predicted, in the tracer's words."""
    node = Node(name="node1", addresses=(Address(table.NODE),))
    world = World(mode=backend, state=wanted, node=node)
    target = Target(
        address=Address(flow.destination), port=flow.port, protocol=Protocol(flow.protocol.upper())
    )
    served = next(iter(lookup.find(world, target)), None)
    predicted = flows.predict(world, target, served, world.source(Address(flow.source)))
    if predicted.fate is not Fate.ENDPOINT:
        return {Outcome(WORDS[predicted.fate])}
    assert sum(share.probability for share in predicted.shares) == pytest.approx(1)
    return {
        Outcome(f"{share.endpoint.address}:{share.endpoint.port}", share.masqueraded)
        for share in predicted.shares
    }


def tracing(backend: str, wanted: State) -> Callable[[table.Flow], set[Outcome]]:
    """Return what traces flows through one state, as ``table.trace`` does."""
    kernel = table.node(backend, wanted)
    tracer = Tracer(kernel)

    def trace(flow: table.Flow) -> set[Outcome]:
        from_node = flow.source == table.NODE
        own = from_node and flow.destination in kernel.device
        source = flow.destination if own else flow.source
        packet = Packet(source, flow.protocol, flow.destination, flow.port)
        return tracer.trace(packet, from_node=from_node)

    return trace


def exposed(number: int, *endpoints: Endpoint, **features: object) -> object:
    """Return a service that is reached in all ways, with its endpoints chosen."""
    plain = table.service(f"s{number}", f"10.96.1.{number}", 80).service
    service = msgspec.structs.replace(
        plain,
        node_port=30000 + number,
        external_ips=(Address(f"203.0.113.{number}"),),
        load_balancer_vips=(Address(f"203.0.113.{100 + number}"),),
        **features,
    )
    return categorize_endpoints(service, endpoints, Place("node1"))


LOCAL, REMOTE = table.at(table.POD_LOCAL, 8080), table.at(table.POD_REMOTE, 8080)
OWN = table.at(table.NODE, 6443)
CHOICES = (
    (LOCAL, REMOTE), (REMOTE,), (LOCAL,), (), (OWN,),
    (msgspec.structs.replace(LOCAL, ready=False, terminating=True), REMOTE),
    (msgspec.structs.replace(REMOTE, ready=False, terminating=True),),
)  # fmt: skip
POLICIES = tuple(itertools.product((False, True), (False, True)))
EXPOSED = tuple(
    exposed(number, *endpoints, external_local=external, internal_local=internal)
    for number, (endpoints, (external, internal)) in enumerate(
        itertools.product(CHOICES, POLICIES), 1
    )
)
RANGES = tuple(
    exposed(80 + number, *endpoints, source_ranges=(Prefix(network),), external_local=local)
    for number, (endpoints, network, local) in enumerate(
        itertools.product(
            ((LOCAL, REMOTE), (REMOTE,), ()),
            ("198.51.100.0/24", "192.168.1.0/24", "10.128.0.0/9"),
            (False, True),
        ),
        1,
    )
)


def exposing(wanted: State) -> State:
    """Return a state whose node ports are served on the node's address."""
    ports = NodePorts(addresses=(Address(table.NODE),))
    return msgspec.structs.replace(wanted, node_ports=ports)


STATES = {
    "pods known": table.state(*table.SERVICES),
    "masquerade all": table.state(*table.SERVICES, masquerade_all=True),
    "pods unknown": table.state(*table.SERVICES, cidrs=()),
    "exposed": exposing(table.state(*EXPOSED)),
    "exposed, pods unknown": exposing(table.state(*EXPOSED, cidrs=())),
    "exposed, masquerade all": exposing(table.state(*EXPOSED, masquerade_all=True)),
    "source ranges": exposing(table.state(*RANGES)),
}


def targets(wanted: State) -> set[tuple[str, int]]:
    """Return every address with every port of its service, and with wrong ones."""
    services = [one.service for one in wanted.services.values()]
    addresses = {address for service in services for address in flows.addresses_of(service)}
    found = {(address, port) for address in addresses for port in (80, 2222)}
    found |= {(service.cluster_ip, service.port) for service in services}
    found |= {(table.NODE, service.node_port or 22) for service in services}
    return found | {("10.96.0.99", 80)}


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("flow", table.FLOWS, ids=lambda flow: flow.name)
def test_flows_of_the_table(backend: str, flow: table.Flow) -> None:
    assert flow.expected_in(backend) == explained(backend, table.state(*table.SERVICES), flow)


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("name", STATES)
def test_every_address_from_everywhere(backend: str, name: str) -> None:
    wanted = STATES[name]
    different = []
    protocols = ("tcp",) if len(wanted.services) > 20 else ("tcp", "udp")
    questions = itertools.product(SOURCES, protocols, sorted(targets(wanted)))
    trace = tracing(backend, wanted)
    for source, protocol, (address, port) in questions:
        flow = table.Flow("", source, protocol, address, port, set())
        traced, predicted = trace(flow), explained(backend, wanted, flow)
        if traced != predicted:
            different.append(
                f"{source} {protocol} {address}:{port}: traced {traced}, explained {predicted}"
            )
    assert different == []
