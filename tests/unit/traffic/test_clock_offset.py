"""What exchanges of clocks tell: the truth lies within the stated error, whatever the way took."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.traffic.remote.clockoffset import SAME, Clocks, Exchange, Offset, estimate

MS = 1_000_000
TIMES = st.integers(0, 50 * MS)


def exchange(at: int, there: int, back: int, offset: int, thinking: int = 1000) -> Exchange:
    received = at + there + offset
    return Exchange(at, received, received + thinking, at + there + thinking + back)


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=20), st.integers(-(10**15), 10**15))
def test_the_offset_lies_within_its_error(ways: list[tuple[int, int]], offset: int) -> None:
    found = estimate(
        exchange(number * 100 * MS, there, back, offset)
        for number, (there, back) in enumerate(ways)
    )
    assert abs(found.offset_ns - offset) <= found.error_ns + 1
    assert found.error_ns == (min(sum(way) for way in ways) + 1) // 2
    assert found.exchanges == len(ways)


def test_the_quickest_exchange_decides() -> None:
    slow, quick = exchange(0, 9 * MS, 1 * MS, 5000), exchange(MS, 100, 100, 5000)
    found = estimate([slow, quick])
    assert (found.offset_ns, found.error_ns) == (5000, 100)


def test_impossible_exchanges_are_left_out() -> None:
    backwards = Exchange(sent=100, received=500, answered=400, returned=200)
    too_quick = Exchange(sent=100, received=0, answered=1000, returned=200)
    assert estimate([backwards, too_quick, exchange(0, 10, 10, 7)]).exchanges == 1
    with pytest.raises(ValueError, match="no exchange"):
        estimate([backwards])


def offset(at: int, value: int, error: int = 0) -> Offset:
    return Offset(at_ns=at, offset_ns=value, error_ns=error, exchanges=1)


def test_drift_is_taken_out_between_the_two_estimates() -> None:
    second = 1_000_000_000
    clocks = Clocks(before=offset(0, 0, 10), after=offset(100 * second, 5 * MS, 30))
    assert clocks.drift_ppm == pytest.approx(50)
    assert clocks.drift_error_ppm == pytest.approx(0.0004)
    assert clocks.error_ns == 30
    ours = np.array([0, 50 * second, 100 * second])
    theirs = ours + np.array([0, 2.5 * MS, 5 * MS]).astype("i8")
    # That the drift itself is measured in our time leaves a part in 20,000 of the offset.
    assert np.abs(clocks.ours(theirs) - ours).max() <= 5 * MS / 20_000 + 1


def test_without_a_second_estimate_the_first_one_holds() -> None:
    clocks = Clocks(before=offset(0, 700, 10))
    assert clocks.drift_ppm is None
    assert clocks.ours(np.array([1000])).tolist() == [300]


def test_the_same_clock_needs_no_estimate() -> None:
    clocks = Clocks(before=SAME)
    assert (clocks.same, clocks.drift_ppm, clocks.error_ns) == (True, 0.0, 0)
    assert clocks.ours(np.array([123])).tolist() == [123]
