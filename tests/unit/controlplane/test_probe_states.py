"""Probes: ticks, thresholds and draws, on numbers only."""

import pytest

from kproxy.api.pods import Probe
from kproxy.controlplane.probes import Kind, ProbeState, draw


def state(kind: Kind = Kind.READINESS, *, started: float = 0.0, phase: float = 0.0, **probe: int):
    return ProbeState(Probe(**probe), kind, started, phase)


def results(one: ProbeState, *successes: bool) -> list[object]:
    """Give results at every tick; return the verdict after each."""
    verdicts = []
    for success in successes:
        now = one.due
        one.begin(now)
        one.ended(success, now)
        verdicts.append(one.verdict)
    return verdicts


def test_verdicts_before_the_first_result():
    found = [state(kind).verdict for kind in (Kind.STARTUP, Kind.LIVENESS, Kind.READINESS)]
    assert found == [None, True, False]


def test_one_success_is_enough_and_three_failures_are_needed_by_default():
    assert results(state(), True, False, False, False) == [True, True, True, False]


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_success_threshold(threshold):
    one = state(success_threshold=threshold)
    assert results(one, *[True] * threshold) == [*[False] * (threshold - 1), True]


def test_a_success_in_between_starts_the_count_of_failures_anew():
    one = state(Kind.LIVENESS, failure_threshold=2)
    assert results(one, False, True, False, True, False, False) == [True] * 5 + [False]


def test_a_failure_in_between_starts_the_count_of_successes_anew():
    one = state(success_threshold=2)
    assert results(one, True, False, True, True) == [False, False, False, True]


def test_ticks_come_every_period_from_the_phase_on():
    one = state(started=100.0, phase=0.5, period_seconds=10)
    due = []
    for _ in range(3):
        due.append(one.due)
        one.begin(one.due)
        one.ended(True, due[-1] + 0.1)
    assert due == [105.0, 115.0, 125.0]


def test_ticks_within_the_initial_delay_pass_unused():
    assert state(started=100.0, period_seconds=10, initial_delay_seconds=5).due == 110.0
    assert state(started=100.0, period_seconds=10, initial_delay_seconds=10).due == 110.0
    assert state(started=100.0, period_seconds=10, initial_delay_seconds=11).due == 120.0


def test_ticks_that_come_while_a_probe_is_under_way_are_lost():
    one = state(period_seconds=1)
    one.begin(0.0)
    one.ended(False, 3.5)
    assert one.due == 4.0


def test_a_trigger_probes_at_once_and_in_periods_from_then_on():
    one = state(phase=0.9, period_seconds=10)
    one.trigger(3.0)
    assert one.due == 3.0
    one.begin(3.0)
    assert one.due == 13.0


def test_a_trigger_respects_the_initial_delay():
    one = state(period_seconds=10, initial_delay_seconds=20)
    one.trigger(3.0)
    assert one.due == 23.0


def test_draws_depend_on_the_words_only_and_are_spread():
    assert draw("a", "b") == draw("a", "b") != draw("a", "c")
    drawn = [draw(str(number)) for number in range(1000)]
    assert 0.0 <= min(drawn) < 0.01
    assert 0.99 < max(drawn) < 1.0
    assert sum(drawn) / 1000 == pytest.approx(0.5, abs=0.05)


def test_a_very_long_initial_delay_is_skipped_at_once(monkeypatch):
    class Steps(int):
        """A period that notes how often it is added."""

        taken = 0

        def __radd__(self, other):
            Steps.taken += 1
            assert Steps.taken < 10
            return other + int(self)

    one = state(period_seconds=Steps(1), initial_delay_seconds=2**31 - 1)
    assert one.due == 2**31 - 1
