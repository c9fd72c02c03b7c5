from typing import Any

import pytest

from kproxy.api.durations import Duration
from kproxy.monitoring.remediation import guards
from kproxy.monitoring.remediation.guards import Circuit, Guards, Health, Hold, Reason
from kproxy.monitoring.remediation.seams import Limits
from kproxy.monitoring.remediation.settings import Breaker
from kproxy.monitoring.remediation.settings import Guards as Settings

WELL = Health(10, frozenset())
SETTINGS = Settings(breaker=Breaker(failures=3, open_for=Duration(1000.0)))


def made(**limits: Any) -> Guards:
    return Guards(SETTINGS, lambda _: Limits(**limits))


def repair(one: Guards, target: str, at: float, *, helped: bool = True) -> None:
    one.began("i", "mend", at)
    one.ended("mend", target, at, helped=helped)


def reason(hold: Hold | None) -> Reason | None:
    return hold.reason if hold else None


def test_one_at_a_time_until_it_is_verified() -> None:
    one = made()
    one.began("i", "mend", 0.0)
    assert reason(one.hold("mend", "Node/b", 50.0, WELL)) is Reason.BUSY
    one.ended("mend", "Node/a", 60.0, helped=True)
    assert one.hold("mend", "Node/b", 60.0, WELL) is None


def test_a_rate_fills_up_again() -> None:
    one = made(runs=2, period=100.0)
    repair(one, "Node/a", 0.0)
    repair(one, "Node/b", 0.0)
    hold = one.hold("mend", "Node/c", 10.0, WELL)
    assert (reason(hold), hold and hold.until) == (Reason.RATE, pytest.approx(50.0))
    assert one.hold("mend", "Node/c", 50.0, WELL) is None
    assert one.hold("other", "Node/c", 10.0, WELL) is None


def test_a_long_rest_does_not_save_up_more_than_the_rate() -> None:
    one = made(runs=2, period=100.0)
    repair(one, "Node/a", 0.0)
    repair(one, "Node/b", 10_000.0)
    repair(one, "Node/c", 10_000.0)
    assert reason(one.hold("mend", "Node/d", 10_000.0, WELL)) is Reason.RATE


def test_a_target_rests_after_a_repair_and_longer_after_those_that_did_not_help() -> None:
    one = made(cool_down=300.0, runs=100)
    now, rests = 0.0, []
    for helped in (True, False, False, True, False):
        repair(one, "Node/a", now, helped=helped)
        hold = one.hold("mend", "Node/a", now, WELL)
        assert hold is not None
        assert hold.reason is Reason.COOL_DOWN
        rests.append(hold.until - now)
        assert one.hold("mend", "Node/b", now, WELL) is None
        now = hold.until
    assert rests == [300.0, 300.0, 600.0, 300.0, 300.0]


def test_failures_of_long_ago_do_not_lengthen_a_rest() -> None:
    one = made(cool_down=10.0, runs=100)
    for at in (0.0, 100.0):
        repair(one, "Node/a", at, helped=False)
    repair(one, "Node/a", 100_000.0, helped=False)
    hold = one.hold("mend", "Node/a", 100_000.0, WELL)
    assert hold is not None
    assert hold.until == 100_010.0


def test_the_circuit_opens_after_failures_in_a_row_and_lets_one_try_later() -> None:
    one = made(cool_down=1.0, runs=100)
    for node in "ab":
        repair(one, f"Node/{node}", 0.0, helped=False)
    repair(one, "Node/c", 0.0, helped=True)
    for node in "defg"[:2]:
        repair(one, f"Node/{node}", 0.0, helped=False)
    assert one.circuit("mend", 0.0) is Circuit.CLOSED
    repair(one, "Node/f", 0.0, helped=False)
    hold = one.hold("mend", "Node/z", 10.0, WELL)
    assert (reason(hold), hold and hold.until) == (Reason.CIRCUIT, 1000.0)
    assert one.hold("other", "Node/z", 10.0, WELL) is None
    assert one.circuit("mend", 1000.0) is Circuit.HALF_OPEN
    assert one.hold("mend", "Node/z", 1000.0, WELL) is None
    repair(one, "Node/z", 1000.0, helped=False)
    assert one.circuit("mend", 1500.0) is Circuit.OPEN
    repair(one, "Node/y", 2000.0, helped=True)
    assert one.circuit("mend", 2000.0) is Circuit.CLOSED


@pytest.mark.parametrize(
    ("nodes", "sick", "held"),
    [
        (10, 3, False),
        (10, 4, True),
        (2, 1, False),  # One sick node may always be repaired.
        (2, 2, True),
        (0, 1, False),  # It is not known how many there are.
        (0, 2, True),
        (1, 1, False),
    ],
)
def test_a_sick_cluster_is_not_cured_by_one_node(nodes: int, sick: int, held: bool) -> None:
    health = Health(nodes, frozenset(f"n{i}" for i in range(sick)))
    hold = made().hold("mend", "Node/n0", 0.0, health)
    assert reason(hold) is (Reason.UNWELL if held else None)


def test_sick_are_those_not_ready_and_those_with_alerts() -> None:
    health = guards.unwell({"a": True, "b": False, "c": False}, frozenset({"b", "gone"}))
    assert health == Health(3, frozenset({"a", "b"}))
    assert guards.unwell({}, frozenset({"b"})) == Health(0, frozenset({"b"}))


def test_what_would_not_help_is_asked_less_and_less_often() -> None:
    waits = [guards.recheck(Settings(), tries) for tries in (0, 1, 2, 3, 4, 1000)]
    assert waits == [10.0, 20.0, 40.0, 80.0, 120.0, 120.0]


def test_the_state_can_be_restored() -> None:
    one, two = made(cool_down=300.0, runs=3), made(cool_down=300.0, runs=3)
    for node in "abc":
        repair(one, f"Node/{node}", 0.0, helped=False)
    one.began("running", "other", 0.0)
    two.restore(one.state())
    for action, target, at in (("mend", "Node/a", 1.0), ("mend", "Node/z", 400.0)):
        assert two.hold(action, target, at, WELL) == one.hold(action, target, at, WELL)
    assert two.lease == "running"
