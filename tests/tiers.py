"""Run the tiers of tests, and tell at the end which passed, failed, or could not run, and why.

``scripts/test`` is the way in. A tier that a machine cannot run is not a failure, but it is
reported by name and reason: a green run that left out the kernel must not look like one that did
not. The tiers are described in CONTRIBUTING.md.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import examples
import reproducible
import virtual_machine

from netns.kernels import registry

ROOT = Path(__file__).resolve().parent.parent
PYTHON = str(ROOT / ".venv" / "bin" / "python")
# No cache: an embedded kernel sees the checkout read-only, and a warning is an error.
NATIVE_TIER = "KPROXY_NATIVE_TIER_PASSED"
LAB_PARTS = 6  # so that two CPUs, or four, are busy to the end
MOST_AT_ONCE = 4  # each may fill two gigabytes
BROWSER = ("tests/lab/test_dashboard_browser.py", "tests/lab/test_report_browser.py")
PYTEST = (PYTHON, "-m", "pytest", "-p", "no:cacheprovider")


class Result(StrEnum):
    """How a tier ended."""

    PASSED = "passed"
    FAILED = "FAILED"
    COULD_NOT_RUN = "could not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A set of tests that need the same of the machine, or a ``part`` of it.

    ``why_not`` returns None where the machine can run them, otherwise the reason and the remedy.
    ``after`` names a tier whose result this one has to know.
    """

    name: str
    about: str
    command: Sequence[str]
    why_not: Callable[[], str | None] = lambda: None
    part: str = ""
    after: str | None = None

    @property
    def title(self) -> str:
        """Return its name, with that of the part."""
        return f"{self.name} {self.part}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened to one tier: ``lines`` are for the reader, the most telling one first."""

    tier: str
    result: Result
    lines: Sequence[str]


def tiers() -> list[Tier]:
    """Return all tiers, the quickest first."""
    return [
        Tier(
            name="unit",
            about="pure code; no root, no kernel",
            command=[*PYTEST, "tests/unit", "tests/flows"],
        ),
        Tier(
            name="contract",
            about="the fakes keep the promises of the kernel libraries; pages; the house rules",
            command=[
                *PYTEST,
                *("tests/contract", "tests/test_house.py", *BROWSER),
                *("-m", "not kernel and not lab"),
            ],
        ),
        Tier(
            name="kernel",
            about="the same promises, kept by this machine's kernel, in fresh namespaces",
            command=[*unshare(), *PYTEST, "tests/contract", "-m", "kernel"],
            why_not=no_namespaces,
        ),
        *lab(1 if has_ipvs() else LAB_PARTS),
        *([] if has_ipvs() else [embedded()]),
        Tier(
            name="uml",
            about="embedded kernels: streams, signals, terminals, crashes, and nothing left",
            command=[*PYTEST, "tests/lab", "-m", "uml"],
            why_not=no_embedded_kernel,
        ),
        Tier(
            name="vm",
            about="emulated network cards in a virtual machine: taken, unplugged, given back",
            command=[*PYTEST, "-n", "0", "tests/lab", "-m", "vm"],
            why_not=virtual_machine.why_not,
        ),
        Tier(
            name="reproducible",
            about="a comparison in virtual time, twice, idle and under load: the same results",
            command=[
                *(PYTHON, "tests/reproducible.py", "--times", "2"),
                *("--trials", "1", "--only", "compare"),
            ],
            why_not=reproducible.why_not,
        ),
    ]


def lab(parts: int) -> list[Tier]:
    """Return the tier of the lab in so many parts: each on a kernel of its own, if embedded."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/lab").glob("test_*.py"))
    return [
        Tier(
            name="lab",
            about="real packets, on a kernel with IPVS: this one or an embedded one",
            command=[*on_kernel("auto"), *PYTEST, "-m", "lab", *files[number::parts]],
            why_not=no_kernel_with_ipvs,
            part=f"{number + 1}/{parts}" if parts > 1 else "",
        )
        for number in range(parts)
    ]


def embedded() -> Tier:
    """Return the tier that a machine needs whose own kernel cannot keep all promises."""
    return Tier(
        name="embedded",
        about="the same promises, kept by an embedded kernel, which has IPVS",
        command=[*on_kernel("uml"), *PYTEST, "tests/contract", "-m", "kernel"],
        why_not=no_embedded_kernel,
        after="kernel",
    )


def on_kernel(name: str) -> list[str]:
    """Return the command prefix that runs a command on a kernel fit for the lab.

    A whole cluster with three etcd members fills a gigabyte.
    """
    return [PYTHON, "-m", "netns.kernels", "--kernel", name, "--memory", "2G", "--"]


def has_ipvs() -> bool:
    """Tell whether this machine's own kernel has IPVS, or can load it."""
    if Path("/proc/net/ip_vs").exists():
        return True
    return subprocess.run(["modprobe", "-qn", "ip_vs"], check=False).returncode == 0


def at_once() -> int:
    """Return how many tiers may run side by side: one more than CPUs, since some wait for much.

    One where the lab runs natively, in the world's time, which other work would disturb.
    """
    return 1 if has_ipvs() else min(MOST_AT_ONCE, len(os.sched_getaffinity(0)) + 1)


