"""What packets of ClusterIP services meet, one table of flows for all backends."""

from dataclasses import dataclass

import ipvs_tracer
import packet_tracer
import pytest
from packet_tracer import Node, Outcome, Packet, Tracer

from kproxy.backends.iptables import names
from kproxy.backends.iptables import render as iptables_render
from kproxy.desired.model import (
    Address,
    Endpoint,
    Family,
    Prefix,
    Protocol,
    ServicePort,
    ServicePortName,
    ServiceState,
    State,
)

POD_LOCAL, POD_REMOTE, CLIENT_POD = "10.128.0.5", "10.128.1.6", "10.128.0.100"
OUTSIDE, NODE = "198.51.100.7", packet_tracer.NODE_ADDRESS
BACKENDS = ("ipvs", "iptables")


def service(
    name: str,
    ip: str,
    port: int,
    *endpoints: Endpoint,
    protocol: Protocol = Protocol.TCP,
    port_name: str = "",
    local_only: bool = False,
) -> ServiceState:
    here = tuple(endpoint for endpoint in endpoints if endpoint.local)
    return ServiceState(
        service=ServicePort(
            name=ServicePortName("demo", name, port_name, protocol),
            cluster_ip=Address(ip),
            port=port,
            internal_local=local_only,
        ),
        cluster=() if local_only else endpoints,
        local=here if local_only else (),
        known=endpoints,
        anywhere=bool(endpoints),
    )


def at(address: str, port: int) -> Endpoint:
    return Endpoint(
        address=Address(address),
        port=port,
        local=address.startswith("10.128.0.") or address == NODE,
    )


def state(
    *services: ServiceState,
    cidrs: tuple[str, ...] = ("10.128.0.0/9",),
    masquerade_all: bool = False,
) -> State:
    return State(
        family=Family.IPV4,
        services={one.service.name: one for one in services},
        cluster_cidrs=tuple(map(Prefix, cidrs)),
        masquerade_all=masquerade_all,
    )


SERVICES = (
    service("web", "10.96.0.10", 80, at(POD_LOCAL, 8080), at(POD_REMOTE, 8080)),
    service("five", "10.96.0.15", 80, *(at(f"10.128.1.{n}", 8080) for n in range(10, 15))),
    service("dns", "10.96.0.11", 53, at(POD_REMOTE, 5353), protocol=Protocol.UDP, port_name="dns"),
    service(
        "dns", "10.96.0.11", 53, at(POD_LOCAL, 5354), protocol=Protocol.TCP, port_name="dns-tcp"
    ),
    service("none", "10.96.0.12", 80),
    service("api", "10.96.0.1", 443, at(NODE, 6443)),
    service("here", "10.96.0.13", 80, at(POD_LOCAL, 80), at(POD_REMOTE, 80), local_only=True),
    service("nowhere-here", "10.96.0.14", 80, at(POD_REMOTE, 80), local_only=True),
)


def to(*ends: str, masqueraded: bool = False) -> set[Outcome]:
    return {Outcome(end, masqueraded) for end in ends}


@dataclass(frozen=True)
class Flow:
    name: str
    source: str
    protocol: str
    destination: str
    port: int
    expected: set[Outcome]
    iptables: set[Outcome] | None = None
    """Where iptables mode differs from the others (kube-proxy's does so, too)."""

    def expected_in(self, backend: str) -> set[Outcome]:
        return (
            self.iptables if backend == "iptables" and self.iptables is not None else self.expected
        )


BOTH = (f"{POD_LOCAL}:8080", f"{POD_REMOTE}:8080")
FLOWS = [
    Flow("pod to service", CLIENT_POD, "tcp", "10.96.0.10", 80, to(*BOTH)),
    Flow("outside to service", OUTSIDE, "tcp", "10.96.0.10", 80, to(*BOTH, masqueraded=True)),
    Flow("node to service", NODE, "tcp", "10.96.0.10", 80, to(*BOTH, masqueraded=True)),
    Flow(
        "endpoint to its own service",
        POD_LOCAL,
        "tcp",
        "10.96.0.10",
        80,
        to(BOTH[0], masqueraded=True) | to(BOTH[1]),
    ),
    Flow(
        "all of five endpoints",
        CLIENT_POD,
        "tcp",
        "10.96.0.15",
        80,
        to(*(f"10.128.1.{n}:8080" for n in range(10, 15))),
    ),
    Flow("udp port", CLIENT_POD, "udp", "10.96.0.11", 53, to(f"{POD_REMOTE}:5353")),
    Flow(
        "tcp port of the same number", CLIENT_POD, "tcp", "10.96.0.11", 53, to(f"{POD_LOCAL}:5354")
    ),
    Flow(
        "protocol that the service has not",
        CLIENT_POD,
        "udp",
        "10.96.0.10",
        80,
        to("refused"),
        to("passes"),
    ),
    Flow("wrong port", CLIENT_POD, "tcp", "10.96.0.10", 2222, to("refused"), to("passes")),
    Flow(
        "wrong port from outside", OUTSIDE, "tcp", "10.96.0.10", 2222, to("refused"), to("passes")
    ),
    Flow("wrong port from the node", NODE, "tcp", "10.96.0.10", 2222, to("refused"), to("passes")),
    Flow("no endpoints", CLIENT_POD, "tcp", "10.96.0.12", 80, to("refused")),
    Flow("no endpoints, from outside", OUTSIDE, "tcp", "10.96.0.12", 80, to("refused")),
    Flow("no endpoints, from the node", NODE, "tcp", "10.96.0.12", 80, to("refused")),
    Flow("endpoint on the node itself", CLIENT_POD, "tcp", "10.96.0.1", 443, to(f"{NODE}:6443")),
    Flow("address of no service", CLIENT_POD, "tcp", "10.96.0.99", 80, to("passes")),
    Flow("pod to pod", CLIENT_POD, "tcp", POD_REMOTE, 8080, to("passes")),
    Flow("port of the node", CLIENT_POD, "tcp", NODE, 22, to("node")),
    Flow("policy Local", CLIENT_POD, "tcp", "10.96.0.13", 80, to(f"{POD_LOCAL}:80")),
    Flow(
        "policy Local, none here",
        CLIENT_POD,
        "tcp",
        "10.96.0.14",
        80,
        to("refused"),
        to("dropped"),
    ),
]


