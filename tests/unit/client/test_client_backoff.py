"""How long to wait before trying again."""

from itertools import islice

import pytest

from kproxy.client.backoff import Backoff, BackoffPolicy, lots

POLICY = BackoffPolicy(initial=1, factor=2, maximum=5, healthy_after=10)


def test_delays_grow_to_the_longest():
    backoff = Backoff(POLICY)
    assert [backoff.failed(0, 1) for _ in range(5)] == [1, 2, 4, 5, 5]


def test_the_lot_spreads_the_upper_half():
    assert Backoff(POLICY).failed(0, 0) == 0.5
    assert Backoff(POLICY).failed(0, 0.5) == 0.75


def test_what_has_worked_for_long_begins_anew():
    backoff = Backoff(POLICY)
    backoff.failed(0, 1)
    backoff.started(1)
    assert backoff.failed(11, 1) == 1
    assert backoff.failures == 1


def test_what_ends_at_once_again_and_again_slows_down():
    backoff = Backoff(POLICY)
    delays = []
    for now in range(3):
        backoff.started(now)
        delays.append(backoff.failed(now + 0.1, 1))
    assert delays == [1, 2, 4]


def test_a_long_outage_does_not_overflow():
    backoff = Backoff(POLICY)
    for _ in range(5000):
        assert backoff.failed(0, 1) <= 5


def test_by_default_a_change_is_seen_in_well_under_two_seconds():
    backoff = Backoff()
    assert max(backoff.failed(0, 1) for _ in range(20)) == pytest.approx(0.8)


def test_lots_are_spread_and_the_same_for_the_same_seed():
    drawn = list(islice(lots("node-1"), 1000))
    assert drawn == list(islice(lots("node-1"), 1000))
    assert drawn[:10] != list(islice(lots("node-2"), 10))
    assert min(drawn) >= 0
    assert max(drawn) <= 1
    for tenth in range(10):
        share = sum(tenth <= lot * 10 < tenth + 1 for lot in drawn)
        assert 50 < share < 150


def test_refusals_slow_down_only_when_they_go_on():
    backoff = Backoff(BackoffPolicy(initial=0.1, maximum=0.8, patience=2, refused=3))
    assert [backoff.failed(0, 1, refused=True) for _ in range(5)] == [0.1, 0.2, 3, 6, 10]
    assert backoff.impatient
    assert backoff.failed(0, 1) == 0.8, "it does not answer: it may be back at any moment"
    assert not backoff.impatient
