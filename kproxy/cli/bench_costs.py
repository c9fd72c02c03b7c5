"""``kproxy bench costs``: what the node proxy's work takes in real time, as a cost model.

With ``--kernel auto`` each mode is measured on this machine's own kernel if that has it, and the
others in an embedded kernel, in real time; start and list are always those of this machine,
because they stand for a real node's. With a kernel named, everything is measured on that one.
"""

import datetime
import functools
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from kproxy import costfile
from kproxy.cli import jobdirectory
from kproxy.cli.kernel_option import PACKAGE, KernelChoice, kernel_options, run_on_kernel
from kproxy.errors import MeasurementError, UsageError
from kproxy.lab import benchcluster, costbench, costfit, facts
from kproxy.lab import modes as labmodes
from netns.kernels import base, choice
from netns.lab import signals_unwind

LEAST_RUNS = 5
MOST_LOAD = 0.5  # load average per CPU from which on a machine is busy
STATE = "costs"


@click.command()
@click.option(
    "--modes",
    default=",".join(labmodes.MODES),
    show_default=True,
    metavar="MODE[,MODE]",
    help="Modes of the proxy to measure.",
)
@click.option("--runs", default=9, show_default=True, help="Runs of each size, at least 5.")
@click.option("--large", is_flag=True, help="Measure 10,000 × 10, too; takes minutes more.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the model instead of the table.")
@kernel_options
def costs(
    modes: str, runs: int, large: bool, out: Path | None, as_json: bool, kernel: KernelChoice
) -> None:
    """Measure what start, list and sync of the proxy take, and make a cost model of it.

    The start of a pod's program, and what the control plane does at a pod's end, are in it, too.
    In virtual time computing takes none; `kproxy compare --costs FILE` puts it in again.
    """
    wanted = labmodes.read(modes)
    if runs < LEAST_RUNS:
        raise UsageError(f"--runs {runs}: at least {LEAST_RUNS} are needed for a median")
    facts.tell_guest()
    sizes = (*costbench.SIZES, costbench.LARGE) if large else costbench.SIZES
    if kernel.name in (choice.AUTO, "native") or base.inside_guest():
        model = _measure_here(wanted, sizes, runs, kernel)
    else:
        run_on_kernel(kernel, writable=[out.absolute().parent] if out else [])
        raise AssertionError("this kernel is not the one that was named")
    model = _named(model, out)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(costfile.encode(model))
        click.echo(f"kproxy: written: {out}", err=True)
    if as_json:
        click.echo(costfile.encode(model), nl=False)
    else:
        click.echo("\n".join(as_table(model)))


def _measure_here(
    modes: tuple[str, ...], sizes: tuple[benchcluster.Size, ...], runs: int, kernel: KernelChoice
) -> costfile.Model:
    """Measure what this kernel can do here, and the rest in an embedded one if that is allowed."""
    if base.clock() is not base.Clock.REAL:
        raise UsageError("costs are measured in real time", remedy="use --clock real")
    if os.geteuid() != 0:
        raise UsageError("no network namespace can be made", remedy="run this as root")
    lacking = labmodes.lacking(labmodes.MODES)
    elsewhere = tuple(mode for mode in modes if mode in lacking)
    for mode in elsewhere:
        click.echo(f"kproxy: not on this kernel: mode {mode}: {lacking[mode]}", err=True)
    if elsewhere and (kernel.name != choice.AUTO or base.inside_guest()):
        raise UsageError(
            f"--modes {','.join(elsewhere)}: not on this kernel", remedy="use --kernel auto"
        )
    # Before anything is measured, which is load, too; inside a guest it is what the host was told.
    machine = facts.host()
    busy = _is_busy(machine)
    if busy and not base.inside_guest():
        _tell_load(machine)
    models = []
    if elsewhere:
        models.append(_measure_embedded(elsewhere, sizes, runs, kernel))
    here = [mode for mode in modes if mode not in lacking]
    # Start and list are this machine's also if all the wanted modes are not.
    if able := here or [mode for mode in labmodes.MODES if mode not in lacking][:1]:
        with signals_unwind():
            state = base.state_directory() / STATE
            samples = costbench.measure(able, sizes, runs, state, _tell)
        wanted = [sample for sample in samples if sample.mode in ("", *modes)]
        model = costfit.model("measured", wanted, _origin(machine))
        models.append(_marked(model) if busy else model)
    return functools.reduce(costfile.merged, models)


