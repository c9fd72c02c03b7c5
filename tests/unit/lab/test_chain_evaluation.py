"""What a pause is: changes that wait, writes that fail, things that do not happen again."""

import itertools

import pytest

from kproxy.lab.chain import evaluation
from kproxy.lab.chain.evaluation import Sync, Watch, Write

MS = 1_000_000
FAULT = 10_000 * MS
WATCH = Watch(since_ns=0, until_ns=30_000 * MS, fault_ns=FAULT)


def steady(count: int = 40, apart_ms: int = 500) -> list[Write]:
    return [
        Write(begun_ns=n * apart_ms * MS, ended_ns=(n * apart_ms + 1) * MS, version=100 + n)
        for n in range(count)
    ]


def prompt(writes: list[Write], after_ms: int = 10) -> list[Sync]:
    return [
        Sync(ns=one.ended_ns + after_ms * MS, version=one.version)
        for one in writes
        if one.version is not None
    ]


def test_changes_that_are_taken_as_usual_do_not_pause() -> None:
    found = evaluation.changes(steady(), prompt(steady()), WATCH)
    assert (found.usual_ms, found.longest_ms, found.over_ms, found.total_ms) == (10, 10, 0, 0)
    assert found.count == 40


def test_changes_wait_for_a_kernel_that_is_not_written() -> None:
    writes = steady()
    frozen, thawed = 12_000 * MS, 15_000 * MS
    syncs = [one for one in prompt(writes) if not frozen <= one.ns < thawed]
    found = evaluation.changes(writes, [*syncs, Sync(ns=thawed, version=129)], WATCH)
    # The change acknowledged at 12,001 ms is the first that is not synced in time.
    assert found.longest_ms == 15_000 - 12_001
    assert found.over_ms == 15_000 - 12_001 - 10
    # All that waited are overdue together, so the time counts once.
    assert found.total_ms == found.over_ms


def test_a_change_is_in_a_kernel_that_has_a_newer_one() -> None:
    writes = steady(2)
    found = evaluation.changes(writes, [Sync(ns=700 * MS, version=999)], WATCH)
    assert found.usual_ms == 699


def test_a_kernel_may_have_it_before_the_writer_knows() -> None:
    (write,) = steady(1)
    found = evaluation.changes([write], [Sync(ns=write.begun_ns, version=100)], WATCH)
    assert found.usual_ms == 0


def test_what_is_not_over_has_no_length() -> None:
    writes = steady()
    found = evaluation.changes(writes, prompt(writes[:30]), WATCH)
    assert (found.longest_ms, found.over_ms, found.total_ms) == (None, None, None)
    assert found.usual_ms == 10


def test_failed_writes_are_counted_from_the_first_attempt_to_the_next_success() -> None:
    writes = [
        Write(begun_ns=one.begun_ns, ended_ns=one.ended_ns, version=None)
        if 11_000 * MS <= one.begun_ns < 17_000 * MS
        else one
        for one in steady()
    ]
    found = evaluation.stalls(writes, WATCH)
    assert (found.usual_ms, found.longest_ms) == (1, 17_001 - 11_000)
    assert found.over_ms == 6_000
    assert found.failed == 12
    assert found.count == 40


def test_a_write_that_is_answered_late_is_a_stall() -> None:
    slow = Write(begun_ns=11_000 * MS, ended_ns=12_500 * MS, version=7)
    found = evaluation.stalls([*steady(20), slow], WATCH)
    assert (found.over_ms, found.failed) == (1_499, 0)


def test_writes_that_are_refused_to_the_end_are_not_over() -> None:
    writes = [*steady(30), Write(begun_ns=15_000 * MS, ended_ns=15_002 * MS, version=None)]
    assert evaluation.stalls(writes, WATCH).over_ms is None


def test_attempts_before_the_watch_do_not_count() -> None:
    early = Write(begun_ns=-5 * MS, ended_ns=-4 * MS, version=None)
    assert evaluation.stalls([early, *steady()], WATCH).failed == 0


def test_gaps_are_judged_by_those_before_the_fault() -> None:
    times = [n * 3_000 * MS for n in range(4)] + [20_000 * MS, 23_000 * MS, 26_000 * MS]
    found = evaluation.gaps(times, Watch(since_ns=0, until_ns=28_000 * MS, fault_ns=FAULT))
    assert found.usual_ms == 3_000
    assert found.longest_ms == 11_000
    assert found.over_ms == 8_000


@pytest.mark.parametrize(("until_s", "over"), [(15, 0), (16, None)])
def test_the_last_of_many_may_have_a_successor_that_is_not_due(
    until_s: int, over: float | None
) -> None:
    times = [n * 3_000 * MS for n in range(4)]
    watch = Watch(since_ns=0, until_ns=until_s * 1_000 * MS, fault_ns=FAULT)
    assert evaluation.gaps(times, watch).over_ms == over


def test_without_a_fault_nothing_is_longer_than_usual() -> None:
    writes = steady()
    quiet = Watch(since_ns=0, until_ns=30_000 * MS, fault_ns=None)
    syncs = prompt(writes[:10]) + prompt(writes[10:], after_ms=400)
    found = evaluation.changes(writes, syncs, quiet)
    assert (found.usual_ms, found.over_ms) == (400, 0)


def test_no_change_waits_for_less_than_nothing_whatever_the_order() -> None:
    writes = steady(6)
    syncs = prompt(writes)
    for order in itertools.islice(itertools.permutations(syncs), 50):
        assert evaluation.changes(writes, order, WATCH) == evaluation.changes(writes, syncs, WATCH)
