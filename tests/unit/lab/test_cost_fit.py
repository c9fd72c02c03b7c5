"""Known terms come back from points made with them; nothing negative is ever said."""

import pytest

from kproxy import costfile
from kproxy.lab import costfit

SIZES = ((1, 2), (100, 200), (100, 1000), (1000, 10_000))


def made(terms: costfile.Terms, *sizes: tuple[int, int]) -> list[costfile.Point]:
    return [
        costfile.Point(services=s, endpoints=e, n=5, median=terms.at(s, e), min=0.1, max=1.0)
        for s, e in sizes
    ]


@pytest.mark.parametrize(
    ("constant", "per_service", "per_endpoint"),
    [(0.05, 2e-4, 3e-5), (0.0, 0.0, 1e-5), (0.125, 0.0, 0.0), (0.02, 1e-3, 0.0)],
)
def test_known_terms_come_back(constant: float, per_service: float, per_endpoint: float) -> None:
    terms = costfile.Terms(constant=constant, per_service=per_service, per_endpoint=per_endpoint)
    fitted = costfit.fit(made(terms, *SIZES))
    assert fitted.constant == pytest.approx(constant, abs=1e-8)
    assert fitted.per_service == pytest.approx(per_service, abs=1e-8)
    assert fitted.per_endpoint == pytest.approx(per_endpoint, abs=1e-8)


def test_one_size_gives_a_constant() -> None:
    (point,) = made(costfile.Terms(constant=0.3), (0, 0))
    assert costfit.fit([point]) == costfile.Terms(constant=0.3)


def test_a_cost_that_falls_with_size_gets_no_negative_term() -> None:
    points = [
        costfile.Point(services=s, endpoints=e, n=5, median=m, min=m, max=m)
        for (s, e), m in zip(SIZES, (0.4, 0.3, 0.2, 0.1), strict=True)
    ]
    fitted = costfit.fit(points)
    assert min(fitted.constant, fitted.per_service, fitted.per_endpoint) >= 0
    assert 0.1 <= fitted.constant <= 0.4


def test_small_clusters_are_as_right_as_large_ones() -> None:
    """A curve that no plane fits is off by the same part at both ends, not by the same time."""
    points = [
        costfile.Point(services=s, endpoints=e, n=5, median=m, min=m, max=m)
        for (s, e), m in zip(SIZES, (0.02, 0.05, 0.09, 4.0), strict=True)
    ]
    fitted = costfit.fit(points)
    assert fitted.at(1, 2) == pytest.approx(0.02, rel=0.2)


def test_samples_become_entries_with_medians_and_extremes() -> None:
    samples = [
        costfit.Sample(
            process="proxy", place=place, mode=mode, services=1, endpoints=2, seconds=seconds
        )
        for place, mode, values in (
            ("sync-full", "ipvs", (0.3, 0.1, 0.2)),
            ("start", "", (1.0, 3.0)),
        )
        for seconds in values
    ]
    origin = costfit.Origin(kernel="native 6.18", machine="x86_64", date="2026-01-02")
    model = costfit.model("test", samples, origin)
    start, full = model.entries
    assert (start.place, start.seconds.constant, start.points[0].n) == ("start", 2.0, 2)
    (point,) = full.points
    assert (point.median, point.min, point.max, point.n) == (0.2, 0.1, 0.3, 3)
    assert (full.mode, full.kernel, full.date) == ("ipvs", "native 6.18", "2026-01-02")
    assert costfile.parse(costfile.encode(model), "m") == model
