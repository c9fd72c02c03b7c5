"""nftables mode on a fake kernel: one transaction with what differs, whatever came before."""

import errno
import ipaddress
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_node import FakeNode, wanted, web
from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.backends.base import Deviation, Options
from kproxy.backends.nftables import layout
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
    ServiceState,
    State,
)
from kproxy.kernel.conntrack.types import Flow
from kproxy.kernel.inet import Protocol as Transport
from kproxy.kernel.nft.expressions import DROP, ChangeSet, Decide
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    Field,
    FlushChain,
    Hook,
    Operation,
    SetSpec,
)

NAMES = [
    ServicePortName("demo", name, port, protocol)
    for name in ("api", "web")
    for port, protocol in (("a", Protocol.TCP), ("b", Protocol.UDP))
]
A, B = "10.128.0.1", "10.128.0.2"

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


def fresh(state: State) -> FakeNode:
    node = FakeNode()
    assert node.backend("nftables").sync(state).failures == ()
    return node


def written(node: FakeNode) -> list[Operation]:
    """Return what the last transaction was."""
    return list(node.nft[Family.IPV4].written[-1])


@given(life=lives(), restarts=st.sets(st.integers(0, 5)), rereads=st.sets(st.integers(0, 5)))
@settings(max_examples=60)
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


@settings(max_examples=50)
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


@settings(max_examples=50)
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


@settings(max_examples=50)
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


