"""The summary of scripts/test must not say more than was tested."""

import sys
from pathlib import Path

import pytest
import tiers
from tiers import Report, Result, Tier


def test_a_tier_that_passed_shows_its_counts_and_the_reasons_of_its_skips() -> None:
    output = [
        "SKIPPED [2] tests/contract/test_x.py:7: needs a kernel with ip_vs",
        "SKIPPED [1] tests/contract/test_y.py:9: needs a kernel with ip_vs",
        "===== 4 passed, 3 skipped in 0.10s =====",
    ]
    report = tiers.judge("kernel", 0, output, 0.1)
    assert report.result is Result.PASSED
    assert report.lines == [
        "4 passed, 3 skipped in 0.10s",
        "3 skipped: needs a kernel with ip_vs",
    ]


def test_a_tier_whose_tests_were_all_skipped_could_not_run() -> None:
    output = ["SKIPPED [3] tests/lab/test_x.py:7: needs root", "=== 3 skipped in 0.01s ==="]
    assert tiers.judge("lab", 0, output, 0.1).result is Result.COULD_NOT_RUN


def test_any_exit_code_but_zero_is_a_failure() -> None:
    for code in (1, 2, 5, -9):
        report = tiers.judge("unit", code, ["=== 9 passed in 1s ==="], 1.0)
        assert report.result is Result.FAILED
        assert f"exit code {code}" in report.lines[0]


def test_a_tier_that_cannot_run_is_not_started(tmp_path: Path) -> None:
    trace = tmp_path / "started"
    tier = Tier(
        name="lab",
        about="",
        command=[sys.executable, "-c", f"open({str(trace)!r}, 'w')"],
        why_not=lambda: "no kernel",
    )
    report = tiers.run(tier)
    assert report == Report(tier="lab", result=Result.COULD_NOT_RUN, lines=["no kernel"])
    assert not trace.exists()


def test_output_passes_through_and_the_exit_code_counts() -> None:
    script = "print('\\033[31m=== 1 failed in 1s ===\\033[0m'); raise SystemExit(1)"
    command = [sys.executable, "-c", script]
    report = tiers.run(Tier(name="unit", about="", command=command))
    assert report.result is Result.FAILED
    assert report.lines[0].endswith("1 failed in 1s")


def test_the_summary_names_what_was_not_tested() -> None:
    reports = [
        Report(tier="unit", result=Result.PASSED, lines=["9 passed in 1s"]),
        Report(tier="lab", result=Result.COULD_NOT_RUN, lines=["no kernel with IPVS"]),
    ]
    text = tiers.summary(reports)
    assert "NOT TESTED on this machine: lab" in text
    assert "no kernel with IPVS" in text


def tier(name: str, lane: int) -> Tier:
    return Tier(name=name, about="", command=[], lane=lane)


def test_lanes_run_side_by_side_where_nobody_is_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [
        Tier(name=name, about="", command=[], lane=lane) for name, lane in (("a", 0), ("b", 1))
    ]
    cpus = {0, 1}
    monkeypatch.setattr(tiers.os, "sched_getaffinity", lambda _: cpus)
    monkeypatch.setattr(tiers, "has_ipvs", lambda: False)
    assert tiers.lanes(some) == [[some[0]], [some[1]]]
    cpus.pop()
    assert tiers.lanes(some) == [some]
    cpus.update({0, 1})
    monkeypatch.setattr(tiers, "has_ipvs", lambda: True)
    assert tiers.lanes(some) == [some]


def test_both_lanes_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [
        Tier(name=name, about="", command=[], lane=lane) for name, lane in (("a", 1), ("b", 0))
    ]
    monkeypatch.setattr(tiers, "tiers", lambda: some)
    monkeypatch.setattr(tiers, "lanes", lambda chosen: [[some[1]], [some[0]]])
    told: list[Report] = []
    passed = {"a": Result.PASSED, "b": Result.FAILED}
    monkeypatch.setattr(
        tiers, "run", lambda tier: Report(tier=tier.name, result=passed[tier.name], lines=["x"])
    )
    monkeypatch.setattr(tiers, "summary", lambda reports: told.extend(reports) or "")
    assert tiers.main([]) == 1
    assert [report.tier for report in told] == ["a", "b"]
