"""Run the laboratory again and again, on an idle machine and on a busy one, and compare.

``scripts/check-reproducible`` is the way in. In virtual time the summary of ``kproxy compare`` is
the same in every run, byte for byte as it is written, and so are summary and trials of ``kproxy
chain``, outcome and (virtual) duration of every test of the tier ``lab``; whatever differs is an
error, and the first difference is shown.
The first run has the machine for itself and is what the others are compared with; all the others
have to share it with two processes that do nothing but compute.
"""

import argparse
import contextlib
import difflib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns.kernels import base, registry

ROOT = Path(__file__).resolve().parent.parent
PYTHON = str(ROOT / ".venv" / "bin" / "python")
HOGS = 2
KERNEL = ("--kernel", "uml", "--clock", "virtual")
# Slower than that is a run that hangs: twenty of them have to end some day.
TIME_LIMIT = "20m"
CHAIN_TIME_LIMIT = "60m"
SHOWN = 20  # lines of a difference


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to be repeated: its command leaves files in a directory, ``digest`` reads them."""

    name: str
    command: Callable[[Path], Sequence[str]]
    digest: Callable[[Path], str]
    may_fail: bool = False


def compare_command(trials: int, place: Path) -> list[str]:
    """Return the command that measures all scenarios in all modes."""
    options = ("--trials", str(trials), "--time-limit", TIME_LIMIT, "--out", str(place))
    return [PYTHON, "-m", "kproxy", "compare", *KERNEL, *options]


def compare_digest(place: Path) -> str:
    """Return the summary of a result, as it stands in the file.

    Raises RuntimeError if it does not stand there.
    """
    return raw_summary((place / "result.json").read_bytes())


def raw_summary(result: bytes) -> str:
    """Return what is written between the names ``summary`` and ``trials`` of the outermost object.

    A line break inside a string is written otherwise, so these lines are there once.
    Raises RuntimeError if they are not.
    """
    before, summary, rest = result.partition(b'\n  "summary": ')
    text, trials, _ = rest.partition(b'\n  "trials": ')
    if not (before and summary and trials and text.strip(b"[],\n ")):
        raise RuntimeError("compare: result.json has no summary where one was looked for")
    return text.decode()


def chain_command(place: Path) -> list[str]:
    """Return the command that breaks every link of the chain."""
    options = ("--time-limit", CHAIN_TIME_LIMIT, "--out", str(place))
    return [PYTHON, "-m", "kproxy", "chain", *KERNEL, *options]


def chain_digest(place: Path) -> str:
    """Return the summary and all trials of a result, as they stand in the file.

    Raises RuntimeError if they do not stand there.
    """
    result = (place / "result.json").read_bytes()
    raw_summary(result)
    return result.partition(b'\n  "summary": ')[2].decode()


def lab_command(place: Path) -> list[str]:
    """Return the command that runs the tests of the tier ``lab``."""
    options = ("--time-limit", TIME_LIMIT, "--writable", str(place))
    tests = ("tests/contract", "tests/lab", "-m", "kernel or lab")
    pytest = (PYTHON, "-m", "pytest", "-q", f"--junitxml={place / 'outcomes.xml'}", *tests)
    return [PYTHON, "-m", "netns.kernels", *KERNEL, *options, "--", *pytest]


def lab_digest(place: Path) -> str:
    """Return outcome and duration of every test, a line for each, and how long all took."""
    return outcomes(ElementTree.parse(place / "outcomes.xml").getroot())


def outcomes(report: ElementTree.Element) -> str:
    """Return what a report of pytest's says of each test; its seconds are those of the guest."""
    lines = []
    for case in report.iter("testcase"):
        found = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcome = f"{', '.join(found) or 'passed'} in {case.get('time')} s"
        lines.append(f"{case.get('classname')}::{case.get('name')}: {outcome}")
    for suite in report.iter("testsuite"):
        lines.append(f"all: {suite.get('time')} s, begun at {suite.get('timestamp')}")
    return "\n".join(lines)