def unshare() -> list[str]:
    """Return the command prefix that gives a command namespaces of its own, and root in them."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--"]


def no_namespaces() -> str | None:
    """Tell why this user cannot make network namespaces, or None."""
    probe = subprocess.run([*unshare(), "true"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return None
    return f"{probe.stderr.strip()}; run it as root: sudo scripts/test kernel"


def no_kernel_with_ipvs() -> str | None:
    """Tell why there is no kernel with IPVS at hand, or None."""
    if has_ipvs() or registry.kernels():
        return None
    return f"no IPVS in this kernel, {no_embedded_kernel()}"


def no_embedded_kernel() -> str | None:
    """Tell why no embedded kernel can be booted, or None."""
    if registry.kernels():
        return None
    return "no embedded kernel: sudo apt-get install user-mode-linux, or scripts/install --kernel"


def run(tier: Tier, environment: Mapping[str, str]) -> Report:
    """Run one tier, passing its output through. ``environment`` is added to this program's."""
    reason = tier.why_not()
    if reason is not None:
        print(f"== {tier.title}: could not run: {reason}", flush=True)
        return Report(tier=tier.title, result=Result.COULD_NOT_RUN, lines=[reason])
    print(f"== {tier.title}: {tier.about}", flush=True)
    started = time.monotonic()
    output: list[str] = []
    with subprocess.Popen(
        tier.command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{tier.title}| {line}", end="", flush=True)
            output.append(re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", line).strip())
    seconds = time.monotonic() - started
    return judge(tier.title, process.returncode, [line for line in output if line], seconds)


def run_all(chosen: Sequence[Tier], workers: int) -> list[Report]:
    """Run tiers, so many side by side; the reports are in the order of the tiers."""
    waiting = list(chosen)
    running: dict[Future[Report], Tier] = {}
    reports: dict[str, Report] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            while len(running) < workers and (tier := _next(waiting, running.values())):
                waiting.remove(tier)
                # What is long and the same on each kernel need not be done twice (marker "once").
                before = reports.get(tier.after or "")
                passed = before is not None and before.result is Result.PASSED
                told = {NATIVE_TIER: "1"} if passed else {}
                running[pool.submit(run, tier, {**told, examples.THOROUGH: "1"})] = tier
            # Nothing else begins a tier: after Ctrl-C, which is heard here, none begins.
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                reports[running.pop(future).title] = future.result()
    return [reports[tier.title] for tier in chosen]


def _next(waiting: Iterable[Tier], running: Iterable[Tier]) -> Tier | None:
    """Return the first one that need not wait for another tier's end."""
    unfinished = {tier.name for tier in (*waiting, *running)}
    return next((tier for tier in waiting if tier.after not in unfinished), None)


def judge(tier: str, exit_code: int, output: Sequence[str], seconds: float) -> Report:
    """Make a report of what a tier printed and returned.

    A tier all of whose tests were skipped has shown nothing: it could not run.
    """
    last = output[-1].strip("= ") if output else "no output"
    skips: Counter[str] = Counter()
    for line in output:
        if found := re.match(r"SKIPPED \[(\d+)\] \S+: (.*)", line):
            skips[found[2]] += int(found[1])
    reasons = [f"{count} skipped: {reason}" for reason, count in skips.most_common()]
    if exit_code != 0:
        said = f"exit code {exit_code} after {seconds:.0f} s: {last}"
        return Report(tier=tier, result=Result.FAILED, lines=[said, *reasons])
    ran_none = bool(skips) and not re.search(r"\b[1-9]\d* passed", last)
    result = Result.COULD_NOT_RUN if ran_none else Result.PASSED
    return Report(tier=tier, result=result, lines=[last, *reasons])


def summary(reports: Sequence[Report]) -> str:
    """Return the table that ends a run."""
    rows = ["", "tier                   result         details"]
    for report in reports:
        rows.append(f"{report.tier:<22} {report.result:<14} {report.lines[0]}")
        rows.extend(f"{'':<38}{line}" for line in report.lines[1:])
    missed = [report.tier for report in reports if report.result is Result.COULD_NOT_RUN]
    if missed:
        rows.append(f"NOT TESTED on this machine: {', '.join(missed)}")
    return "\n".join(rows)


def main(arguments: Sequence[str]) -> int:
    """Run the tiers that are named, or all. Returns 1 if one failed."""
    every = tiers()
    known = {tier.name: tier for tier in every}
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Run every tier of tests that this machine can run, or those that are named.",
        epilog="\n".join(f"  {tier.name:<22} {tier.about}" for tier in known.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tier", nargs="*", help="one of the names below; default: all")
    chosen = parser.parse_args(arguments).tier
    unknown = [name for name in chosen if name not in known]
    if unknown:
        parser.error(f"no tier {unknown[0]!r}; there are: {', '.join(known)}")
    reports = run_all([t for t in every if not chosen or t.name in chosen], at_once())
    print(summary(reports))
    return int(any(report.result is Result.FAILED for report in reports))


def run_main(arguments: Sequence[str]) -> int:
    """Run :func:`main`; return 130 if it is interrupted, as a shell does."""
    try:
        return main(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(run_main(sys.argv[1:]))
