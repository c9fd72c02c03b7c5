"""Losses add up, whatever the witnesses say."""

from typing import Any

import numpy as np
import pytest

from kproxy.traffic import records
from kproxy.traffic.attribution import (
    REACH_NS,
    Count,
    Finder,
    Missing,
    Sighting,
    Story,
    attribute,
)
from kproxy.traffic.resultset import Cause, Loss

MS = 1_000_000
SECOND = 1000 * MS


def lost(number: int, *, since: int = SECOND, origin: str = "hit", flow: int = 1) -> list[Missing]:
    """Return packets a millisecond apart."""
    return [Missing(origin, flow, seq, since + seq * MS, "pod-a") for seq in range(number)]


def counted(place: str, cause: Cause, packets: int, **changes: Any) -> Count:
    given = Count(place, cause, packets, f"{cause.name} of {place}", 0, 10 * SECOND, 10)
    return given._replace(**changes)


def by_cause(losses: tuple[Loss, ...]) -> dict[tuple[str, Cause], int]:
    return {(one.place, one.cause): one.packets for one in losses}


def test_without_witnesses_all_is_unexplained_and_nothing_has_a_place() -> None:
    found = attribute(lost(3), [], [], Story())
    assert found == {"hit": (Loss(place="", cause=Cause.UNEXPLAINED, packets=3),)}


def test_nothing_lost_has_no_losses_whatever_counters_say() -> None:
    assert attribute([], [], [counted("node1", Cause.RULE, 9)], Story()) == {}


@pytest.mark.parametrize("seen", [0, 2, 5])
def test_a_counter_explains_what_is_left_and_says_what_it_has_too_many(seen: int) -> None:
    sightings = [Sighting(1, n, "node2", Cause.NO_ROUTE, "monitor") for n in range(seen)]
    found = attribute(lost(5), sightings, [counted("node1", Cause.RULE, 7)], Story())["hit"]
    assert sum(one.packets for one in found) == 5
    wanted = {("node2", Cause.NO_ROUTE): seen, ("node1", Cause.RULE): 5 - seen}
    assert by_cause(found) == {key: number for key, number in wanted.items() if number}
    for one in found:
        if one.cause is Cause.RULE:
            assert one.witness == f"RULE of node1: {5 - seen} (and {2 + seen} others)"


def test_counters_are_heard_in_the_order_of_the_path() -> None:
    counts = [
        counted("node2", Cause.NO_ROUTE, 10, rank=40),
        counted("node1", Cause.RULE, 3, rank=20),
    ]
    found = attribute(lost(5), [], counts, Story())["hit"]
    assert by_cause(found) == {("node1", Cause.RULE): 3, ("node2", Cause.NO_ROUTE): 2}


def test_a_counter_that_has_counted_a_packet_that_was_seen_explains_no_other_with_it() -> None:
    sightings = [Sighting(1, n, "node1", Cause.RULE, "monitor") for n in range(4)]
    found = attribute(lost(6), sightings, [counted("node1", Cause.RULE, 4)], Story())["hit"]
    assert by_cause(found) == {("node1", Cause.RULE): 4, ("", Cause.UNEXPLAINED): 2}
    assert {one.witness for one in found} == {"RULE of node1: 4; monitor: 4", ""}


def test_a_counter_explains_only_packets_of_its_time() -> None:
    early, late = lost(2), lost(3, since=5 * SECOND, flow=2)
    count = counted("node1", Cause.RULE, 9, since_ns=5 * SECOND + REACH_NS, until_ns=9 * SECOND)
    found = attribute([*early, *late], [], [count], Story())["hit"]
    assert by_cause(found) == {("node1", Cause.RULE): 3, ("", Cause.UNEXPLAINED): 2}


def test_no_count_is_used_twice_by_two_senders() -> None:
    two = [*lost(3), *lost(3, origin="other", flow=2)]
    found = attribute(two, [], [counted("node2", Cause.NO_ROUTE, 4)], Story())
    assert sum(one.packets for losses in found.values() for one in losses) == 6
    routeless = [
        one.packets for losses in found.values() for one in losses if one.cause is Cause.NO_ROUTE
    ]
    assert sum(routeless) == 4


def test_a_counter_of_one_senders_link_explains_no_other_senders_packets() -> None:
    count = counted("client1>node1", Cause.LINK, 9, origins=frozenset({"hit"}))
    found = attribute([*lost(2), *lost(2, origin="other", flow=2)], [], [count], Story())
    assert by_cause(found["hit"]) == {("client1>node1", Cause.LINK): 2}
    assert by_cause(found["other"]) == {("", Cause.UNEXPLAINED): 2}


def test_a_pods_counter_explains_no_packets_of_another_pods_flows() -> None:
    count = counted("pod-b", Cause.RECEIVER, 9, target="pod-b")
    assert by_cause(attribute(lost(2), [], [count], Story())["hit"]) == {
        ("", Cause.UNEXPLAINED): 2
    }


def test_what_did_not_come_past_includes_what_was_lost_before() -> None:
    counts = [
        counted("client1>node1", Cause.LINK, 2, rank=10),
        counted("node1", Cause.NO_DESTINATION, 5, rank=23, missing=True),
    ]
    found = attribute(lost(6), [], counts, Story())["hit"]
    assert by_cause(found) == {
        ("client1>node1", Cause.LINK): 2,
        ("node1", Cause.NO_DESTINATION): 3,
        ("", Cause.UNEXPLAINED): 1,
    }