DAMAGE: dict[str, Callable[[Any], list[Operation]]] = {
    "an element is gone": lambda table: [
        DelElements(layout.ENDPOINTS, table.sets[layout.ENDPOINTS], keys)
        for keys in [list(table.elements[layout.ENDPOINTS])[:1]]
    ],
    "an element is another": lambda table: [
        DelElements(layout.ENDPOINTS, table.sets[layout.ENDPOINTS], [key])
        if again == 0
        else AddElements(layout.ENDPOINTS, table.sets[layout.ENDPOINTS], {key: bytes(8)})
        for key in list(table.elements[layout.ENDPOINTS])[:1]
        for again in (0, 1)
    ],
    "an element is too much": lambda table: [
        AddElements(layout.CLUSTER_IPS, table.sets[layout.CLUSTER_IPS], {bytes(4): None})
    ],
    "a chain is empty": lambda _: [FlushChain("filter-forward")],
    "a rule is too much": lambda _: [AddRule("services", (Decide(DROP),))],
    "a chain is too much": lambda _: [AddChain("mine"), AddRule("mine", (Decide(DROP),))],
    "a base chain is too much": lambda _: [
        AddChain("mine", BaseChain("filter", Hook.INPUT, 0)),
        AddRule("mine", (Decide(DROP),)),
    ],
    "a set is too much": lambda _: [AddSet("mine", SetSpec((Field.PORT,)))],
    "the table is gone": lambda _: [DelTable()],
    "the table is another": lambda _: [DelTable(), AddTable(), AddChain("services")],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_others_break_is_told_and_mended(damage: str) -> None:
    node, state = FakeNode(), wanted(web(A, B))
    backend = node.backend("nftables")
    backend.sync(state)
    right = node.contents()["nft"]
    table = node.nft[Family.IPV4]
    table.run(DAMAGE[damage](table.read()))
    assert node.contents()["nft"] != right
    assert backend.differences(state) != []
    backend.reread()
    assert backend.sync(state).writes > 0
    assert node.contents()["nft"] == right


def test_differences_are_told_in_words() -> None:
    node, state = FakeNode(), wanted(web(A))
    backend = node.backend("nftables")
    assert {one.deviation for one in backend.differences(state)} == {Deviation.MISSING}
    backend.sync(state)
    table = node.nft[Family.IPV4]
    for name in ("an element is another", "a rule is too much"):
        table.run(DAMAGE[name](table.read()))
    element, chain = sorted(backend.differences(state), key=lambda one: one.kind, reverse=True)
    assert (element.kind, element.name) == (
        "map element",
        "endpoints tcp . 10.96.0.10 . 80 . 0",
    )
    assert (element.want, element.have) == (f"{A} . 8080", "0.0.0.0 . 0")
    assert element.service == web(A).service.name
    assert (chain.kind, chain.name, chain.deviation) == ("chain", "services", Deviation.DIFFERENT)
    assert chain.want == (
        "meta l4proto . ip daddr . th dport vmap @service-ips; fib daddr type == 0x2"
        " ip daddr & 255.0.0.0 != 127.0.0.0 meta l4proto . th dport vmap @service-nodeports"
    )
    assert chain.have == chain.want + "; drop"


@pytest.mark.parametrize("family", list(Family))
def test_differences_name_whose_they_are(family: Family) -> None:
    """Also where a chain or set is one service's own, also where it should not be."""
    pods = ("10.128.0.1", "10.128.0.2") if family is Family.IPV4 else ("fd00::1", "fd00::2")
    first, second = ("10.96.0.1", "10.96.0.2") if family is Family.IPV4 else ("fd01::1", "fd01::2")

    def service(name: str, ip: str, *addresses: str, **more: Any) -> ServiceState:
        port = ServicePort(
            name=ServicePortName("demo", name, "p", Protocol.TCP),
            cluster_ip=Address(ip),
            port=80,
            **more,
        )
        found = [Endpoint(address=Address(one), port=8080, local=True) for one in addresses]
        return topology.categorize_endpoints(port, found, topology.Place("n1"))

    def state(*services: ServiceState) -> State:
        return State(family=family, services={one.service.name: one for one in services})

    sticky = {"affinity_seconds": 60, "external_local": True, "node_port": 30001}
    one, two = service("one", first, pods[0], **sticky), service("two", second, *pods)
    node = FakeNode()
    backend = node.backend("nftables", family=family)
    backend.sync(state(two))
    names = {one.service.name: "one", two.service.name: "two", None: ""}
    missing = {each.name: names[each.service] for each in backend.differences(state(one, two))}
    assert {name for name, owner in missing.items() if not owner} == set()
    assert set(missing.values()) == {"one"}
    assert any(name.startswith("affinity-") for name in missing)
    # Now one has an endpoint less, and two has become sticky.
    backend.sync(state(service("one", first, *pods, **sticky), two))
    changed = state(one, service("two", second, *pods, affinity_seconds=60))
    told = {
        (each.name, each.deviation, names[each.service]) for each in backend.differences(changed)
    }
    text = pods[1].replace(":", ".")
    assert (
        f"affinity-tcp-{first.replace(':', '.')}-80-{text}-8080",
        Deviation.UNEXPECTED,
        "one",
    ) in told
    shared = {name for name, _, owner in told if not owner}
    assert shared == {"pick-2", "cluster-pick-2"}


def test_one_changed_endpoint_writes_only_its_services_elements() -> None:
    many = [
        msgspec.structs.replace(
            one,
            service=msgspec.structs.replace(
                one.service,
                name=one.service.name._replace(name=f"s{number}"),
                cluster_ip=Address(f"10.96.1.{number}"),
            ),
        )
        for number, one in enumerate([web(A, B)] * 20)
    ]
    node = FakeNode()
    backend = node.backend("nftables")
    backend.sync(wanted(*many))
    changed = msgspec.structs.replace(
        many[0], cluster=web(A, "10.128.0.3").cluster, known=web(A, "10.128.0.3").known
    )
    result = backend.sync(wanted(changed, *many[1:]))
    assert result.writes == 2
    key = b"\x06\0\0\0\x0a\x60\x01\0\0\x50\0\0\1\0\0\0"
    spec = layout.set_specs(Family.IPV4)[layout.ENDPOINTS]
    new = b"\x0a\x80\0\3\x1f\x90\0\0"
    assert written(node) == [
        DelElements(layout.ENDPOINTS, spec, [key]),
        AddElements(layout.ENDPOINTS, spec, {key: new}),
    ]


def test_who_claims_what_others_have_makes_no_change_dearer() -> None:
    """Only the services that want the same are looked at again, not the whole table."""
    both = [
        msgspec.structs.replace(
            one,
            service=msgspec.structs.replace(
                one.service,
                name=one.service.name._replace(name=f"s{number}"),
                cluster_ip=Address(f"10.96.1.{number}"),
                external_ips=(Address("203.0.113.1"),) if number < 3 else (),
            ),
        )
        for number, one in enumerate([web(A, B)] * 9, start=1)
    ]
    renderer = Renderer()
    renderer.render(wanted(*both))
    told = [str(one) for one in renderer.invalid]
    assert [one.partition(":")[0] for one in told] == ["Service demo/s2"]
    less = msgspec.structs.replace(both[8], cluster=both[8].cluster[:1])
    delta = renderer.render(wanted(*both[:8], less))
    assert delta is not None
    assert {name: len(one) for name, one in delta.elements.items()} == {
        layout.ENDPOINTS: 1,
        layout.SERVICE_IPS: 1,
    }
    assert [str(one) for one in renderer.invalid] == told
    # Who had it goes: the other one gets it.
    delta = renderer.render(wanted(*both[1:8], less))
    assert delta is not None
    assert layout.SERVICE_IPS in delta.elements
    assert renderer.invalid == ()
    again = Renderer()
    again.render(wanted(*both[1:8], less))
    assert renderer.tables == again.tables


def test_a_restarted_proxy_reads_once_and_writes_nothing() -> None:
    node, state = FakeNode(), wanted(web(A, B))
    node.backend("nftables").sync(state)
    table = node.nft[Family.IPV4]
    table.written.clear()
    table.reads = 0
    backend = node.backend("nftables")
    backend.reread()
    assert backend.sync(state).writes == 0
    assert (table.reads, table.written) == (1, [])


def test_a_full_sync_reads_only_what_others_may_have_changed() -> None:
    node, state = FakeNode(), wanted(web(A, B))
    table = node.nft[Family.IPV4]
    backend = node.backend("nftables")
    backend.reread()
    backend.sync(state)
    table.reads = 0
    # The first reading may have lacked something: the kernel may have been busy with its own.
    backend.reread()
    assert table.reads == 1
    assert backend.sync(state).writes == 0
    table.reads = 0
    backend.reread()
    assert backend.sync(wanted(web(A))).writes > 0
    backend.reread()
    assert table.reads == 0
    table.change_elsewhere()
    backend.reread()
    assert table.reads == 1
    assert backend.sync(wanted(web(A))).writes == 0


def test_what_others_change_during_a_sync_is_not_overlooked() -> None:
    node = FakeNode()
    table = node.nft[Family.IPV4]
    backend = node.backend("nftables")
    backend.reread()
    table.change_elsewhere()
    backend.sync(wanted(web(A)))
    table.reads = 0
    backend.reread()
    assert table.reads == 1


def test_the_table_of_another_proxy_is_replaced_in_one_transaction() -> None:
    """kube-proxy's own table has this name, and is made otherwise."""
    node, state = FakeNode(), wanted(web(A, B))
    table = node.nft[Family.IPV4]
    table.run(
        [
            AddTable(),
            AddSet(
                "service-ips", SetSpec((Field.IPV4, Field.PROTOCOL, Field.PORT), verdicts=True)
            ),
            AddChain("filter-forward", BaseChain("filter", Hook.FORWARD, -110)),
        ]
    )
    table.written.clear()
    assert node.backend("nftables").sync(state).failures == ()
    assert len(table.written) == 1
    assert written(node)[:2] == [DelTable(), AddTable()]
    assert node.contents()["nft"] == fresh(state).contents()["nft"]


def test_what_this_program_cannot_have_made_is_told_and_replaced() -> None:
    """A set of a type that it does not know, a base chain that drops by default."""
    node, state = FakeNode(), wanted(web(A))
    backend = node.backend("nftables")
    backend.sync(state)
    table = node.nft[Family.IPV4]
    known = table.read()
    assert known is not None
    table.read = lambda: replace(known, unknown=("chain closed",))  # type: ignore[method-assign]
    (told,) = backend.differences(state)
    assert (told.kind, told.name, told.deviation) == (
        "other object",
        "chain closed",
        Deviation.UNEXPECTED,
    )
    table.change_elsewhere()
    backend.reread()
    assert backend.sync(state).failures == ()
    assert written(node)[:2] == [DelTable(), AddTable()]


def test_a_changed_address_of_the_node_touches_no_service() -> None:
    node = FakeNode()
    backend = node.backend("nftables")
    ports = NodePorts(everywhere=False, addresses=(Address("192.168.1.1"),))
    state = msgspec.structs.replace(wanted(web(A, B)), node_ports=ports)
    backend.sync(state)
    moved = msgspec.structs.replace(ports, addresses=(Address("192.168.1.9"),))
    backend.sync(msgspec.structs.replace(state, node_ports=moved))
    spec = layout.set_specs(Family.IPV4)[layout.NODEPORT_IPS]
    assert written(node) == [
        DelElements(layout.NODEPORT_IPS, spec, [b"\xc0\xa8\x01\x01"]),
        AddElements(layout.NODEPORT_IPS, spec, {b"\xc0\xa8\x01\x09": None}),
    ]


def test_cleanup_removes_the_table_and_absent_is_fine() -> None:
    node = FakeNode()
    backend = node.backend("nftables")
    assert not backend.left_over()
    assert backend.cleanup() == 0
    backend.sync(wanted(web(A)))
    assert backend.left_over()
    assert backend.cleanup() > 0
    assert not backend.left_over()
    assert backend.sync(wanted(web(A))).writes > 0
    assert backend.left_over()


def test_a_missing_feature_is_told() -> None:
    node = FakeNode()
    assert node.backend("nftables").supported() is None
    node.nft[Family.IPV4].missing = "this kernel's nftables lacks: numgen"
    assert node.backend("nftables").supported() == "this kernel's nftables lacks: numgen"


@pytest.mark.parametrize(("clean_last", "left"), [(False, 1), (True, 0)])
def test_flows_of_a_last_endpoint_stay_unless_asked_otherwise(clean_last: bool, left: int) -> None:
    node = FakeNode()
    backend = node.backend("nftables", Options(clean_last=clean_last))
    service = web(A, protocol=Protocol.UDP)
    backend.sync(wanted(service))
    node.conntrack.table.append(udp_flow(A))
    none = msgspec.structs.replace(service, cluster=(), known=(), anywhere=False)
    backend.sync(wanted(none))
    assert len(node.conntrack.table) == left


def udp_flow(endpoint: str) -> Flow:
    pod, source, to = map(ipaddress.ip_address, (endpoint, "10.0.0.9", "10.96.0.10"))
    return Flow(Transport.UDP, source, 4444, to, 80, pod, 8080, source, 4444)


def test_ipv6_forwarding_waits_for_a_service() -> None:
    """A node that forwards does not listen to router advertisements any more."""
    node = FakeNode()
    backend = node.backend("nftables", family=Family.IPV6)
    empty = State(family=Family.IPV6, services={}, service_cidrs=(Prefix("fd00:10:96::/112"),))
    backend.sync(empty)
    assert node.sysctl.values["net/ipv6/conf/all/forwarding"] == "0"
    assert node.nft[Family.IPV6].exists()


def test_more_endpoints_than_are_prepared_for() -> None:
    node = FakeNode()
    pods = [f"10.128.{n // 250}.{n % 250 + 1}" for n in range(300)]
    assert node.backend("nftables").sync(wanted(web(*pods))).failures == ()
    table = node.nft[Family.IPV4].read()
    assert table is not None
    assert len(table.elements[layout.ENDPOINTS]) == 300
    assert "pick-300" in table.chains


def test_the_readme_names_every_set() -> None:
    readme = Path(layout.__file__).with_name("README.md").read_text()
    assert [name for name in layout.set_specs(Family.IPV4) if f"`{name}`" not in readme] == []


def test_absurd_time_outs_of_affinity_do_not_make_the_kernel_refuse_everything() -> None:
    for seconds in (0, 10**12):
        one = web(A)
        sticky = msgspec.structs.replace(
            one, service=msgspec.structs.replace(one.service, affinity_seconds=seconds)
        )
        node = FakeNode()
        node.backend("nftables").sync(wanted(sticky))
        table = node.nft[Family.IPV4].read()
        assert table is not None
        rules = table.chains["sticky-tcp-10.96.0.10-80"].rules
        times = {one.timeout_ms for rule in rules for one in rule if isinstance(one, ChangeSet)}
        assert times <= {1000, 86_400_000}
