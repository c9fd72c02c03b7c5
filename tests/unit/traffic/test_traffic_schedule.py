"""When things are due: exact both ways, for any rate."""

from hypothesis import given
from hypothesis import strategies as st

from kproxy.traffic.schedule import Poisson, Schedule


@given(t0=st.integers(0, 2**62), per_second=st.floats(0.001, 10_000_000), k=st.integers(0, 2**40))
def test_at_its_deadline_exactly_the_kth_has_become_due(
    t0: int, per_second: float, k: int
) -> None:
    schedule = Schedule.at_rate(t0, per_second)
    at = schedule.due(k)
    assert schedule.due_by(at) == k + 1
    assert schedule.due_by(at - 1) == k


def test_an_even_series() -> None:
    schedule = Schedule.at_rate(5, 1000)
    assert [schedule.due(k) for k in range(3)] == [5, 1_000_005, 2_000_005]
    assert schedule.due_by(0) == 0
    assert schedule.seconds(500) == 0.5


def test_a_poisson_process_goes_on_where_a_stall_left_it() -> None:
    """However much has become due meanwhile, the next one is due when it was."""
    per_second, stall = 20_000, 60_000
    awake = Poisson(0, per_second, 1)
    wanted = [awake.due(k) for k in range(stall)]
    stalled = Poisson(0, per_second, 1)
    due = stalled.due_by(wanted[-1])
    assert due == stall
    for first in range(0, due, 512):
        batch = range(first, min(first + 512, due))
        assert [stalled.due(k) for k in batch] == wanted[batch.start : batch.stop]
        assert stalled.due(first) == wanted[first]
