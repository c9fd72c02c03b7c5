from kproxy.backends import chains
from kproxy.backends.chains import NOTHING, WantedTable
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
