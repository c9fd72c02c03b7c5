"""How sure a median is and whether two modes differ: nothing that chance could do is told."""

import dataclasses
import itertools
import math
import statistics as textbook
from collections.abc import Sequence

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kproxy.lab import scenarios
from kproxy.traffic import resultset, statistics, summary
from kproxy.traffic.resultset import Difference, Measurement, Trial, Verdict

VALUES = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def by_hand(one: Sequence[float], other: Sequence[float]) -> float:
    """Deal out all values in all ways, and count those that are as far apart."""
    ranks = stats.rankdata([*one, *other])
    mean = ranks.mean() * len(one)
    sums = [sum(some) for some in itertools.combinations(ranks, len(one))]
    here = abs(ranks[: len(one)].sum() - mean)
    return sum(abs(one - mean) >= here - 1e-9 for one in sums) / len(sums)


@examples(60)
@given(VALUES, VALUES)
def test_the_permutation_test_counts_all_permutations(one: list[int], other: list[int]) -> None:
    expected = by_hand(one, other)
    assert statistics.permutation_test(one, other) == pytest.approx(expected)
    assert statistics.permutation_test(other, one) == pytest.approx(expected)


def test_it_is_the_librarys_where_that_is_exact() -> None:
    one, other = [1.0, 5.0, 7.0, 11.0, 12.0], [2.0, 3.0, 13.0, 14.0, 15.0, 16.0]
    expected = stats.mannwhitneyu(one, other, method="exact").pvalue
    assert statistics.permutation_test(one, other) == pytest.approx(expected)


def test_what_never_recovered_is_longer_than_any_time() -> None:
    assert statistics.permutation_test([1.0, 2.0], [None, None]) == by_hand([1, 2], [3, 3])
    assert statistics.shift([None, None], [1e9, 2.0]) > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction(p_values: list[float]) -> None:
    found = statistics.corrected(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, found, strict=True))
    assert found[p_values.index(min(p_values))] == min(1, len(p_values) * min(p_values))
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    assert [found[n] for n in order] == sorted(found)


def test_the_interval_of_a_median_is_seeded_and_within_the_values() -> None:
    values = [float(value) for value in (5, 8, 3, 9, 12, 7, 7, 10, 4, 6)]
    found = statistics.confidence(values)
    assert found == statistics.confidence(values)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low < textbook.median(values) < found.high <= max(values)


def test_intervals_at_the_edges() -> None:
    assert statistics.confidence([1.0] * 5) is None
    assert statistics.confidence([2.5] * 6) == resultset.Interval(low=2.5, high=2.5)
    assert statistics.confidence([None] * 6) == resultset.Interval(low=None, high=None)
    mixed = statistics.confidence([1.0, 2.0, 3.0, 4.0, None, None, None])
    assert mixed is not None
    assert mixed.low is not None
    assert mixed.high is None


def test_the_interval_covers_the_median_about_as_often_as_it_says() -> None:
    """Of samples whose true median is known: within what the percentile bootstrap is known for."""
    hits = 0
    for seed in range(60):
        sample = stats.expon.rvs(size=20, random_state=seed).tolist()
        found = statistics.confidence(sample)
        assert found is not None
        hits += (found.low or 0) <= math.log(2) <= (found.high or 0)
    assert hits >= 52


def trials(mode: str, times: Sequence[float | None], losses: Sequence[int]) -> list[Trial]:
    return [
        Trial(
            mode=mode,
            scenario="endpoint-crash",
            number=number,
            measurements=(
                Measurement(
                    node="hit",
                    traffic="udp",
                    lost=loss,
                    recovered=time is not None,
                    failover_packet_loss=loss,
                    failover_time_ms=time,
                ),
            ),
        )
        for number, (time, loss) in enumerate(zip(times, losses, strict=True), 1)
    ]


