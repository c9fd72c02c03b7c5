"""A comparison in parts: one process for each mode, whose results are put together."""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kproxy import errors
from kproxy.cli import compare_job, compare_parts, parts
from kproxy.cli.compare_job import Job
from kproxy.cli.kernel_option import KernelChoice
from kproxy.lab import comparison, workload
from kproxy.lab.comparison import Step
from netns.kernels import base

PART = """
import pathlib, signal, sys, time
from kproxy.cli import compare_job
from kproxy.traffic import resultset
job = compare_job.read(pathlib.Path(sys.argv[sys.argv.index("--job") + 1]))
(mode,) = job.parameters.modes
signal.signal(signal.SIGINT, signal.default_int_handler)
incomplete = []
try:
    print(f"    1 s  [1/2] {mode}: half of it", file=sys.stderr, flush=True)
    print(f"{mode} has something to say", file=sys.stderr, flush=True)
    if job.parameters.trials == 7:
        time.sleep(60)  # it is interrupted before
except KeyboardInterrupt:
    incomplete = ["interrupted"]
if mode == "iptables" and job.parameters.trials == 8:
    sys.exit("no such thing")
trial = resultset.Trial(mode=mode, scenario="proxy-crash", number=1)
resultset.write(
    resultset.ResultSet(
        kernel={"release": "6"},
        host={},
        parameters={"modes": [mode], "trials": 1, "incomplete": incomplete},
        trials=(trial,),
        summary=(),
    ),
    pathlib.Path(job.place) / "result.json",
)
"""


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(base.STATE_VARIABLE, str(tmp_path / "state"))
    command = [sys.executable, "-c", PART]
    monkeypatch.setattr(parts, "command", lambda kernel, word: command)


def job(trials: int = 1, modes: tuple[str, ...] = ("ipvs", "iptables")) -> Job:
    return Job(
        parameters=comparison.Parameters(modes=modes, trials=trials, scenarios=("proxy-crash",)),
        load=workload.Workload(manifests=(), notes=()),
        named=True,
        model=None,
        place="unused",
        fresh=False,
        as_json=False,
    )


def run(wanted: Job, progress: Callable[[Step], None] = lambda step: None) -> Any:
    return compare_parts.run(wanted, KernelChoice(), progress)


def test_results_are_put_together_in_the_order_of_the_modes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    steps: list[Step] = []
    results = run(job(), steps.append)
    assert [trial.mode for trial in results.trials] == ["ipvs", "iptables"]
    assert results.parameters["modes"] == ["ipvs", "iptables"]
    assert results.parameters["incomplete"] == []
    assert results.summary == comparison.judged(results.trials)
    assert sorted(step.mode for step in steps) == ["iptables", "ipvs"]
    assert max(step.done for step in steps) == 2
    assert {step.total for step in steps} == {2}
    said = capsys.readouterr().err.splitlines()
    assert sorted(said) == ["iptables has something to say", "ipvs has something to say"]
    assert list((tmp_path / "state").iterdir()) == []


def test_a_part_without_a_result_is_named_with_what_it_said() -> None:
    with pytest.raises(errors.MeasurementError, match=r"mode iptables: .* 1 .*no such thing"):
        run(job(trials=8))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A job that a shell has put into the background ignores interrupts, and so would we."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_all_parts_and_keeps_what_they_found(tmp_path: Path) -> None:
    begun = threading.Semaphore(0)
    modes = ("ipvs", "iptables")
    waiting = min(len(modes), len(os.sched_getaffinity(0)))

    def interrupt() -> None:
        for _ in range(waiting):
            begun.acquire()
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    results = run(job(trials=7, modes=modes), lambda step: begun.release())
    helper.join()
    assert results.parameters["incomplete"] == ["interrupted"]
    assert len(results.trials) == waiting
    assert list((tmp_path / "state").iterdir()) == []


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    wanted = dataclasses.replace(job(), part=True, model={"name": "mine"})
    assert compare_job.read(compare_job.write(wanted, tmp_path)) == wanted


def test_one_mode_is_not_done_in_parts() -> None:
    assert not compare_parts.applies(job(modes=("ipvs",)), KernelChoice(name="no such kernel"))


@pytest.mark.parametrize(
    ("name", "clock", "applies"),
    [("6.12-own", base.Clock.VIRTUAL, True), ("debian", base.Clock.REAL, False)],
)
def test_parts_are_for_embedded_kernels_in_virtual_time(
    monkeypatch: pytest.MonkeyPatch, name: str, clock: base.Clock, applies: bool
) -> None:
    provider = type("Provider", (), {"kernel_name": name})()
    monkeypatch.setattr(compare_parts, "chosen_kernel", lambda kernel: (provider, clock))
    assert compare_parts.applies(job(), KernelChoice()) is applies
