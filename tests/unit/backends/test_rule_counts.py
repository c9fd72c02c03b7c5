"""How many rules there are and were written, as metrics tell it: kept up, and never wrong."""

import msgspec
import pytest
from fake_node import FakeNode, wanted, web
from test_iptables_backend import A, B, many, named

from kproxy.backends import chains
from kproxy.backends.base import RuleCount, SyncResult
from kproxy.backends.iptables import base_rules, render
from kproxy.desired.model import Family, NodePorts, State


def told(result: SyncResult) -> dict[str, tuple[int, int]]:
    return {one.table: (one.total, one.written) for one in result.rules}


def held(node: FakeNode) -> dict[str, int]:
    """Return how many rules the kernel has in chains of ours."""
    return {
        table: sum(len(chain.rules) for name, chain in held.items() if chains.is_ours(name))
        for table, held in node.iptables.save(*chains.TABLES).items()
    }


def test_a_first_sync_writes_all_that_there_is() -> None:
    node = FakeNode()
    counts = told(node.backend("iptables").sync(wanted(*many(5, sticky=(1,)))))
    assert counts == {table: (total, total) for table, total in held(node).items()}
    assert counts["nat"][0] > counts["filter"][0] > 0


def test_a_change_writes_the_rules_of_what_changes() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    services = many(5)
    backend.sync(wanted(*services))
    assert told(backend.sync(wanted(*services)))["nat"] == (held(node)["nat"], 0)
    services[2] = named("s02", A, B, number=2)
    # Two endpoints with two rules each, and a chain with one for who is no pod and two picks.
    assert told(backend.sync(wanted(*services)))["nat"] == (held(node)["nat"], 2 * 2 + 3)
    total = held(node)
    del services[0]
    counts = told(backend.sync(wanted(*services)))
    assert {table: count for table, (count, _) in counts.items()} == held(node)
    assert held(node)["nat"] < total["nat"]


def test_a_restarted_proxy_counts_what_it_finds() -> None:
    node = FakeNode()
    node.backend("iptables").sync(wanted(*many(5)))
    counts = told(node.backend("iptables").sync(wanted(*many(5))))
    assert counts == {table: (total, 0) for table, total in held(node).items()}


def test_rules_that_are_refused_are_not_counted() -> None:
    node = FakeNode()
    node.iptables.reject = ("-m recent",)
    backend = node.backend("iptables")
    result = backend.sync(wanted(*many(10, sticky=(3, 4))))
    assert len(result.refused) == 2
    assert {table: count for table, (count, _) in told(result).items()} == held(node)


def test_what_fails_as_a_whole_is_not_counted() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    before = told(backend.sync(wanted(*many(2))))
    node.iptables.fail_restore = 1
    result = backend.sync(wanted(*many(5)))
    assert result.failures
    assert told(result) == {table: (total, 0) for table, (total, _) in before.items()}
    after = told(backend.sync(wanted(*many(5))))
    assert {table: count for table, (count, _) in after.items()} == held(node)


def test_every_kind_of_change_keeps_the_count_right() -> None:
    renderer = render.Renderer()
    ports = NodePorts(localhost=True)
    states = [
        wanted(*many(4)),
        wanted(*many(7, sticky=(2, 5))),
        msgspec.structs.replace(wanted(*many(7, sticky=(2, 5))), node_ports=ports),
        msgspec.structs.replace(wanted(*many(3)), masquerade_all=True),
        wanted(web(), *many(2)),
        State(family=Family.IPV4, services={}),
    ]
    for state in states:
        renderer.render(state)
        assert renderer.counts == {
            table: sum(map(len, chains.values())) for table, chains in renderer.chains.items()
        }
    renderer.render(states[1], left_out=set(list(states[1].services)[:3]))
    assert renderer.counts["nat"] == sum(map(len, renderer.chains["nat"].values()))


@pytest.mark.parametrize("mode", ["ipvs", "nftables"])
def test_other_modes_have_no_rules_to_tell(mode: str) -> None:
    assert FakeNode().backend(mode).sync(wanted(*many(2))).rules == ()


def test_counts_are_by_table() -> None:
    node = FakeNode()
    rules = node.backend("iptables").sync(wanted()).rules
    assert [type(one) for one in rules] == [RuleCount, RuleCount]
    assert sorted(one.table for one in rules) == sorted(chains.TABLES)


def test_localhost_is_counted_by_one_rule_whatever_the_services() -> None:
    on = msgspec.structs.replace(wanted(*many(5)), node_ports=NodePorts(localhost=True))
    assert sum(count(on)) == 1
    assert sum(count(wanted(*many(5)))) == 0
    six = State(family=Family.IPV6, services={}, node_ports=NodePorts(localhost=True))
    assert sum(count(six)) == 0


def count(state: State) -> list[int]:
    table = render.render(state)["nat"]
    return [list(rules).count(base_rules.FROM_LOCALHOST) for rules in table.chains.values()]


def test_chains_that_the_kernel_still_believes_in_use_are_told_once_for_each_attempt() -> None:
    node = FakeNode()
    table = node.nft[Family.IPV4]
    table.late = True
    backend = node.backend("nftables")
    assert not backend.sync(wanted(*many(3))).uncleaned
    assert backend.sync(wanted(web())).uncleaned
    assert backend.sync(wanted(web())).uncleaned
    table.settle()
    assert not backend.sync(wanted(web())).uncleaned
    assert not backend.sync(wanted(web())).uncleaned
