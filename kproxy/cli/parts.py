"""Parts of one run side by side: a process for each, which boots a kernel of its own.

In virtual time a kernel uses one CPU, so several finish a run in less of the user's time.
"""

import contextlib
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

from kproxy.cli import progress
from kproxy.cli.kernel_option import KernelChoice, chosen_kernel
from kproxy.lab.comparison import INTERRUPTED, TERMINATED, Step
from netns.kernels import base
from netns.lab import signals_unwind
from netns.process import end_with_parent

RESULT = "result.json"
_STEP = re.compile(r" *\d+ s  \[(\d+)/\d+\] (\S+): (.*)")


def command(kernel: KernelChoice, word: str) -> list[str]:
    """Return the command line of all parts but for the job: all run on the very same kernel."""
    provider, clock = chosen_kernel(kernel)
    limits = kernel.limits
    words = [sys.executable, "-m", "kproxy", word]
    words += ["--kernel", str(provider.kernel_name), "--clock", str(clock)]
    words += ["--memory", f"{limits.memory // base.MIB}M", "--time-limit", f"{limits.time:g}s"]
    words += ["--stall", f"{limits.stall:g}s"]
    return words if kernel.seed is None else [*words, "--seed", str(kernel.seed)]


class Total:
    """Adds up what the parts have done of ``total`` things."""

    def __init__(self, total: int, progress: Callable[[Step], None]) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, int] = {}
        self._total = total
        self._progress = progress

    def tell(self, part: str, line: str) -> None:
        """Take a line that a part wrote; what is neither a step nor news is passed on."""
        found, news = _STEP.fullmatch(line), progress.news_of(line)
        with self._lock:
            if news is not None:
                done, mode, said = news
                self._told(part, done, Step(done=0, total=0, mode=mode, text="", news=said))
                return
            if found is None:
                click.echo(line, err=True)
                return
            step = Step(done=0, total=0, mode=found[2], text=found[3])
            self._told(part, int(found[1]), step)

    def _told(self, part: str, done: int, step: Step) -> None:
        self._done[part] = done
        done = sum(self._done.values())
        self._progress(dataclasses.replace(step, done=done, total=self._total))


class Part:
    """One part: a process with a directory of its own, into which ``prepare`` writes its job.

    ``prepare`` returns the command. What the process says goes to ``total``.
    """

    def __init__(
        self, name: str, place: Path, prepare: Callable[[], Sequence[str]], total: Total
    ) -> None:
        self.name = name
        self.place = place
        self._prepare = prepare
        self._total = total
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.ended = False
        """Whether it was asked to end, or not to begin."""
        self._code = 0
        self._said = ""

    @property
    def begun(self) -> bool:
        """Return whether a process was started for it."""
        return self._process is not None

    @property
    def result(self) -> Path | None:
        """Return the file with what it found; None: there is none."""
        path = self.place / RESULT
        return path if path.exists() else None

    @property
    def end_in_words(self) -> str:
        """Return how it ended, and what it said last."""
        return f"ended with code {self._code} and no result: {self._said}"

    def run(self) -> None:
        """Start it and wait for its end, passing on what it says; nothing if it was ended."""
        with self._lock:
            if self.ended:
                return
            self.place.mkdir()
            self._process = subprocess.Popen(
                self._prepare(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # An interrupt of the terminal comes to us, and we pass it on once.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                if not line.startswith(progress.NEWS):
                    self._said = line.rstrip() or self._said
                self._total.tell(self.name, line.rstrip())
        self._code = self._process.wait()

    def end(self, number: int) -> None:
        """Ask it to end, or not to begin."""
        with self._lock:
            self.ended = True
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(number)


def run(parts: Sequence[Part]) -> str:
    """Do all parts, as many at a time as there are CPUs.

    An interrupt ends all of them early. Returns how the run was cut short; empty: it was not.
    """
    how = ""
    with signals_unwind(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        futures: list[Future[None]] = []
        try:
            futures += [pool.submit(part.run) for part in parts]
            wait(futures)
        except KeyboardInterrupt:
            how = INTERRUPTED
        except SystemExit:
            how = TERMINATED
        if how:
            number = signal.SIGINT if how == INTERRUPTED else signal.SIGTERM
            for part in parts:
                part.end(number)
            wait(futures)
    return how
