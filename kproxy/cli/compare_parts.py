"""One embedded kernel for each mode: side by side where there are CPUs, and put together then.

In virtual time a kernel uses one CPU, so several finish a comparison in less of the user's time.
And no mode can feel what another one did before it: the rows of a mode are the same whichever
modes it is compared with.
"""

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import click

from kproxy import errors
from kproxy.cli import compare_job, jobdirectory
from kproxy.cli.compare_job import Job
from kproxy.cli.kernel_option import KernelChoice, chosen_kernel
from kproxy.lab import comparison
from kproxy.lab.comparison import Step
from kproxy.traffic import resultset
from netns.kernels import base
from netns.lab import signals_unwind

RESULT = "result.json"
_STEP = re.compile(r" *\d+ s  \[(\d+)/\d+\] (\S+): (.*)")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def applies(job: Job, kernel: KernelChoice) -> bool:
    """Tell whether a job is to be done in parts. Raises UsageError for an unusable kernel."""
    if len(job.parameters.modes) < 2:
        return False
    provider, clock = chosen_kernel(kernel)
    return provider.kernel_name is not None and clock is base.Clock.VIRTUAL


def run(job: Job, kernel: KernelChoice, progress: Callable[[Step], None]) -> resultset.ResultSet:
    """Do all parts and return the whole result; an interrupt ends all of them early.

    Raises MeasurementError if a part ends without a result.
    """
    command = _command(kernel)
    total = _Total(job.parameters, progress)
    how = ""
    with jobdirectory.made(base.state_directory()) as directory:
        parts = [
            _Part(job, mode, directory / mode, command, total) for mode in job.parameters.modes
        ]
        with signals_unwind(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            futures: list[Future[None]] = []
            try:
                futures += [pool.submit(part.run) for part in parts]
                wait(futures)
            except KeyboardInterrupt:
                how = comparison.INTERRUPTED
            except SystemExit:
                how = comparison.TERMINATED
            if how:
                number = signal.SIGINT if how == comparison.INTERRUPTED else signal.SIGTERM
                for part in parts:
                    part.end(number)
                wait(futures)
        found = [part.result() for part in parts if part.begun]
    return _whole(job, [one for one in found if one is not None], how)


def _command(kernel: KernelChoice) -> list[str]:
    """Return the command line of all parts but for the job: all run on the very same kernel."""
    provider, clock = chosen_kernel(kernel)
    limits = kernel.limits
    command = [sys.executable, "-m", "kproxy", "compare"]
    command += ["--kernel", str(provider.kernel_name), "--clock", str(clock)]
    command += ["--memory", f"{limits.memory // base.MIB}M", "--time-limit", f"{limits.time:g}s"]
    command += ["--stall", f"{limits.stall:g}s"]
    return command if kernel.seed is None else [*command, "--seed", str(kernel.seed)]


class _Total:
    """Adds up what the parts have done."""

    def __init__(
        self, parameters: comparison.Parameters, progress: Callable[[Step], None]
    ) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._total = len(parameters.modes) * len(parameters.scenarios) * parameters.trials
        self._progress = progress

    def tell(self, line: str) -> None:
        """Take a line that a part wrote; what is no step is passed on."""
        found = _STEP.fullmatch(line)
        with self._lock:
            if found is None:
                click.echo(line, err=True)
                return
            self._done[found[2]] = int(found[1])
            done = sum(self._done.values())
            self._progress(Step(done=done, total=self._total, mode=found[2], text=found[3]))


class _Part:
    """One mode, in a process that boots a kernel for it."""

    def __init__(
        self, job: Job, mode: str, place: Path, command: Sequence[str], total: _Total
    ) -> None:
        self._mode = mode
        self._place = place
        self._command = command
        self._total = total
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._ended = False
        self._code = 0
        self._said = ""
        self._job = dataclasses.replace(
            job,
            parameters=dataclasses.replace(job.parameters, modes=(mode,)),
            place=str(place),
            fresh=False,
            part=True,
            reproduced=None,
            problems=(),
        )

    @property
    def begun(self) -> bool:
        """Return whether a process was started for it."""
        return self._process is not None

    def run(self) -> None:
        """Start it and wait for its end, passing on what it says; nothing if it was ended."""
        with self._lock:
            if self._ended:
                return
            self._place.mkdir()
            job = compare_job.write(self._job, self._place)
            self._process = subprocess.Popen(
                [*self._command, "--job", str(job)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # An interrupt of the terminal comes to us, and we pass it on once.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said = line.rstrip() or self._said
                self._total.tell(line.rstrip())
        self._code = self._process.wait()

    def end(self, number: int) -> None:
        """Ask it to end, or not to begin."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(number)

    def result(self) -> resultset.ResultSet | None:
        """Return what it found; None if it was ended before it had anything.

        Raises MeasurementError if it ended by itself without a result.
        """
        path = self._place / RESULT
        if path.exists():
            return resultset.read(path)
        if self._ended:
            return None
        raise errors.MeasurementError(
            f"mode {self._mode}: ended with code {self._code} and no result: {self._said}"
        )


def _end_with_parent() -> None:
    """Have this process asked to end when the one that waits for it dies."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _whole(job: Job, found: Sequence[resultset.ResultSet], how: str) -> resultset.ResultSet:
    """Put results of single modes together. ``how`` the run was cut short; empty: it was not."""
    if not found:
        raise errors.MeasurementError(f"{how} before anything was measured")
    first = found[0]
    trials = tuple(trial for one in found for trial in one.trials)
    incomplete = [text for one in found for text in one.parameters["incomplete"]]
    if how and how not in incomplete:
        incomplete.append(how)
    parameters = {
        **first.parameters,
        "modes": list(job.parameters.modes),
        "incomplete": list(dict.fromkeys(incomplete)),
    }
    return dataclasses.replace(
        first, parameters=parameters, trials=trials, summary=comparison.judged(trials)
    )
