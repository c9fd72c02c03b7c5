"""How long to wait before trying again."""

import pytest

from kproxy.client.backoff import Backoff, BackoffPolicy

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