def _named(model: costfile.Model, out: Path | None) -> costfile.Model:
    """Return the model under the name of its file, by which reports call it."""
    return costfile.Model(name=out.stem, entries=model.entries) if out else model


def _measure_embedded(
    modes: tuple[str, ...], sizes: tuple[benchcluster.Size, ...], runs: int, kernel: KernelChoice
) -> costfile.Model:
    """Run this command in an embedded kernel, in real time, and return what it measured."""
    provider = choice.choose("uml").provider
    click.echo(f"kproxy: measuring {', '.join(modes)} on {provider.describe()}", err=True)
    with jobdirectory.made(base.state_directory()) as directory:
        out = directory / "model.json"
        words = ["-m", "kproxy", "bench", "costs", "--modes", ",".join(modes), "--json"]
        words += [
            "--runs",
            str(runs),
            "--out",
            str(out),
            *(["--large"] if costbench.LARGE in sizes else []),
        ]
        shell = ("/bin/sh", "-c", 'exec "$@" >/dev/null', "sh", sys.executable, *words)
        command = base.Command(
            argv=shell, writable=(directory,), packages=(PACKAGE,), clock=base.Clock.REAL
        )
        code = provider.run(command, kernel.limits)
        if code != 0:
            raise MeasurementError(f"measuring on {provider.describe()} ended with code {code}")
        return costfile.read(out)


def _is_busy(machine: Mapping[str, Any]) -> bool:
    """Tell whether other work would be measured, too."""
    return bool(machine["load_average"][0] > MOST_LOAD * machine["cpus"])


def _tell_load(machine: Mapping[str, Any]) -> None:
    """Warn of other work.

    A higher priority is no remedy: it counts within a session only (sched(7), autogroup).
    """
    click.echo(
        f"kproxy: WARNING: load average {machine['load_average'][0]:.1f}"
        f" on {machine['cpus']} CPUs: other work makes the costs too large, and the model is"
        " marked as busy; measure on an idle machine",
        err=True,
    )


def _marked(model: costfile.Model) -> costfile.Model:
    """Return a model that says of all its entries that they were measured beside other work."""
    entries = tuple(msgspec.structs.replace(entry, busy=True) for entry in model.entries)
    return msgspec.structs.replace(model, entries=entries)


def _tell(text: str) -> None:
    click.echo(f"kproxy: {text}", err=True)


def _origin(machine: Mapping[str, Any]) -> costfit.Origin:
    """Return where is measured; ``machine`` is the one around the guest, if there is a guest."""
    release = platform.release()
    embedded = base.inside_guest()
    return costfit.Origin(
        kernel=f"User-Mode Linux {release} in real time" if embedded else f"native {release}",
        tools=costbench.tools(),
        machine=f"{platform.machine()}, {machine['cpus']} CPUs, "
        f"load {machine['load_average'][0]:.1f}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def as_table(model: costfile.Model) -> list[str]:
    """Return a model as lines for a reader: milliseconds, median (min–max) at every size."""
    lines = []
    for entry in model.entries:
        terms = entry.seconds
        lines.append(
            f"{entry.process} {entry.place} {entry.mode}".rstrip()
            + f": {terms.constant * 1e3:.1f} ms"
            + f" + {terms.per_service * 1e6:.1f} µs per service"
            + f" + {terms.per_endpoint * 1e6:.1f} µs per endpoint ({entry.kernel})"
            + (" MEASURED ON A BUSY MACHINE" if entry.busy else "")
        )
        for point in entry.points:
            fitted = terms.at(point.services, point.endpoints) * 1e3
            lines.append(
                f"  {point.services:>6} services {point.endpoints:>7} endpoints"
                f"  {point.median * 1e3:9.1f} ms ({point.min * 1e3:.1f}–{point.max * 1e3:.1f})"
                f"  model {fitted:9.1f} ms  n = {point.n}"
            )
    return lines
