"""iptables mode: what is written, what is left out, and what happens to those who stand by."""

import msgspec
import pytest
from fake_node import FakeNode, wanted, web

from kproxy.backends.base import Deviation, Options
from kproxy.backends.iptables import base_rules, isolate
from kproxy.desired.model import NodePorts, Protocol, ServicePortName, ServiceState, State
from kproxy.kernel.iptables.types import RuleRefused, TableChange

A, B, C = "10.128.0.1", "10.128.0.2", "10.128.0.3"


def named(
    name: str, *addresses: str, number: int = 1, affinity: int | None = None
) -> ServiceState:
    made = web(*addresses, ip=f"10.96.0.{number}")
    port = msgspec.structs.replace(
        made.service,
        name=ServicePortName("demo", name, "http", Protocol.TCP),
        affinity_seconds=affinity,
        node_port=30000 + number,
    )
    return msgspec.structs.replace(made, service=port)


def many(count: int, *, sticky: tuple[int, ...] = ()) -> list[ServiceState]:
    """Return services of which some have affinity, with one endpoint each."""
    return [
        named(f"s{n:02}", f"10.128.1.{n}", number=n, affinity=60 if n in sticky else None)
        for n in range(count)
    ]


def rules(node: FakeNode, table: str = "nat") -> str:
    saved = node.iptables.save(table)[table]
    return "\n".join(rule for chain in saved.values() for rule in chain.rules)


def test_a_changed_endpoint_writes_only_the_chains_of_its_service() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    services = many(5)
    backend.sync(wanted(*services))
    node.iptables.restored.clear()
    saves = node.iptables.saves
    services[2] = named("s02", A, B, number=2)
    result = backend.sync(wanted(*services))
    (change,) = node.iptables.restored
    kinds = sorted(chain[:9] for chain in change.replace)
    assert (change.table, kinds) == ("nat", ["KUBE-SEP-", "KUBE-SEP-", "KUBE-SVC-"])
    assert [chain[:9] for chain in change.delete] == ["KUBE-SEP-"]
    assert (change.insert, change.remove, change.append) == ((), (), ())
    assert result.writes == 4
    assert node.iptables.saves == saves


@pytest.mark.parametrize("anonymous", [False, True], ids=["named", "anonymous"])
@pytest.mark.parametrize("sticky", [(3,), (0, 1), (2, 5, 9), tuple(range(10))])
def test_services_whose_rules_are_refused_do_not_block_the_others(
    sticky: tuple[int, ...], anonymous: bool
) -> None:
    node = FakeNode()
    node.iptables.reject, node.iptables.anonymous = ("-m recent",), anonymous
    result = node.backend("iptables").sync(wanted(*many(10, sticky=sticky)))
    assert result.failures == ()
    assert [str(error)[:28] for error in result.refused] == [
        f"rules of Service demo/s{n:02}:htt"[:28] for n in sticky
    ]
    good = FakeNode()
    others = [one for number, one in enumerate(many(10)) if number not in sticky]
    good.backend("iptables").sync(wanted(*others))
    assert node.contents()["rules"] == good.contents()["rules"]


def test_what_is_refused_is_tried_again_when_it_changes_or_all_is_read_again() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    node.iptables.reject = ("-m recent",)
    services = many(3, sticky=(1,))
    assert len(backend.sync(wanted(*services)).refused) == 1
    restores = len(node.iptables.restored)
    assert len(backend.sync(wanted(*services)).refused) == 1
    assert len(node.iptables.restored) == restores

    services[1] = many(3)[1]
    assert backend.sync(wanted(*services)).refused == ()
    assert "10.128.1.1:8080" in rules(node)

    services = many(3, sticky=(1,))
    assert len(backend.sync(wanted(*services)).refused) == 1
    assert "10.128.1.1:8080" not in rules(node)
    node.iptables.reject = ()
    backend.reread()
    assert backend.sync(wanted(*services)).refused == ()
    assert "-m recent" in rules(node)


@pytest.mark.parametrize("anonymous", [False, True])
def test_while_the_refused_is_searched_the_others_keep_what_they_have(anonymous: bool) -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    backend.sync(wanted(*many(8)))
    node.iptables.reject, node.iptables.anonymous = ("-m recent",), anonymous
    node.iptables.restored.clear()
    # All change, one of them badly.
    services = [named(f"s{n:02}", A, f"10.128.1.{n}", number=n) for n in range(8)]
    services[5] = named("s05", A, number=5, affinity=60)
    result = backend.sync(wanted(*services))
    assert (len(result.refused), result.failures) == (1, ())
    bad = {chain for change in node.iptables.restored for chain in change.delete}
    assert {chain[:9] for chain in bad} == {"KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-"}
    assert len(bad) == 3


def test_a_refusal_that_is_nobodys_is_a_failure() -> None:
    node = FakeNode()
    node.iptables.reject = ("KUBE-POSTROUTING -j MASQ", "--random-fully")
    result = node.backend("iptables").sync(wanted(*many(3)))
    assert (len(result.failures), result.refused) == (1, ())
    node.iptables.reject = ()
    assert node.backend("iptables").sync(wanted(*many(3))).failures == ()


def test_a_chain_that_somebody_else_deleted_is_no_fault_of_who_leads_to_it() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    services = many(3)
    backend.sync(wanted(*services))
    right = node.contents()
    lost = {
        "KUBE-MARK-MASQ": (),
        **{c: () for c in node.iptables.save("nat")["nat"] if "EXT" in c},
    }
    lost |= {
        c: () for c in node.iptables.save("nat")["nat"] if c[:9] in ("KUBE-SVC-", "KUBE-SEP-")
    }
    node.iptables.restore([TableChange("nat", replace=lost)])
    node.iptables.restore([TableChange("nat", delete=("KUBE-MARK-MASQ",))])
    services[1] = named("s01", A, number=1)
    result = backend.sync(wanted(*services))
    assert (result.failures, result.refused) == ((), ())
    backend.sync(wanted(*many(3)))
    assert node.contents() == right


