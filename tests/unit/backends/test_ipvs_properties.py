"""Random clusters with everything that a service may have, in ipvs mode, from one to the next."""

from typing import Any

import msgspec
import pytest
from examples import examples
from fake_node import FakeNode
from hypothesis import given
from hypothesis import strategies as st

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
from kproxy.kernel.inet import Protocol as InetProtocol
from kproxy.kernel.ipvs.types import DelDestination, DelService, DestinationStats

NODE = (Address("192.168.1.1"), Address("10.20.0.1"))
VIPS = (Address("203.0.113.1"), Address("203.0.113.2"), NODE[0])
NAMES = [
    ServicePortName("demo", name, "", protocol)
    for name in ("a", "b", "c")
    for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)
]

endpoints = st.builds(
    Endpoint,
    address=st.sampled_from([Address(f"10.128.0.{n}") for n in range(1, 4)]),
    port=st.sampled_from([80, 81]),
    local=st.booleans(),
)
some_vips = st.lists(st.sampled_from(VIPS), max_size=2, unique=True).map(tuple)


@st.composite
def services(draw: st.DrawFn, name: ServicePortName) -> ServiceState:
    chosen = tuple(
        draw(st.lists(endpoints, max_size=3, unique_by=lambda one: (one.address, one.port)))
    )
    # Few addresses and ports, so that services get into each other's way.
    service = ServicePort(
        name=name,
        cluster_ip=draw(st.sampled_from([Address("10.96.0.1"), Address("10.96.0.2")])),
        port=draw(st.sampled_from([80, 30080])),
        node_port=draw(st.sampled_from([0, 30080, 30081])),
        external_ips=draw(some_vips),
        load_balancer_vips=draw(some_vips),
        source_ranges=draw(
            st.sampled_from([(), (Prefix("0.0.0.0/0"),), (Prefix("198.51.100.0/24"),)])
        ),
        affinity_seconds=draw(st.sampled_from([None, 60])),
        external_local=draw(st.booleans()),
        internal_local=draw(st.booleans()),
        health_check_node_port=draw(st.sampled_from([0, 32000])),
    )
    local = tuple(one for one in chosen if one.local)
    return ServiceState(
        service=service, cluster=chosen, local=local, known=chosen, anywhere=bool(chosen)
    )


@st.composite
def states(draw: st.DrawFn) -> State:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    return State(
        family=Family.IPV4,
        services={name: draw(services(name)) for name in names},
        cluster_cidrs=(Prefix("10.128.0.0/9"),),
        node_ports=NodePorts(addresses=draw(st.sampled_from([NODE, NODE[:1], ()]))),
    )


@st.composite
def sequences(draw: st.DrawFn) -> list[State]:
    """States of which each keeps some of the last one's services, the very same objects."""
    found = [draw(states())]
    for _ in range(draw(st.integers(0, 4))):
        last = found[-1]
        kept = {name: one for name, one in last.services.items() if draw(st.booleans())}
        new = draw(states())
        found.append(msgspec.structs.replace(new, services={**new.services, **kept}))
    return found


def direct(wanted: State) -> dict[str, Any]:
    node = FakeNode()
    assert node.backend("ipvs").sync(wanted).failures == ()
    return node.contents()


def told(backend: Any, wanted: State) -> list[str]:
    return [str(problem) for problem in backend.sync(wanted).invalid]


@given(sequence=sequences(), restarts=st.sets(st.integers(0, 4)))
@examples(50)
def test_small_steps_lead_where_one_leap_does(sequence: list[State], restarts: set[int]) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    for index, wanted in enumerate(sequence):
        if index in restarts:
            backend = node.backend("ipvs")
        result = backend.sync(wanted)
        assert result.failures == ()
        assert result.refused == ()
    assert node.contents() == direct(sequence[-1])
    assert backend.differences(sequence[-1]) == []
    assert told(backend, sequence[-1]) == told(FakeNode().backend("ipvs"), sequence[-1])
    backend.reread()
    assert backend.sync(sequence[-1]).writes == 0


@given(sequence=sequences())
@examples(50)
def test_what_stays_is_never_taken_away(sequence: list[State]) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    for before, wanted in zip([None, *sequence], sequence, strict=False):
        node.ipvs.written.clear()
        backend.sync(wanted)
        if before is None:
            continue
        table = node.ipvs.dump()
        for op in node.ipvs.written:
            if isinstance(op, DelService):
                assert op.service not in table
            if isinstance(op, DelDestination):
                assert op.destination not in table[op.service].destinations


@given(a=states(), b=states())
@examples(50)
def test_differences_are_empty_exactly_when_a_sync_writes_nothing(a: State, b: State) -> None:
    node = FakeNode()
    node.backend("ipvs").sync(a)
    before = node.contents()
    found = node.backend("ipvs").differences(b)
    assert node.contents() == before
    assert bool(found) == bool(node.backend("ipvs").sync(b).writes)


WRITES = ("ipvs", "ipset", "links", "iptables")


@pytest.mark.parametrize("where", WRITES)
@given(sequence=sequences(), at=st.integers(0, 30), code=st.sampled_from([4, 12, 16, 105]))
@examples(25)
def test_a_failed_write_is_made_good(
    where: str, sequence: list[State], at: int, code: int
) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    for wanted in sequence[:-1]:
        backend.sync(wanted)
    if where == "iptables":
        node.iptables.fail_restore = 1
    else:
        getattr(node, where).fail_write = {at: code}
    backend.sync(sequence[-1])
    node.ipvs.fail_write, node.ipset.fail_write, node.links.fail_write = {}, {}, {}
    node.iptables.fail_restore = 0
    backend.sync(sequence[-1])
    assert node.contents() == direct(sequence[-1])


@given(sequence=sequences(), busy=st.sets(st.integers(0, 20)))
@examples(50)
def test_endpoints_with_connections_stay_until_these_end(
    sequence: list[State], busy: set[int]
) -> None:
    node = FakeNode()
    backend = node.backend("ipvs")
    for wanted in sequence:
        backend.sync(wanted)
        for number, (key, entry) in enumerate(node.ipvs.dump().items()):
            for destination in entry.destinations:
                if number in busy:
                    node.ipvs.connections[key, destination] = DestinationStats(1, 0)
    last = sequence[-1]
    result = backend.sync(last)
    extra = {
        str(one)
        for key, entry in node.ipvs.dump().items()
        for one, config in entry.destinations.items()
        if config.config.weight == 0 and key.protocol is not InetProtocol.UDP
    }
    assert bool(extra) == (result.again_in is not None)
    node.ipvs.connections.clear()
    assert backend.sync(last).again_in is None
    assert node.contents() == direct(last)