def test_what_was_lost_behind_had_come_past() -> None:
    late = Missing("hit", 2, 0, SECOND, "pod-a", late=True)
    sightings = [
        Sighting(1, 0, "client1>node1", Cause.LINK, "monitor", rank=10),
        Sighting(1, 1, "pod-a", Cause.REFUSED, "monitor", rank=60),
    ]
    count = counted("node1", Cause.NO_DESTINATION, 4, rank=23, missing=True)
    found = attribute([*lost(5), late], sightings, [count], Story())["hit"]
    assert by_cause(found) == {
        ("client1>node1", Cause.LINK): 1,
        ("pod-a", Cause.REFUSED): 1,
        ("pod-a", Cause.LATE): 1,
        ("node1", Cause.NO_DESTINATION): 3,
    }


def test_a_counter_knows_better_than_who_only_saw_where() -> None:
    seen = [Sighting(1, n, "node1", Cause.RULE, "monitor", open=True) for n in range(4)]
    counts = [counted("node1", Cause.CONNTRACK_FULL, 3), counted("node2", Cause.NO_ROUTE, 9)]
    found = attribute(lost(4), seen, counts, Story())["hit"]
    assert by_cause(found) == {("node1", Cause.CONNTRACK_FULL): 3, ("node1", Cause.RULE): 1}


def test_the_time_line_tells_a_dead_backend_and_a_stale_entry_from_a_missing_route() -> None:
    packets = lost(9, since=SECOND)
    sightings = [Sighting(1, n, "node2", Cause.NO_ROUTE, "monitor", "pod-a") for n in range(9)]
    story = Story(gone={"pod-a": SECOND - MS}, forgotten={("hit", "pod-a"): packets[5].sent_ns})
    found = attribute(packets, sightings, [], story)["hit"]
    assert by_cause(found) == {
        ("node2", Cause.DEAD_BACKEND): 6,
        ("node2", Cause.CONNTRACK_STALE): 3,
    }
    assert "pod-a was gone: 6" in found[0].witness


def test_what_was_for_no_pod_yet_was_not_lost_by_the_end_of_one() -> None:
    sightings = [
        Sighting(1, 0, "node1", Cause.NO_ROUTE, "monitor", ""),
        Sighting(1, 1, "node1", Cause.NO_ROUTE, "monitor", None),
    ]
    found = attribute(lost(2), sightings, [], Story(gone={"pod-a": 0}))["hit"]
    assert by_cause(found) == {
        ("node1", Cause.DEAD_BACKEND): 1,
        ("node1", Cause.NO_ROUTE): 1,
    }


def test_a_rule_that_drops_is_a_rule_also_for_packets_to_the_dead() -> None:
    sightings = [Sighting(1, 0, "node1", Cause.RULE, "monitor", "pod-a")]
    found = attribute(lost(1), sightings, [], Story(gone={"pod-a": 0}))["hit"]
    assert by_cause(found) == {("node1", Cause.RULE): 1}


def test_late_is_late_whoever_else_says_something() -> None:
    packet = Missing("hit", 1, 0, SECOND, "pod-a", late=True)
    sightings = [Sighting(1, 0, "node1", Cause.RULE, "monitor")]
    found = attribute([packet], sightings, [], Story())["hit"]
    assert by_cause(found) == {("pod-a", Cause.LATE): 1}


def sent(*packets: tuple[int, int, int, int]) -> np.ndarray:
    return np.array([(*one, 0) for one in packets], records.SENT_FIELDS)


def received(*packets: tuple[int, int, int]) -> np.ndarray:
    return np.array([(flow, seq, 0, ns) for flow, seq, ns in packets], records.RECEIVED_FIELDS)


SENT, FAILED = records.STATUS_SENT, records.STATUS_FAILED


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_lost_packets_are_found_with_who_had_their_flow(cut: int) -> None:
    packets = sent(
        (1, 0, 10, SENT),
        (2, 0, 11, SENT),
        (1, 1, 20, SENT),
        (2, 1, 21, FAILED),
        (1, 2, 30, SENT),
        (2, 2, 31, SENT),
        (1, 3, 99, SENT),
    )
    arrived = {
        "pod-a": received((1, 0, 12), (1, 0, 13)),
        "pod-b": received((2, 0, 12), (1, 2, 45)),
    }
    finder = Finder("hit", end_ns=50, tmax_ns=10)
    for part in (packets[:cut], packets[cut:]):
        finder.add(part, {pod: whose(part, found) for pod, found in arrived.items()})
    assert finder.found == [
        Missing("hit", 1, 1, 20, "pod-a"),
        Missing("hit", 1, 2, 30, "pod-b", late=True),
        Missing("hit", 2, 2, 31, "pod-b"),
    ]


def whose(part: np.ndarray, arrived: np.ndarray) -> np.ndarray:
    keys = set(zip(part["flow"].tolist(), part["seq"].tolist(), strict=True))
    mask = [key in keys for key in zip(arrived["flow"], arrived["seq"], strict=True)]
    return arrived[np.array(mask, bool)]


def test_nothing_arrived_at_all() -> None:
    finder = Finder("hit", end_ns=50, tmax_ns=10)
    finder.add(sent((1, 0, 10, SENT)), {})
    assert finder.found == [Missing("hit", 1, 0, 10)]