def subjects(trials: int) -> tuple[Subject, ...]:
    """Return what is repeated."""
    return (
        Subject("compare", functools.partial(compare_command, trials), compare_digest),
        Subject("chain", chain_command, chain_digest),
        # A test that fails in the same way every time is the business of scripts/test.
        Subject("lab", lab_command, lab_digest, may_fail=True),
    )


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep so many CPUs busy."""
    processes = [subprocess.Popen([PYTHON, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(subject: Subject, place: Path, load: int) -> str:
    """Run it once and return what is to be the same every time.

    Raises RuntimeError, with the end of what it said, if it did not come to its end.
    """
    place.mkdir()
    with hogs(load):
        done = subprocess.run(
            subject.command(place),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,  # input would move the clock
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if done.returncode and not (subject.may_fail and done.returncode == 1):
        said = "\n".join(done.stdout.splitlines()[-SHOWN:])
        raise RuntimeError(f"{subject.name}: exit code {done.returncode}\n{said}")
    return subject.digest(place)


def difference(first: str, other: str) -> str:
    """Return what is different, in short; empty if nothing is, to the last byte."""
    if first == other:
        return ""
    lines = difflib.unified_diff(
        first.splitlines(), other.splitlines(), "the first run", "this run", lineterm="", n=0
    )
    shown = list(lines)
    more = f"\n… {len(shown) - SHOWN} more lines" if len(shown) > SHOWN else ""
    return "\n".join(shown[:SHOWN]) + more or "line ends differ"


def repeat(subject: Subject, times: int, scratch: Path) -> bool:
    """Run it so many times, all but the first under load; tell whether all were the same."""
    first = ""
    for number in range(times):
        load = HOGS if number else 0
        begun = time.monotonic()
        # The same name every time: a command may well see its own arguments.
        place = scratch / subject.name
        digest = run(subject, place, load)
        place.rename(scratch / f"{subject.name}-{number}")
        first = first or digest
        differs = difference(first, digest)
        seconds = time.monotonic() - begun
        how = f"{subject.name}, run {number + 1} of {times}, {load} hogs, {seconds:.0f} s"
        print(f"{how}: {'DIFFERS' if differs else 'the same' if number else 'done'}", flush=True)
        if differs:
            print(differs)
            return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Run the command line. Returns 1 if a run differs, 2 if nothing can be run here."""
    parser = argparse.ArgumentParser(prog="scripts/check-reproducible", description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs of each; default: 20")
    parser.add_argument("--trials", type=int, default=3, help="of compare; default: 3")
    names = [subject.name for subject in subjects(1)]
    parser.add_argument("--only", choices=names, help="default: all")
    options = parser.parse_args(arguments)
    if options.times < 2:
        parser.error("--times: a run can only differ from another")
    if options.trials < 1:
        parser.error("--trials: at least 1")
    reason = why_not()
    if reason is not None:
        print(f"scripts/check-reproducible: {reason}", file=sys.stderr)
        return 2
    same = True
    with tempfile.TemporaryDirectory(prefix="reproducible-", dir=scratch_parent()) as scratch:
        for subject in subjects(options.trials):
            if options.only in (None, subject.name):
                try:
                    same &= repeat(subject, options.times, Path(scratch))
                except RuntimeError as error:
                    print(f"scripts/check-reproducible: {error}", file=sys.stderr)
                    same = False
    print(f"every run was the same: {'yes' if same else 'NO'}")
    return 0 if same else 1


def scratch_parent() -> Path:
    """Return a directory for scratch directories (made if absent)."""
    parent = Path(os.environ.get("TMPDIR", "/var/tmp"))
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def why_not() -> str | None:
    """Tell why this machine has no virtual time, or None."""
    kernel = registry.preferred()
    if kernel is not None and base.Clock.VIRTUAL in kernel.clocks:
        return None
    return "no kernel with a virtual clock: scripts/install --kernel"


if __name__ == "__main__":
    # So that the scratch directory goes, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