def verdicts(found: Sequence[Trial], mode: str) -> dict[tuple[str, str], Verdict]:
    (row,) = [row for row in summary.summarise(found) if row.mode == mode]
    return {(one.figure, one.mode): one.verdict for one in row.differences}


def test_a_difference_is_told_from_both_sides() -> None:
    slow = trials("iptables", [100.0 + n for n in range(20)], [20] * 20)
    quick = trials("nftables", [10.0 + n for n in range(20)], [20] * 20)
    told = verdicts([*slow, *quick], "iptables")
    assert told["failover_time_ms", "nftables"] is Verdict.GREATER
    assert told["failover_packet_loss", "nftables"] is Verdict.NOT_SHOWN
    assert verdicts([*slow, *quick], "nftables")["failover_time_ms", "iptables"] is Verdict.LESS


def test_chance_is_no_difference_and_few_trials_are_too_few() -> None:
    mixed = [
        trials(mode, [float(n * 7 % 20) for n in range(20)], [n % 3 for n in range(20)])
        for mode in ("ipvs", "iptables")
    ]
    assert set(verdicts([*mixed[0], *mixed[1]], "ipvs").values()) == {Verdict.NOT_SHOWN}
    few = [*trials("ipvs", [1.0] * 5, [1] * 5), *trials("iptables", [900.0] * 5, [9] * 5)]
    assert set(verdicts(few, "ipvs").values()) == {Verdict.TOO_FEW}


def test_a_row_that_is_not_valid_differs_from_nothing() -> None:
    slow = trials("iptables", [100.0 + n for n in range(20)], [20] * 20)
    quick = trials("nftables", [10.0 + n for n in range(20)], [20] * 20)
    slow[7] = dataclasses.replace(slow[7], problems=("the sender stood still",))
    assert verdicts([*slow, *quick], "iptables") == verdicts([*slow, *quick], "nftables") == {}


def test_the_number_of_comparisons_raises_the_bar() -> None:
    """What one test alone would call a difference is none among so many."""
    one = [float(n) for n in (1, 2, 3, 4, 5, 6, 7, 12)]
    other = [float(n) for n in (5.5, 6.5, 8, 9, 10, 11, 13, 14)]
    p = statistics.permutation_test(one, other)
    assert 0.01 < p < 0.05
    alone = [*trials("ipvs", one, [1] * 8), *trials("iptables", other, [1] * 8)]
    assert verdicts(alone, "ipvs")["failover_time_ms", "iptables"] is Verdict.LESS
    more = [
        dataclasses.replace(trial, scenario=f"another-{number}")
        for number in range(8)
        for mode, shift in (("ipvs", 0.0), ("iptables", 0.5))
        for trial in trials(mode, [value + shift for value in one], [1] * 8)
    ]
    (row,) = [
        row
        for row in summary.summarise([*alone, *more])
        if (row.mode, row.scenario) == ("ipvs", "endpoint-crash")
    ]
    (found,) = [one for one in row.differences if one.figure == "failover_time_ms"]
    assert found == Difference(
        figure="failover_time_ms",
        mode="iptables",
        verdict=Verdict.NOT_SHOWN,
        p=round(p, 6),
        corrected_p=round(9 * p, 6),
    )


def test_one_mode_has_nothing_to_differ_from() -> None:
    (row,) = summary.summarise(trials("ipvs", [1.0] * 20, [1] * 20))
    assert row.differences == ()
    assert row.failover_time_ms is not None
    assert row.failover_time_ms.confidence == resultset.Interval(low=1.0, high=1.0)


def test_a_baseline_that_is_not_valid_spoils_the_run() -> None:
    assert scenarios.BASELINE.name == summary.BASELINE
    good = trials("ipvs", [1.0], [1])
    bad = [dataclasses.replace(good[0], scenario=summary.BASELINE, problems=("7 lost",))]
    assert [row.valid for row in summary.judged(good)] == [True]
    assert [row.valid for row in summary.judged([*good, *bad])] == [False, False]
