"""nftables mode, states drawn at random: every way leads to the same table."""

import errno

import msgspec
from examples import examples
from fake_node import FakeNode
from hypothesis import given
from hypothesis import strategies as st
from nftables_node import fresh, written

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
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    DelChain,
    DelElements,
    DelSet,
    FlushChain,
)

NAMES = [
    ServicePortName("demo", name, port, protocol)
    for name in ("api", "web")
    for port, protocol in (("a", Protocol.TCP), ("b", Protocol.UDP))
]


addresses = st.sampled_from([Address("203.0.113.1"), Address("203.0.113.2")])
endpoints = st.builds(
    Endpoint,
    address=st.sampled_from([Address(f"10.128.0.{n}") for n in range(1, 5)]),
    port=st.sampled_from([80, 81]),
    local=st.booleans(),
)


@st.composite
def services(draw: st.DrawFn, name: ServicePortName) -> ServiceState:
    pods = draw(st.lists(endpoints, max_size=4, unique_by=lambda one: (one.address, one.port)))
    port = ServicePort(
        name=name,
        # Now and then two services claim the same.
        cluster_ip=draw(st.sampled_from([Address("10.96.0.1"), Address("10.96.0.2")])),
        port=draw(st.sampled_from([80, 443])),
        node_port=draw(st.sampled_from([0, 30001, 30002])),
        external_ips=tuple(draw(st.lists(addresses, max_size=1))),
        load_balancer_vips=tuple(draw(st.lists(addresses, max_size=1))),
        source_ranges=tuple(
            draw(
                st.lists(
                    st.sampled_from(
                        [Prefix("10.0.0.0/8"), Prefix("192.168.1.0/24"), Prefix("0.0.0.0/0")]
                    ),
                    max_size=2,
                )
            )
        ),
        affinity_seconds=draw(st.sampled_from([None, None, 60, 90])),
        external_local=draw(st.booleans()),
        internal_local=draw(st.booleans()),
    )
    return topology.categorize_endpoints(port, pods, topology.Place("n1"))


node_ports = st.builds(
    NodePorts,
    everywhere=st.booleans(),
    addresses=st.sampled_from([(), (Address("192.168.1.1"),), (Address("192.168.1.2"),)]),
)


@st.composite
def states(draw: st.DrawFn) -> State:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return State(
        family=Family.IPV4,
        services={name: draw(services(name)) for name in names},
        cluster_cidrs=draw(st.sampled_from([(), (Prefix("10.128.0.0/9"),)])),
        node_ports=draw(node_ports),
        service_cidrs=draw(st.sampled_from([(), (Prefix("10.96.0.0/12"),)])),
    )


@st.composite
def lives(draw: st.DrawFn) -> list[State]:
    """Draw states that follow each other; what does not change stays the same object."""
    found = [draw(states())]
    for _ in range(draw(st.integers(1, 5))):
        before = found[-1]
        if draw(st.booleans()):
            found.append(draw(states()))
            continue
        changed = dict(before.services)
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True)):
            if draw(st.booleans()):
                changed[name] = draw(services(name))
            else:
                changed.pop(name, None)
        found.append(msgspec.structs.replace(before, services=changed))
    return found


@given(life=lives(), restarts=st.sets(st.integers(0, 5)), rereads=st.sets(st.integers(0, 5)))
@examples(60)
def test_every_way_leads_where_the_shortest_does(
    life: list[State], restarts: set[int], rereads: set[int]
) -> None:
    node = FakeNode()
    backend = node.backend("nftables")
    for index, state in enumerate(life):
        if index in restarts:
            backend = node.backend("nftables")
        if index in rereads:
            backend.reread()
        before = len(node.nft[Family.IPV4].written)
        result = backend.sync(state)
        assert result.failures == ()
        assert len(node.nft[Family.IPV4].written) - before == (result.writes > 0)
    direct = FakeNode()
    invalid = direct.backend("nftables").sync(life[-1]).invalid
    assert list(map(str, invalid)) == list(map(str, result.invalid))
    assert node.contents()["nft"] == direct.contents()["nft"]
    assert backend.differences(life[-1]) == []
    assert backend.sync(life[-1]).writes == 0


@examples(50)
@given(a=states(), b=states())
def test_nothing_that_both_states_have_is_touched(a: State, b: State) -> None:
    node = fresh(a)
    table = node.nft[Family.IPV4]
    before = table.read()
    result = node.backend("nftables").sync(b)
    after = table.read()
    assert before is not None
    assert after is not None
    for step in written(node) if result.writes else ():
        match step:
            case DelElements(name, _, keys):
                for key in keys:
                    left = after.elements.get(name, {})
                    assert key not in left or left[key] != before.elements[name][key]
            case FlushChain(name) | AddRule(name):
                assert before.chains.get(name) != after.chains.get(name)
            case AddSet(name):
                assert name not in before.sets
            case AddChain(name):
                assert name not in before.chains
            case DelSet(name):
                assert name not in after.sets
            case DelChain(name):
                assert name not in after.chains
            case AddElements(name, _, elements):
                known = before.elements.get(name, {})
                for key, data in elements.items():
                    assert key not in known or known[key] != data
            case _:
                raise AssertionError(step)


@examples(50)
@given(a=states(), b=states(), number=st.sampled_from([errno.ENOBUFS, errno.EBUSY, errno.EINTR]))
def test_a_failed_transaction_changes_nothing_and_is_made_good(
    a: State, b: State, number: int
) -> None:
    node = fresh(a)
    backend = node.backend("nftables")
    backend.sync(a)
    node.nft[Family.IPV4].fail_run = {0: number}
    before = node.contents()["nft"]
    first = backend.sync(b)
    if first.failures:
        assert node.contents()["nft"] == before
        assert backend.sync(b).failures == ()
    assert node.contents()["nft"] == fresh(b).contents()["nft"]


@examples(50)
@given(life=lives(), settled=st.sets(st.integers(0, 5)), rereads=st.sets(st.integers(0, 5)))
def test_a_kernel_that_notices_late_that_chains_are_free(
    life: list[State], settled: set[int], rereads: set[int]
) -> None:
    """Before 6.2: a chain cannot go in the transaction in which elements stop leading to it."""
    node = FakeNode()
    table = node.nft[Family.IPV4]
    table.late = True
    backend = node.backend("nftables")
    for index, state in enumerate(life):
        if index in settled:
            table.settle()
        if index in rereads:
            backend.reread()
        result = backend.sync(state)
        assert result.failures == ()
    table.settle()
    if result.again_in is not None:
        assert backend.sync(life[-1]).again_in is None
    assert node.contents()["nft"] == fresh(life[-1]).contents()["nft"]
    assert backend.sync(life[-1]).writes == 0
