"""The summary of scripts/test must not say more than was tested."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import examples
import pytest
import tiers
from tiers import Report, Result, Tier

from netns.wait import wait_until


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
    report = tiers.run(tier, {})
    assert report == Report(tier="lab", result=Result.COULD_NOT_RUN, lines=["no kernel"])
    assert not trace.exists()


def test_output_passes_through_and_the_exit_code_counts() -> None:
    script = "print('\\033[31m=== 1 failed in 1s ===\\033[0m'); raise SystemExit(1)"
    command = [sys.executable, "-c", script]
    report = tiers.run(Tier(name="unit", about="", command=command), {})
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


@pytest.fixture
def no_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "has_ipvs", lambda: False)


@pytest.mark.parametrize(
    ("ipvs", "cpus", "wanted"), [(False, 2, 3), (False, 64, 4), (True, 64, 1)]
)
def test_tiers_run_side_by_side_where_nobody_is_disturbed(
    monkeypatch: pytest.MonkeyPatch, ipvs: bool, cpus: int, wanted: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr(tiers, "has_ipvs", lambda: ipvs)
    assert tiers.at_once() == wanted


@pytest.mark.usefixtures("no_ipvs")
def test_the_parts_of_the_lab_are_the_whole_lab() -> None:
    parts = [tier for tier in tiers.tiers() if tier.name == "lab"]
    assert [part.title for part in parts] == [f"lab {number}/6" for number in range(1, 7)]
    files = [word for part in parts for word in part.command if word.endswith(".py")]
    there = [path.name for path in (tiers.ROOT / "tests/lab").glob("test_*.py")]
    assert sorted(Path(name).name for name in files) == sorted(there)


def saying(name: str, script: str, after: str | None = None) -> Tier:
    return Tier(name=name, about="", command=[sys.executable, "-c", script], after=after)


@pytest.mark.parametrize(("code", "told"), [(0, "1"), (1, "None")])
def test_a_tier_knows_whether_the_one_before_it_passed(code: int, told: str) -> None:
    asked = f"import os; print(os.environ.get({tiers.NATIVE_TIER!r}))"
    first = saying("kernel", f"raise SystemExit({code})")
    reports = tiers.run_all([first, saying("embedded", asked, after="kernel")], 2)
    assert reports[1].lines == [told]


def test_who_waits_for_a_tier_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The one that is waited for ends only when the third has begun."""
    there = tmp_path / "there"
    until = (
        "import pathlib; from netns.wait import wait_until; "
        f"wait_until(pathlib.Path({str(there)!r}).exists, 60, 'the third did not begin')"
    )
    some = [
        saying("kernel", until),
        saying("embedded", f"open({str(there)!r})", after="kernel"),
        saying("vm", f"open({str(there)!r}, 'w')"),
    ]
    reports = tiers.run_all(some, 2)
    assert [(one.tier, one.result) for one in reports] == [
        ("kernel", "passed"), ("embedded", "passed"), ("vm", "passed"),
    ]  # fmt: skip


@pytest.mark.usefixtures("no_ipvs")
def test_each_tier_waits_for_one_that_does_not_wait_for_it() -> None:
    after = {tier.name: tier.after for tier in tiers.tiers()}
    assert any(after.values())
    for name in after:
        seen = [name]
        while (before := after.get(seen[-1])) is not None:
            assert before in after
            assert before not in seen
            seen.append(before)


def test_properties_are_tried_with_all_examples() -> None:
    asked = "import examples; print(examples.number(100), examples.number(6))"
    (report,) = tiers.run_all(
        [saying("unit", f"import sys; sys.path.append('tests'); {asked}")], 1
    )
    assert report.lines == ["100 6"]


def test_a_plain_run_tries_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(examples.THOROUGH, raising=False)
    assert [examples.number(most) for most in (100, 40, 12, 2)] == [25, 10, 5, 2]


def test_all_tiers_are_reported_in_their_order() -> None:
    some = [
        saying("a", "import time; time.sleep(0.2); print(1)"),  # as a rule it ends after the other
        saying("b", "raise SystemExit(3)"),
    ]
    reports = tiers.run_all(some, 2)
    assert [(one.tier, one.result) for one in reports] == [("a", "passed"), ("b", "FAILED")]


def test_one_failed_part_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tiers, "tiers", lambda: [saying("a", ""), saying("b", "raise SystemExit(3)")]
    )
    assert tiers.main([]) == 1
    assert tiers.main(["a"]) == 0


def test_who_is_interrupted_begins_no_other_tier(tmp_path: Path) -> None:
    """As Ctrl-C does it: the signal goes to everybody in the terminal's process group."""
    begun, never = tmp_path / "begun", tmp_path / "never"
    program = f"""
import sys
sys.path[:0] = [{str(tiers.ROOT / "tests")!r}, {str(tiers.ROOT)!r}]
import tiers
def saying(name, script):
    return tiers.Tier(name=name, about="", command=[sys.executable, "-c", script])
# It waits for the signal, and not for ever.
first = saying("a", "open({str(begun)!r}, 'w'); import signal; signal.alarm(60); signal.pause()")
tiers.tiers = lambda: [first, saying("b", "open({str(never)!r}, 'w')")]
tiers.at_once = lambda: 1
raise SystemExit(tiers.run_main([]))
"""
    with subprocess.Popen([sys.executable, "-c", program], start_new_session=True) as process:
        wait_until(begun.exists, 60, "the first tier did not begin")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
    assert not never.exists()