def test_too_many_refusals_for_one_sync_are_found_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(isolate, "ATTEMPTS_MAX", 3)
    node = FakeNode()
    backend = node.backend("iptables")
    node.iptables.reject = ("-m recent",)
    state = wanted(*many(9, sticky=tuple(range(1, 9))))
    found = [backend.sync(state) for _ in range(4)]
    assert [len(one.refused) for one in found] == [3, 6, 8, 8]
    assert [bool(one.failures) for one in found] == [True, True, False, False]
    assert "10.128.1.0:8080" in rules(node)


def test_refusals_that_are_not_about_rules_are_failures_at_once() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    node.iptables.fail_restore = 1
    result = backend.sync(wanted(*many(3)))
    assert (len(result.failures), result.refused, len(node.iptables.restored)) == (1, (), 2)


def with_localhost(state: State) -> State:
    return msgspec.structs.replace(state, node_ports=NodePorts(localhost=True))


def test_node_ports_on_localhost_come_with_a_guard_and_both_go() -> None:
    node = FakeNode()
    before = node.contents()
    backend = node.backend("iptables")
    state = with_localhost(wanted(*many(1)))
    backend.sync(state)
    assert node.sysctl.values["net/ipv4/conf/all/route_localnet"] == "1"
    filter_ = node.iptables.save("filter")["filter"]
    assert filter_["KUBE-FIREWALL"].rules == (base_rules.GUARD,)
    for builtin in ("INPUT", "OUTPUT"):
        assert f"-A {builtin} -j KUBE-FIREWALL" in filter_[builtin].rules
    assert node.backend("iptables").sync(state).writes == 0
    assert backend.cleanup() > 0
    after = node.contents()
    assert after["rules"] == before["rules"]
    assert after["sysctl"]["net/ipv4/conf/all/route_localnet"] == "0"
    assert backend.cleanup() == 0


def test_the_guard_goes_also_where_another_mode_has_taken_the_chains() -> None:
    node = FakeNode()
    backend, heir = node.backend("iptables"), node.backend("ipvs")
    backend.sync(with_localhost(wanted(*many(1))))
    heir.sync(wanted(*many(1)))
    before = node.iptables.save("filter", "nat")
    assert backend.cleanup(keep_chains=True) > 0
    after = node.iptables.save("filter", "nat")
    assert after["nat"] == before["nat"]
    assert before["filter"].keys() - after["filter"].keys() == {"KUBE-FIREWALL"}
    assert node.sysctl.values["net/ipv4/conf/all/route_localnet"] == "0"
    assert heir.differences(wanted(*many(1))) == []
    assert backend.cleanup(keep_chains=True) == 0


def test_the_kubelets_firewall_is_added_to_and_never_taken_away() -> None:
    node = FakeNode()
    foreign = "-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP"
    node.iptables.load(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        ":KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n-A INPUT -j KUBE-FIREWALL\n"
        f"-A OUTPUT -j KUBE-FIREWALL\n{foreign}\nCOMMIT\n"
    )
    backend = node.backend("iptables")
    backend.sync(with_localhost(wanted(*many(1))))
    backend.cleanup()
    filter_ = node.iptables.save("filter")["filter"]
    assert filter_["KUBE-FIREWALL"].rules == (foreign, base_rules.GUARD)
    assert filter_["INPUT"].rules == ("-A INPUT -j KUBE-FIREWALL",)
    assert node.sysctl.values["net/ipv4/conf/all/route_localnet"] == "1"


def test_differences_name_the_service() -> None:
    node = FakeNode()
    backend = node.backend("iptables")
    state = wanted(*many(3))
    backend.sync(state)
    assert backend.differences(state) == []
    nat = node.iptables.save("nat")["nat"]
    (sep,) = (
        c for c, one in nat.items() if c.startswith("KUBE-SEP-") and "10.128.1.2" in str(one)
    )
    portals = tuple(rule for rule in nat["KUBE-SERVICES"].rules if "s01" not in rule)
    node.iptables.restore([
        TableChange("nat", replace={sep: (), "KUBE-SERVICES": portals, "KUBE-SVC-X": ()},
                    remove=(nat["OUTPUT"].rules[0],)),
    ])  # fmt: skip
    restored = len(node.iptables.restored)
    found = {
        (one.deviation, one.kind, one.name, one.service and one.service.name)
        for one in backend.differences(state)
    }
    assert found == {
        (Deviation.MISSING, "rule", f"nat {sep}", "s02"),
        (Deviation.MISSING, "rule", "nat KUBE-SERVICES", "s01"),
        (Deviation.MISSING, "rule", "nat OUTPUT", None),
        (Deviation.UNEXPECTED, "chain", "nat KUBE-SVC-X", None),
    }
    assert len(node.iptables.restored) == restored


def test_liberal_tcp_drops_nothing_that_is_out_of_window() -> None:
    for liberal in (False, True):
        node = FakeNode()
        node.backend("iptables", Options(tcp_be_liberal=liberal)).sync(wanted(*many(1)))
        assert ("INVALID" in rules(node, "filter")) is not liberal


def test_who_gets_refused_without_suspects_is_told() -> None:
    def attempt(_refused: object, _held: object) -> None:
        raise RuleRefused("iptables-restore", "no")

    with pytest.raises(RuleRefused):
        isolate.isolate([], attempt, lambda _error: None)
