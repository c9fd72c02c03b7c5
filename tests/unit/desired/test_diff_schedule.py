"""The difference of mappings, and when to sync."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.desired.diff import Change, diff
from kproxy.desired.schedule import Schedule

MAPPINGS = st.dictionaries(st.integers(0, 8), st.integers(0, 2))


@given(MAPPINGS, MAPPINGS)
def test_applying_a_difference_leads_to_what_is_wanted(have, want):
    difference = diff(have, want)
    result = {key: value for key, value in have.items() if key not in difference.remove}
    for key, change in difference.change.items():
        assert result[key] == change.have
        result[key] = change.want
    assert not result.keys() & difference.add.keys()
    result.update(difference.add)
    assert result == want
    assert bool(difference) == (have != want)


def test_a_change_tells_both_values():
    assert diff({"a": 1}, {"a": 2}).change == {"a": Change(1, 2)}


def test_the_same_object_is_not_compared():
    class Incomparable:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("compared")

    value = Incomparable()
    assert not diff({"a": value}, {"a": value})


def run(schedule, now, *, good=True):
    schedule.started(now)
    if good:
        schedule.succeeded(now)
    else:
        schedule.failed(now)


def test_nothing_is_due_unasked_until_the_longest_interval():
    schedule = Schedule(now=100, min_interval=1, max_interval=30)
    assert not schedule.due(100)
    assert schedule.next_deadline() == 130
    assert schedule.due(130)
    run(schedule, 130)
    assert schedule.next_deadline() == 160


def test_without_a_longest_interval_nothing_is_ever_due_unasked():
    assert Schedule(now=0, min_interval=1).next_deadline() == math.inf


def test_a_first_request_is_due_at_once():
    schedule = Schedule(now=0, min_interval=1)
    schedule.request(0.5)
    assert schedule.due(0.5)
    assert schedule.pending_since == 0.5


def test_requests_soon_after_a_run_wait_for_the_shortest_interval():
    schedule = Schedule(now=0, min_interval=1, max_interval=30)
    schedule.request(0)
    run(schedule, 0)
    schedule.request(0.2)
    schedule.request(0.7)
    assert schedule.next_deadline() == 1
    assert not schedule.due(0.9)
    assert schedule.due(1)
    run(schedule, 1)
    assert schedule.pending_since is None
    assert schedule.next_deadline() == 31


def test_without_a_shortest_interval_every_request_is_due_at_once():
    schedule = Schedule(now=0, min_interval=0)
    for now in (1.0, 1.001, 1.002):
        schedule.request(now)
        assert schedule.due(now)
        run(schedule, now)


def test_a_burst_is_let_through_after_a_quiet_time():
    schedule = Schedule(now=0, min_interval=1, burst=2)
    for now, deadline in ((10, 10), (10.1, 10.1), (10.2, 11)):
        schedule.request(now)
        assert schedule.next_deadline() == pytest.approx(deadline)
        run(schedule, schedule.next_deadline())


def test_a_failure_is_tried_again_later():
    schedule = Schedule(now=0, min_interval=0, max_interval=30, retry_interval=5)
    schedule.request(1)
    run(schedule, 1, good=False)
    assert schedule.next_deadline() == 6
    assert schedule.pending_since == 1, "what failed is still pending"
    run(schedule, 6)
    assert schedule.pending_since is None
    assert schedule.next_deadline() == 36


def test_a_request_does_not_wait_for_what_keeps_failing():
    schedule = Schedule(now=0, min_interval=1, max_interval=100, retry_max=30)
    for now in (0, 1, 3, 7, 15, 31):
        schedule.request(now)
        run(schedule, now, good=False)
    assert schedule.next_deadline() == 61
    schedule.request(31.2)
    assert schedule.next_deadline() == 32, "the shortest interval is all it waits for"
    assert schedule.pending_since == 0
    run(schedule, 32)
    assert schedule.pending_since is None
    assert schedule.next_deadline() == 132


def test_what_keeps_failing_is_tried_less_and_less_often():
    schedule = Schedule(now=0, min_interval=0, retry_interval=1, retry_max=30)
    waits = []
    for _ in range(7):
        schedule.started(0)
        waits.append(schedule.failed(0))
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    schedule.started(0)
    schedule.succeeded(0)
    schedule.started(0)
    assert schedule.failed(0) == 1, "a success begins anew"


def test_a_failed_periodic_run_is_pending():
    schedule = Schedule(now=0, min_interval=0, max_interval=30)
    run(schedule, 30, good=False)
    assert schedule.pending_since == 30
    assert schedule.next_deadline() == 31


def test_a_request_during_a_run_is_for_the_next():
    schedule = Schedule(now=0, min_interval=0)
    schedule.request(1)
    schedule.started(1)
    schedule.request(2)
    schedule.succeeded(3)
    assert schedule.due(3)


@given(st.lists(st.floats(0, 3), max_size=40), st.floats(0.1, 2), st.integers(1, 3))
def test_runs_are_never_more_frequent_than_allowed(gaps, interval, burst):
    schedule = Schedule(now=0, min_interval=interval, burst=burst)
    now, runs = 0.0, []
    for gap in gaps:
        now += gap
        schedule.request(now)
        now = max(now, schedule.next_deadline())
        assert schedule.due(now)
        run(schedule, now)
        runs.append(now)
    for first, last in zip(runs, runs[burst:], strict=False):
        assert last - first >= interval - 1e-9
