"""What the trials together allow to say: how sure a median is, and whether two modes differ. Pure.

Nothing is assumed about how values are distributed, and nothing is left to chance: resampling is
seeded, and the permutation test counts all permutations. A trial that did not recover while it was
watched has the value None, which is longer than every number.
"""

import math
from collections.abc import Sequence

import numpy as np

from kproxy.traffic.resultset import Interval

CONFIDENCE = 0.95
LEAST_TRIALS = 6
"""With fewer, not even the whole range of the values is an interval of 95 % for their median
(1 - 2 / 2**n), and between two groups no difference could be certain enough after a correction."""
SIGNIFICANCE = 0.05
_RESAMPLES = 9999
_SEED = 6201
_BEYOND = 1e18
"""Stands for what lasted longer than was watched, where a number is needed."""


def confidence(values: Sequence[float | None]) -> Interval | None:
    """Return the interval of confidence of the median, by the percentile bootstrap.

    None for too few values. A bound that is None lies beyond the time that was watched.
    """
    if len(values) < LEAST_TRIALS:
        return None
    found = _numbers(values)
    low, high = (found[0],) * 2 if min(found) == max(found) else _bootstrap(found)
    longest = max((value for value in found if value < _BEYOND), default=-math.inf)
    return Interval(low=_within(low, longest), high=_within(high, longest))


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    from scipy import stats  # here, because it takes longer to load than most runs need it

    found = stats.bootstrap(
        (values,),
        np.median,
        n_resamples=_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [_BEYOND if value is None else float(value) for value in values]


def _within(bound: float, longest: float) -> float | None:
    """Return a bound; None if it lies beyond the longest time that was seen to end."""
    return round(bound, 3) if bound <= longest else None


def permutation_test(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    """Return how likely ranks as far apart as these are if both groups are of one kind.

    The exact two-sided permutation test on the sum of ranks (Wilcoxon, Mann-Whitney), with ties:
    the share of all ways to deal out the values in which the sum is at least as far from its
    mean as it is here.
    """
    from scipy import stats

    # Twice the ranks: whole numbers, also where values share a rank.
    ranks = np.rint(2 * stats.rankdata(_numbers((*one, *other)))).astype(int)
    # ways[k, s]: how many choices of k of the values seen so far have ranks that sum up to s.
    ways = np.zeros((len(one) + 1, int(ranks.sum()) + 1))
    ways[0, 0] = 1
    for rank in ranks.tolist():
        ways[1:, rank:] = ways[1:, rank:] + ways[:-1, :-rank]
    sums = np.arange(ways.shape[1])
    mean = len(one) * ranks.mean()
    far = np.abs(sums - mean) >= abs(ranks[: len(one)].sum() - mean) - 1e-6
    return float(ways[-1][far].sum() / ways[-1].sum())


def shift(one: Sequence[float | None], other: Sequence[float | None]) -> float:
    """Return the mean rank of the first group minus that of the other one."""
    from scipy import stats

    ranks = stats.rankdata(_numbers((*one, *other)))
    return float(ranks[: len(one)].mean() - ranks[len(one) :].mean())


def corrected(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm's step-down method), in their order."""
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    found = [1.0] * len(p_values)
    least = 0.0
    for place, number in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[number]))
        found[number] = least
    return found
