"""Calibration: the highest rate that the tester holds, and who asks for more is refused."""

import pytest

from kproxy.errors import UsageError
from kproxy.lab import selfcalibration
from kproxy.traffic import calibration, quality
from kproxy.traffic.calibration import Attempt
from kproxy.traffic.resultset import Measurement, SenderQuality


class Machine:
    """Sends at most ``fastest``, and loses packets above ``holds``."""

    def __init__(self, holds: float, fastest: float, spoilt: int = 0) -> None:
        self.holds = holds
        self.fastest = fastest
        self.spoilt = spoilt
        self.asked: list[float] = []

    def attempt(self, rate: float) -> Attempt:
        self.asked.append(rate)
        achieved = min(rate, self.fastest)
        self.spoilt -= 1
        bad = rate > self.holds or self.spoilt >= 0
        why = f"at {rate:g}: lost" if bad else ""
        return Attempt(offered_pps=rate, achieved_pps=achieved, lost=int(bad), why=why)


@pytest.mark.parametrize("holds", [50_000.0, 180_000.0, 333.0])
def test_the_highest_rate_is_found_from_above(holds: float) -> None:
    machine = Machine(holds, 200_000.0)
    found = calibration.highest(machine.attempt, 512_000.0)
    assert 0.95 * holds < found.pps <= holds
    assert machine.asked[1] <= 200_000.0  # what it could send is known after the first
    assert len(machine.asked) < 50


def test_overload_that_achieves_little_hides_no_rate() -> None:
    """A tester that is asked for far too much may do less than when asked for what it can."""

    def attempt(rate: float) -> Attempt:
        bad = rate > 160_000
        achieved = 90_000.0 if bad else rate
        return Attempt(offered_pps=rate, achieved_pps=achieved, lost=0, why="slow" if bad else "")

    found = calibration.highest(attempt, 512_000.0)
    assert 150_000 < found.pps <= 160_000
    assert len(found.attempts) < 9


def test_what_is_held_at_once_is_the_highest() -> None:
    machine = Machine(9000.0, 9000.0)
    assert calibration.highest(machine.attempt, 5000.0).pps == 5000.0
    assert machine.asked == [5000.0]


def test_every_attempt_is_kept() -> None:
    machine = Machine(5000.0, 9000.0)
    found = calibration.highest(machine.attempt, 20_000.0)
    assert len(found.attempts) == len(machine.asked)


def test_a_machine_that_holds_nothing_ends_the_search() -> None:
    found = calibration.highest(Machine(1.0, 100.0).attempt, 512_000.0)
    assert found.pps == 0
    with pytest.raises(UsageError, match=r"--rate 5: .*holds no rate at all.*at 512000: lost"):
        found.require(5.0, "--rate")


def test_a_rate_that_is_held_is_not_searched_for() -> None:
    machine = Machine(5000.0, 5000.0)
    found = calibration.check(machine.attempt, 2000.0)
    assert machine.asked == [2000.0]
    found.require(2000.0, "--rate")


def test_one_spoilt_attempt_refuses_no_rate() -> None:
    machine = Machine(5000.0, 5000.0, spoilt=2)
    found = calibration.check(machine.attempt, 2000.0)
    assert machine.asked == [2000.0] * 3
    found.require(2000.0, "--rate")


def test_a_rate_far_beyond_the_machine_is_tried_once() -> None:
    machine = Machine(900.0, 1000.0)
    found = calibration.check(machine.attempt, 400_000.0)
    assert machine.asked.count(400_000.0) == 1
    assert len(machine.asked) < 6
    assert 500 < found.pps <= 900


def test_a_rate_at_which_nothing_arrives_does_not_end_the_search() -> None:
    def attempt(rate: float) -> Attempt:
        bad = rate > 20_000
        return Attempt(
            offered_pps=rate, achieved_pps=0.0 if bad else rate, lost=1, why="x" if bad else ""
        )

    found = calibration.check(attempt, 400_000.0)
    assert 3_000 < found.pps <= 20_000


def test_more_than_calibration_found_is_refused_with_what_it_found() -> None:
    found = calibration.check(Machine(1500.0, 5000.0).attempt, 2000.0)
    assert found.pps == 1200
    with pytest.raises(UsageError) as caught:
        found.require(2000.0, "--rate")
    said = str(caught.value)
    assert "--rate 2000: calibration found that this machine holds up to 1," in said
    assert "(at 2000: lost)" in said
    assert "lower rate" in said


def test_a_labs_measurements_are_judged() -> None:
    good = Measurement(node="a", traffic="udp", sent=1000, received=1000, lost=0)
    assert selfcalibration.judged(500.0, [good], 0.97).held
    quiet = SenderQuality()
    lossy = Measurement(node="b", traffic="udp", sent=1000, received=990, lost=10, sender=quiet)
    found = selfcalibration.judged(500.0, [good, lossy], 1.0)
    assert (found.held, found.lost, found.achieved_pps) == (False, 10, 495.0)
    assert found.why == "at 500 packets/s 10 packets lost"
    slow = SenderQuality(not_sent=200, failed=50, receiver_drops=3)
    short = Measurement(node="b", traffic="udp", sent=750, received=750, lost=0, sender=slow)
    found = selfcalibration.judged(500.0, [short], 1.0)
    assert (found.lost, found.achieved_pps) == (250, 375.0)
    assert "250 packets not sent, 3 packets dropped at receivers' sockets" in found.why
    found = selfcalibration.judged(500.0, [short, short], 1.0)
    assert "500 packets not sent, 3 packets dropped at receivers' sockets" in found.why


def test_a_sender_that_falls_behind_does_not_hold_the_rate() -> None:
    """It leaves nothing out in half a second: what it has not sent yet is still due."""
    behind = Measurement(
        node="a", traffic="udp", sent=300, received=300, lost=0, sender=SenderQuality()
    )
    found = selfcalibration.judged(1000.0, [behind], 0.6)
    assert (found.held, found.lost, found.achieved_pps) == (False, 0, 600.0)
    assert found.why == "at 1,000 packets/s a sender kept up with 60 % of it"


def test_stolen_time_is_read_from_the_kernels_text() -> None:
    text = "cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3\n"
    assert quality._steal_ms(text) == pytest.approx(2500.0)
    assert quality._steal_ms("cpu  1 2 3") == quality._steal_ms("") == 0.0
    since = quality.Machine.now().since()
    assert set(since) == {"steal_ms", "backlog_drops", "squeezed"}
    assert min(since.values()) >= 0
