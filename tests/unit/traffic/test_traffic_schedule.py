"""When things are due: exact both ways, for any rate."""

from hypothesis import given
from hypothesis import strategies as st

from kproxy.traffic.schedule import Schedule


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
