"""nftables mode: what others have made of its table is told in words, and mended."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fake_node import FakeNode, wanted, web
from nftables_node import A, B, written

from kproxy.backends.base import Deviation
from kproxy.backends.nftables import layout
from kproxy.desired import topology
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
from kproxy.kernel.nft.expressions import DROP, Decide
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    DelElements,
    DelTable,
    Field,
    FlushChain,
    Hook,
    Operation,
    SetSpec,
)

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


def test_what_this_program_cannot_have_made_is_told_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A set of a type that it does not know, a base chain that drops by default."""
    node, state = FakeNode(), wanted(web(A))
    backend = node.backend("nftables")
    backend.sync(state)
    table = node.nft[Family.IPV4]
    known = table.read()
    assert known is not None
    monkeypatch.setattr(table, "read", lambda: replace(known, unknown=("chain closed",)))
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
