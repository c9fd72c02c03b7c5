"""Steps through rules become one line for each base chain that did something."""

from collections.abc import Sequence

import frames_of
from frames_of import flow

from kproxy.kernel.nft.traced import TABLE_PREFIX, Hooked, Key, Traced
from kproxy.kernel.nft.types import Hook
from kproxy.trace import rules

CHAINS: dict[Key, Hooked] = {
    ("ip", "nat", "PREROUTING"): Hooked(Hook.PREROUTING, -100),
    ("ip", "filter", "FORWARD"): Hooked(Hook.FORWARD, 0),
    ("ip", "nat", "POSTROUTING"): Hooked(Hook.POSTROUTING, 100),
    ("inet", f"{TABLE_PREFIX}7", "prerouting"): Hooked(Hook.PREROUTING, -450),
}
COMMENTS = {5: "service portals", 9: "demo/web"}


def step(table: str, chain: str, verdict: str, handle: int = 1, kind: str = "rule") -> Traced:
    return Traced(1, "ip", table, chain, kind, handle, verdict)


def told(*steps: Traced) -> list[tuple[Hook, str, bool]]:
    found = rules.passages(steps, CHAINS, lambda one: COMMENTS.get(one.handle, ""))
    return [(one.hook, one.text, one.dropped) for one in found]


def end(table: str, chain: str) -> Traced:
    """The end of a chain, as the kernel tells it: a rule without handle."""
    return step(table, chain, "continue", 0)


def policy(table: str, chain: str, verdict: str = "accept") -> Traced:
    return step(table, chain, verdict, 0, "policy")


def test_the_chains_to_a_verdict_are_told_with_their_comments() -> None:
    assert told(
        step("nat", "PREROUTING", "jump KUBE-SERVICES", 5),
        step("nat", "KUBE-SERVICES", "jump KUBE-SVC-X"),
        step("nat", "KUBE-SVC-X", "goto KUBE-SEP-Y"),
        step("nat", "KUBE-SEP-Y", "accept", 9),
        step("filter", "FORWARD", "drop"),
    ) == [
        (
            Hook.PREROUTING,
            "ip nat PREROUTING: KUBE-SERVICES (service portals) > KUBE-SVC-X > KUBE-SEP-Y > "
            "accept (demo/web)",
            False,
        ),
        (Hook.FORWARD, "ip filter FORWARD: drop", True),
    ]


def test_chains_that_did_nothing_are_left_out() -> None:
    assert (
        told(
            step("nat", "PREROUTING", "jump KUBE-SERVICES"),
            end("nat", "KUBE-SERVICES"),
            end("nat", "PREROUTING"),
            policy("nat", "PREROUTING"),
            step("nat", "POSTROUTING", "goto OTHERS"),
            step("nat", "OTHERS", "return"),
            policy("nat", "POSTROUTING"),
        )
        == []
    )


def test_a_chain_that_left_a_mark_is_told_although_it_came_back() -> None:
    (only,) = told(
        step("nat", "PREROUTING", "jump EXT"),
        step("nat", "EXT", "jump MARK"),
        step("nat", "MARK", "continue", 3),
        end("nat", "MARK"),
        step("nat", "EXT", "accept"),
    )
    assert only[1] == "ip nat PREROUTING: EXT > MARK and back > accept"


def test_a_policy_that_drops_is_told() -> None:
    assert told(policy("filter", "FORWARD", "drop")) == [
        (Hook.FORWARD, "ip filter FORWARD: policy drop", True)
    ]


def test_the_rules_that_mark_for_tracing_are_ours_and_not_told() -> None:
    own = Traced(1, "inet", f"{TABLE_PREFIX}7", "prerouting", "rule", 2, "continue")
    assert told(own) == []


def test_legacy_rules_that_were_met_are_followed_through_their_chains() -> None:
    rows = [
        ("nat", "PREROUTING", "KUBE-SERVICES", "portals", 9),
        ("nat", "KUBE-SVC", "KUBE-SEP", "", 1),
        ("nat", "KUBE-SEP", "", "counts only", 1),
        ("nat", "KUBE-SEP", "DNAT", "", 1),
        ("nat", "KUBE-SERVICES", "KUBE-SVC", "", 1),
        ("filter", "FORWARD", "REJECT", "no endpoints", 1),
        ("filter", "LOOP", "LOOP", "", 1),
    ]
    found = rules.legacy_passages(rows)
    assert [(one.hook, one.text, one.dropped) for one in found] == [
        (
            Hook.PREROUTING,
            "legacy nat PREROUTING (by counters): KUBE-SERVICES (portals) > KUBE-SVC > KUBE-SEP"
            " > DNAT",
            False,
        ),
        (Hook.FORWARD, "legacy filter FORWARD (by counters): REJECT (no endpoints)", True),
    ]
    loop = [("nat", "OUTPUT", "A", "", 1), ("nat", "A", "A", "", 1)]
    assert [one.text for one in rules.legacy_passages(loop)] == [
        "legacy nat OUTPUT (by counters): A > A"
    ]


def traced(number: int, iif: int, data: bytes) -> Sequence[Traced]:
    head = Traced(
        number, "ip", "nat", "PREROUTING", "rule", 1, "accept", iif, 0, data[:20], data[20:40]
    )
    return head, step("nat", "PREROUTING", "accept")._replace(number=number)


def test_packets_are_told_apart_by_their_numbers_and_headers() -> None:
    one, other = flow("10.0.0.1", 5, "10.0.0.2", 6), flow("10.0.0.3", 7, "10.0.0.2", 6)
    found = rules.traversals(
        [
            *traced(1, 4, frames_of.udp(one)),
            *traced(2, 0, frames_of.tcp(other)),
        ]
    )
    assert [(each.packet.flow, each.iif, len(each.steps)) for each in found] == [
        (one, 4, 2),
        (other, 0, 2),
    ]
    assert rules.of_flow(found, other, 0) is found[1]
    assert rules.of_flow(found, other, 4) is None
    assert rules.traversals([step("nat", "PREROUTING", "accept")]) == []
