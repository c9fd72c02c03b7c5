"""Where a bench of modes runs: each mode on this machine's kernel, or in an embedded one.

What the benches of modes share: the sizes that a user writes, the step onto a kernel, the document
that comes of it.
"""

import dataclasses
import functools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kproxy.cli import kernel_option
from kproxy.cli.kernel_option import PACKAGE, KernelChoice, run_on_kernel
from kproxy.errors import MeasurementError, UsageError
from kproxy.lab import costbench, facts
from kproxy.lab import modes as labmodes
from netns.kernels import base, choice

MOST_LOAD = 0.5
"""Load average for each CPU from which on a machine is busy."""

MEMORY = 3 << 30
"""What 10,000 services take in an embedded kernel, which uses no more than it needs."""

kernel_options = functools.partial(kernel_option.kernel_options, memory=f"{MEMORY >> 30}G")
"""The kernel's options of a bench of modes."""

LARGEST = 60_000
"""So many ClusterIPs there are."""

Rows = list[dict[str, Any]]
Measured = tuple[Rows, list[str]]
"""Rows, and what could not be measured."""

Measure = Callable[[tuple[str, ...]], Measured]
"""Measures modes which this kernel has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A bench: its command's name and options (all but the modes), and what measures."""

    name: str
    options: tuple[str, ...]
    measure: Measure
    memory: int = 0
    """Bytes that an embedded kernel needs at least."""


def numbers(text: str, most: int) -> tuple[int, ...]:
    """Return the numbers of services that a user wrote. Raises UsageError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or not 0 < int(word) <= most:
            raise UsageError(
                f"--services {word}: not a number of services",
                remedy=f"give numbers from 1 to {most}, separated by commas",
            )
    if not words:
        raise UsageError("--services: nothing to measure")
    return tuple(dict.fromkeys(map(int, words)))


def document(bench: Bench, wanted: tuple[str, ...], kernel: KernelChoice) -> dict[str, Any]:
    """Measure; return ``rows``, and the ``host`` and ``kernel`` that they were measured on.

    Raises UsageError where the clock is not the world's or a mode is not on the wanted kernel;
    MeasurementError.
    """
    if base.clock() is not base.Clock.REAL:
        raise UsageError(
            f"bench {bench.name}: what computing and packets cost is never told from virtual time",
            remedy="use --clock real",
        )
    limits = dataclasses.replace(kernel.limits, memory=max(kernel.limits.memory, bench.memory))
    kernel = dataclasses.replace(kernel, limits=limits)
    facts.tell_guest()
    if kernel.name not in (choice.AUTO, "native") and not base.inside_guest():
        run_on_kernel(kernel)
        raise AssertionError("this kernel is not the one that was named")
    if os.geteuid() != 0:
        raise UsageError("no network namespace can be made", remedy="run this as root")
    machine = facts.host()
    _warn_if_busy(machine)
    lacking = labmodes.lacking(wanted)
    for mode, why in lacking.items():
        tell(f"not on this kernel: mode {mode}: {why}")
    if lacking and (kernel.name != choice.AUTO or base.inside_guest()):
        raise UsageError(
            f"--modes {','.join(lacking)}: not on this kernel", remedy="use --kernel auto"
        )
    here = tuple(mode for mode in wanted if mode not in lacking)
    rows, failures = bench.measure(here) if here else ([], [])
    if lacking:
        more_rows, more_failures = _embedded(bench, tuple(lacking), kernel)
        rows, failures = [*rows, *more_rows], [*failures, *more_failures]
    return {
        "rows": rows,
        "failures": failures,
        "host": machine,
        "kernel": facts.kernel(),
        "started": facts.started(),
        "tools": costbench.tools(),
    }


def circumstances(found: Mapping[str, Any]) -> str:
    """Return the last line of a table: the machine, its load, and when."""
    machine = found["host"]
    load = ", ".join(f"{one:.1f}" for one in machine["load_average"])
    return f"{machine['cpus']} CPUs, load {load}; {found['started']}"


def show(found: Mapping[str, Any], table: Sequence[str] | None) -> int:
    """Print the table, or without one the document itself; return the exit code."""
    click.echo(json.dumps(found) if table is None else "\n".join(table))
    return 1 if found["failures"] else 0


def write(found: Mapping[str, Any], out: Path | None) -> None:
    """Write the document to a file, if one was named."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    tell(f"written: {out}")


def tell(text: str) -> None:
    """Tell on standard error how far it is."""
    click.echo(f"kproxy: {text}", err=True)


def kernel_name() -> str:
    """Return how rows call this kernel."""
    release = platform.release()
    return f"User-Mode Linux {release}" if base.inside_guest() else f"native {release}"


def _embedded(bench: Bench, lacking: tuple[str, ...], kernel: KernelChoice) -> Measured:
    """Run this command in an embedded kernel, in real time, and return its rows."""
    provider = choice.choose("uml").provider
    tell(f"measuring {', '.join(lacking)} on {provider.describe()}")
    with tempfile.TemporaryDirectory(prefix=f"kproxy-{bench.name}-") as directory:
        out = Path(directory) / "rows.json"
        words = ["-m", "kproxy", "bench", bench.name, "--modes", ",".join(lacking), "--json"]
        words += [*bench.options, "--out", str(out)]
        shell = ("/bin/sh", "-c", 'exec "$@" >/dev/null', "sh", sys.executable, *words)
        command = base.Command(
            argv=shell, writable=(Path(directory),), packages=(PACKAGE,), clock=base.Clock.REAL
        )
        code = provider.run(command, kernel.limits)
        if not out.exists():
            raise MeasurementError(f"measuring on {provider.describe()} ended with code {code}")
        found = json.loads(out.read_text())
        return found["rows"], found["failures"]


def _warn_if_busy(machine: Mapping[str, Any]) -> None:
    load = machine["load_average"][0]
    if load > MOST_LOAD * machine["cpus"] and not base.inside_guest():
        tell(
            f"WARNING: load average {load:.1f} on {machine['cpus']} CPUs: other work is measured,"
            " too; ratios to the peers say more than seconds"
        )