def node(backend: str, wanted: State) -> Node:
    if backend == "iptables":
        return Node(rules=ipvs_tracer.with_jumps(iptables_render.render(wanted)))
    return ipvs_tracer.ipvs_node(wanted)


def trace(backend: str, flow: Flow, wanted: State) -> set[Outcome]:
    kernel = node(backend, wanted)
    from_node = flow.source == NODE
    # The kernel's choice: to one of its own addresses the node sends from that very address.
    source = flow.destination if from_node and flow.destination in kernel.device else flow.source
    packet = Packet(source, flow.protocol, flow.destination, flow.port)
    return Tracer(kernel).trace(packet, from_node=from_node)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name)
def test_flow(backend: str, flow: Flow) -> None:
    assert flow.expected_in(backend) == trace(backend, flow, state(*SERVICES))


@pytest.mark.parametrize("backend", BACKENDS)
def test_masquerade_all_masquerades_pods_too(backend: str) -> None:
    flow = Flow("", CLIENT_POD, "tcp", "10.96.0.10", 80, to(*BOTH, masqueraded=True))
    assert flow.expected == trace(backend, flow, state(*SERVICES, masquerade_all=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_pod_network_only_hairpin_and_own_traffic_is_masqueraded(backend: str) -> None:
    wanted = state(*SERVICES, cidrs=())
    pod = Flow("", CLIENT_POD, "tcp", "10.96.0.10", 80, to(*BOTH))
    outside = Flow("", OUTSIDE, "tcp", "10.96.0.10", 80, to(*BOTH))
    itself = Flow(
        "", POD_LOCAL, "tcp", "10.96.0.10", 80, to(BOTH[0], masqueraded=True) | to(BOTH[1])
    )
    for flow in (pod, outside, itself):
        assert flow.expected == trace(backend, flow, wanted)


def test_in_ipvs_mode_the_node_never_keeps_a_service_address_as_its_source() -> None:
    flow = Flow("", NODE, "tcp", "10.96.0.10", 80, to(*BOTH, masqueraded=True))
    assert flow.expected == trace("ipvs", flow, state(*SERVICES, cidrs=()))


def test_picks_are_even() -> None:
    """Multiply the probabilities along the chain: each of five endpoints must get a fifth."""
    wanted = iptables_render.render(state(SERVICES[1]))
    rules = wanted["nat"].chains[names.service_chain(SERVICES[1].service)]
    left, shares = 1.0, []
    for rule in rules[1:]:
        words = rule.split()
        chance = float(words[words.index("--probability") + 1]) if "--probability" in words else 1
        shares.append(left * chance)
        left *= 1 - chance
    assert shares == pytest.approx([0.2] * 5, abs=1e-8)


@pytest.mark.parametrize("rule", [
    "-A KUBE-SERVICES -m length --length 5 -j ACCEPT",
    "-A KUBE-SERVICES -j TPROXY --on-port 1",
    "-I KUBE-SERVICES -j ACCEPT",
])  # fmt: skip
def test_the_tracer_refuses_what_it_does_not_know(rule: str) -> None:
    jumps = {"PREROUTING": ("-A PREROUTING -j KUBE-SERVICES",)}
    with pytest.raises(packet_tracer.UnknownRule):
        Tracer(Node(rules={"nat": {**jumps, "KUBE-SERVICES": (rule,)}, "filter": {}})).trace(
            Packet(CLIENT_POD, "tcp", "10.96.0.10", 80)
        )


def test_the_tracer_sees_a_packet_through_nested_chains_and_returns() -> None:
    nat = {
        "PREROUTING": ("-A PREROUTING -j A", "-A PREROUTING -j DNAT --to-destination 10.0.0.2:2"),
        "A": ("-A A ! -s 10.0.0.0/8 -j RETURN", "-A A -j B"),
        "B": ("-A B -p udp -j DNAT --to-destination 10.0.0.1:1",),
    }
    tracer = Tracer(Node(rules={"nat": nat, "filter": {}}))
    assert to("10.0.0.1:1") == tracer.trace(Packet("10.0.0.9", "udp", "10.9.9.9", 9))
    assert to("10.0.0.2:2") == tracer.trace(Packet("10.0.0.9", "tcp", "10.9.9.9", 9))
    assert to("10.0.0.2:2") == tracer.trace(Packet("11.0.0.9", "udp", "10.9.9.9", 9))
