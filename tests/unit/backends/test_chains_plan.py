from dataclasses import replace

from kproxy.backends import chains
from kproxy.backends.chains import NOTHING, WantedTable
from kproxy.kernel.iptables.fake import FakeIptables
from kproxy.kernel.iptables.types import BUILTIN_CHAINS, Chain, TableChange

JUMP = "-A PREROUTING -j KUBE-SERVICES"
WANT = {
    "nat": WantedTable(
        chains={
            "KUBE-SERVICES": ("-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-A",),
            "KUBE-SVC-A": ("-A KUBE-SVC-A -j ACCEPT",),
        },
        jumps={"PREROUTING": (JUMP,)},
    )
}


def builtin(*rules: str) -> Chain:
    return Chain(rules, "ACCEPT")


def ruleset(**nat: Chain) -> dict[str, dict[str, Chain]]:
    names = {name.replace("_", "-"): chain for name, chain in nat.items()}
    return {"nat": {"PREROUTING": builtin(), **names}}


RIGHT = chains.applied(ruleset(), chains.plan(ruleset(), WANT))


def test_from_nothing_all_is_made() -> None:
    (change,) = chains.plan(ruleset(), WANT)
    assert change == TableChange(table="nat", replace=WANT["nat"].chains, insert=(JUMP,))


def test_what_is_right_is_not_touched() -> None:
    assert chains.plan(RIGHT, WANT) == []


def test_only_the_chain_that_differs_is_replaced() -> None:
    have = {"nat": {**RIGHT["nat"], "KUBE-SVC-A": Chain(("-A KUBE-SVC-A -j DROP",))}}
    (change,) = chains.plan(have, WANT)
    assert change == TableChange(
        table="nat", replace={"KUBE-SVC-A": WANT["nat"].chains["KUBE-SVC-A"]}
    )


def test_a_lost_chain_and_a_lost_jump_come_back() -> None:
    table = {name: chain for name, chain in RIGHT["nat"].items() if name != "KUBE-SVC-A"}
    (change,) = chains.plan({"nat": {**table, "PREROUTING": builtin()}}, WANT)
    assert (list(change.replace), change.insert) == (["KUBE-SVC-A"], (JUMP,))


def test_stale_chains_are_deleted_in_the_transaction_that_unlinks_them() -> None:
    have = {"nat": {**RIGHT["nat"], "KUBE-SEP-OLD": Chain(("-A KUBE-SEP-OLD -j ACCEPT",))}}
    (change,) = chains.plan(have, WANT)
    assert change == TableChange(table="nat", delete=("KUBE-SEP-OLD",))


def test_chains_and_rules_of_others_are_left_alone() -> None:
    mine = builtin(
        "-A PREROUTING -j MY-CHAIN",
        "-A PREROUTING -m comment --comment KUBE-SERVICES -j X",
        '-A PREROUTING -m comment --comment "do not -j KUBE-SERVICES here" -j ACCEPT',
    )
    others = {
        "MY-CHAIN": Chain(("-A MY-CHAIN -j ACCEPT",)),
        "KUBE-FIREWALL": Chain(("-A KUBE-FIREWALL -j DROP",)),
        "KUBE-MARK-DROP": Chain(),
    }
    builtins = {name: builtin() for name in BUILTIN_CHAINS["nat"]}
    have = {"nat": {**builtins, "PREROUTING": mine, **others}}
    (change,) = chains.plan(have, WANT)
    after = chains.applied(have, [change])
    assert after["nat"]["PREROUTING"].rules == (JUMP, *mine.rules)
    assert chains.applied(after, chains.plan(after, NOTHING)) == have


def test_a_chain_that_a_foreign_rule_uses_is_emptied_not_deleted() -> None:
    """Else the whole transaction would fail: the kernel deletes no chain in use."""
    have = {"nat": {**RIGHT["nat"], "MY-CHAIN": Chain(("-A MY-CHAIN -j KUBE-SVC-A",))}}
    (change,) = chains.plan(have, NOTHING)
    assert change.delete == ("KUBE-SERVICES",)
    assert change.replace == {"KUBE-SVC-A": ()}
    assert chains.plan(chains.applied(have, [change]), NOTHING) == []


def test_counting_writes() -> None:
    assert chains.writes(chains.plan(ruleset(), WANT)) == 3


def many(count: int) -> dict[str, WantedTable]:
    made: dict[str, tuple[str, ...]] = {"KUBE-SERVICES": ()}
    for number in range(count):
        service, endpoint = f"KUBE-SVC-{number}", f"KUBE-SEP-{number}"
        made["KUBE-SERVICES"] += (f"-A KUBE-SERVICES -d 10.0.0.{number}/32 -j {service}",)
        made[service] = (f"-A {service} -j {endpoint}",)
        made[endpoint] = (f"-A {endpoint} -j KUBE-MARK-MASQ", f"-A {endpoint} -j ACCEPT")
    made["KUBE-MARK-MASQ"] = ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x1/0x1",)
    return {"nat": WantedTable(chains=made, jumps={"PREROUTING": (JUMP,)})}


def test_very_many_new_chains_come_in_steps_that_never_dangle() -> None:
    old = chains.plan(ruleset(), WANT)
    kernel = FakeIptables()
    kernel.restore(old)
    have = kernel.save("nat")
    changes = chains.plan(have, many(25))
    steps = chains.in_steps(changes, have, 10)
    assert len(steps) == 7
    assert [len(step.replace) for step in steps] == [10, 10, 10, 10, 10, 1, 1]
    for step in steps[:-1]:
        kernel.restore([step])  # refuses what leads to nowhere
        assert kernel.save("nat")["nat"]["KUBE-SERVICES"] == have["nat"]["KUBE-SERVICES"]
        assert (step.remove, step.insert, step.delete) == ((), (), ())
    kernel.restore(steps[-1:])
    after = kernel.save("nat")
    assert (
        after["nat"] == chains.applied(have, changes)["nat"] == chains.applied(have, steps)["nat"]
    )
    assert chains.plan(after, many(25)) == []
    assert chains.writes(steps) == chains.writes(changes)


def test_few_new_chains_and_those_that_change_are_one_step() -> None:
    kernel = FakeIptables()
    kernel.restore(chains.plan(ruleset(), many(25)))
    have = kernel.save("nat")
    wanted = many(25)["nat"]
    dropping = {
        name: (f"-A {name} -j DROP",) for name in wanted.chains if name.startswith("KUBE-SEP-")
    }
    other = {"nat": replace(wanted, chains={**wanted.chains, **dropping})}
    changes = chains.plan(have, other)
    assert chains.in_steps(changes, have, 10) == changes
    assert chains.in_steps(chains.plan(ruleset(), many(3)), ruleset(), 10)[1:] == []
    assert len(chains.in_steps(chains.plan(ruleset(), many(25)), ruleset(), None)) == 1
