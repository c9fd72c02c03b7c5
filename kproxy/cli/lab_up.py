"""``kproxy lab up``, ``down``, ``list``: a lab's life."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from kproxy import errors
from kproxy.api import catalog, manifests
from kproxy.cli.kernel_option import KernelChoice, KernelName, Quantity
from kproxy.cli.lab_option import find, place_options
from kproxy.cli.uplinks_option import on_this_machine, take_option
from kproxy.lab import clusterfile
from kproxy.lab.door import ground, messages
from kproxy.lab.door.directory import LabDirectory, every
from kproxy.lab.door.owner import Ended, Keeper
from kproxy.lab.site import Site
from netns import errors as netns_errors
from netns.kernels import base, choice, clocks, quantities
from netns.lab import repair

_WEEK = "168h"


@click.command()
@click.option(
    "-f",
    "--filename",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The lab's file (docs/lab.md).  [default: 2 nodes, 1 control-plane host, SQLite, TLS]",
)
@click.option("-d", "--detach", is_flag=True, help="Return as soon as it is up; it stays up.")
@click.option("--wait/--no-wait", default=True, help="Wait until what is declared is ready.")
@click.option(
    "--kernel",
    type=KernelName(),
    default=choice.AUTO,
    show_default=True,
    metavar="auto|native|uml|NAME",
    help="On which kernel it lives; see `kproxy kernel list`.",
)
@click.option(
    "--clock",
    type=click.Choice([str(clock) for clock in base.Clock]),
    default=str(base.Clock.REAL),
    show_default=True,
    help="The lab's clock; docs/clocks.md.",
)
@click.option("--seed", type=Quantity("number", clocks.parse_seed), help="Of what is random.")
@click.option(
    "--memory",
    type=Quantity("size", quantities.parse_memory),
    default="2G",
    show_default=True,
    help="Memory of an embedded kernel.",
)
@click.option(
    "--time-limit",
    type=Quantity("time", quantities.parse_time),
    default=_WEEK,
    show_default=True,
    help="After this time an embedded kernel is ended.",
)
@take_option
@click.option("--report-to", type=int, hidden=True)  # how a detached owner tells who started it
@place_options
def up(
    filename: Path | None,
    detach: bool,
    wait: bool,
    kernel: str,
    clock: str,
    seed: int | None,
    memory: int,
    time_limit: float,
    take_it: bool,
    report_to: int | None,
    name: str | None,
    place: Path,
) -> int:
    """Start a cluster, and keep it until Ctrl-C; with --detach until `kproxy lab down`.

    Without --name it is called as its file says.

    Exit code 0: it was up, and taken down as asked; 1: it could not be started, or has ended by
    itself; 2: bad usage or file; 125: the embedded kernel died.
    """
    job, problems = _job(filename, name, wait)
    for problem in problems:
        click.echo(f"kproxy: {problem}", err=True)
    directory = LabDirectory(place / job.file.name)
    job = msgspec.structs.replace(job, state_dir=str(directory.net), take_default_route=take_it)
    kernel = _with_cards(job.file, kernel, base.Clock(clock))
    if detach and report_to is None:
        return _detached(directory)
    chosen, words = _kernel(kernel, base.Clock(clock))
    limits = base.Limits(memory=memory, time=time_limit)
    command = ground.command(kernel, base.Clock(clock), limits, seed)
    tell: _Teller = _Pipe(report_to) if report_to is not None else _Screen(directory, job)
    tell.progress(words)
    try:
        with directory.taken(chosen.describe(), clock):
            Keeper(directory, progress=tell.progress, ready=tell.ready).run(command, job)
    except Ended as ended:
        tell.failed(ended)
        return ended.code
    except errors.KproxyError as error:
        if report_to is None:
            raise
        tell.failed(Ended(error.message, error.remedy, 2))
        return 2
    return 0


@click.command()
@click.option("--all", "everything", is_flag=True, help="All labs.")
@place_options
def down(everything: bool, name: str | None, place: Path) -> int:
    """Take a lab down, and whatever a lab that died has left behind.

    Nothing of it stays: no process, no namespace, no file. What `kproxy compare` or `kproxy chain`
    has left on this kernel when it was killed goes, too, and network cards come back.
    """
    labs = every(place) if everything else [find(place, name)]
    if not everything and name is None and not labs[0].root.exists():
        labs = every(place)[:1]
    gone = [one.name for one in labs if one.take_down()]
    with contextlib.suppress(netns_errors.LabBusy):  # a measurement that is alive goes on
        if repair(base.state_directory() / "lab"):
            gone.append("the lab of a measurement that was killed")
    text = f"down: {', '.join(gone)}" if gone else "there was no lab"
    click.echo(f"kproxy: {text}", err=True)
    return 0


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@place_options
def list_(as_json: bool, name: str | None, place: Path) -> int:
    """List the labs that are up, and those that died and left something behind."""
    rows = []
    for one in every(place):
        owner = one.owner()
        row = {"name": one.name, "state": "dead"}
        if owner is not None:
            since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(owner.began))
            row |= {"state": "up", "kernel": owner.kernel, "clock": owner.clock, "since": since}
            row["pid"] = str(owner.pid)
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        click.echo("  ".join(row.values()))
    return 0


def _job(
    filename: Path | None, name: str | None, wait: bool
) -> tuple[messages.Job, Sequence[errors.InvalidObject]]:
    """Return what is to be started, and the objects of its manifests that cannot be."""
    assert catalog.POD  # all kinds are known now
    where = filename.name if filename else "the lab's file"
    file = clusterfile.load(filename) if filename else clusterfile.ClusterFile()
    if name is not None:
        file = msgspec.structs.replace(file, name=name)
    Site(file).check(where)
    beside = filename.parent if filename else Path()
    good, problems = manifests.read_manifests(*(beside / one for one in file.manifests))
    objects = [one.data for one in good]
    return messages.Job(file=file, objects=objects, wait_s=300.0 if wait else 0.0), problems


def _with_cards(file: clusterfile.ClusterFile, kernel: str, clock: base.Clock) -> str:
    """Return the kernel for a file: this machine's, if hosts are on its cards."""
    if not file.uplinks:
        return kernel
    return on_this_machine(KernelChoice(name=kernel, clock=clock)).name


def _kernel(name: str, clock: base.Clock) -> tuple[base.Provider, str]:
    """Return the kernel, and how to tell of it. Raises UsageError if it cannot be used."""
    try:
        chosen, _ = clocks.choose(name, clock)
    except netns_errors.KernelUnusable as error:
        raise errors.UsageError(error.message, remedy=error.remedy) from None
    used = f"using {clocks.in_words(chosen.provider, clock, None)}"
    return chosen.provider, f"{chosen.because}; {used}" if chosen.because else used


class _Teller:
    """Tells the user how a lab's start goes."""

    def progress(self, text: str) -> None:
        """Tell what is done now."""
        click.echo(f"kproxy: {text}", err=True)

    def ready(self, report: messages.Report) -> None:
        """Tell that it is up."""

    def failed(self, ended: Ended) -> None:
        """Tell that it is not, or no longer."""
        click.echo(f"kproxy: {ended}", err=True)


class _Screen(_Teller):
    """In the foreground: on standard error."""

    def __init__(self, directory: LabDirectory, job: messages.Job) -> None:
        self._directory = directory
        self._job = job

    def ready(self, report: messages.Report) -> None:
        """Tell that it is up, and what one can do with it."""
        tell_problems(report)
        site = Site(self._job.file)
        words = f"{_count(len(site.nodes), 'node')}, "
        words += _count(len(site.control), "control-plane host")
        click.echo(
            f"kproxy: lab {self._directory.name} is up after {report.took_s:.1f} s: {words}; "
            "Ctrl-C takes it down",
            err=True,
        )


class _Pipe(_Teller):
    """In the background: as JSON lines to whoever waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def progress(self, text: str) -> None:
        """Tell what is done now."""
        self._write("progress", text)

    def ready(self, report: messages.Report) -> None:
        """Tell that it is up; from now on nobody listens."""
        self._write("ready", msgspec.to_builtins(report))
        os.close(self._descriptor)
        self._descriptor = -1

    def failed(self, ended: Ended) -> None:
        """Tell that it is not."""
        failure = messages.Failure(message=ended.message, remedy=ended.remedy, code=ended.code)
        self._write("failed", msgspec.to_builtins(failure))
        super().failed(ended)

    def _write(self, what: str, value: object) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, json.dumps({what: value}).encode() + b"\n")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def tell_problems(report: messages.Report) -> None:
    """Tell which objects were refused."""
    for problem in report.problems:
        click.echo(f"kproxy: {problem}", err=True)


def _detached(directory: LabDirectory) -> int:
    """Start the same command in the background, and wait until its lab is up."""
    if directory.owner() is not None:
        raise directory.present()
    directory.root.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    command = [sys.executable, *sys.orig_argv[1:], "--report-to", str(writer)]
    with directory.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    try:
        return _follow(directory, reader)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _follow(directory: LabDirectory, reader: int) -> int:
    """Show what a detached lab tells until it is up; return the exit code."""
    rest = b""
    while True:
        select.select([reader], [], [])
        data = os.read(reader, 65536)
        *lines, rest = (rest + data).split(b"\n")
        for line in map(json.loads, lines):
            if "progress" in line:
                click.echo(f"kproxy: {line['progress']}", err=True)
            elif "ready" in line:
                report = msgspec.convert(line["ready"], messages.Report)
                tell_problems(report)
                click.echo(
                    f"kproxy: lab {directory.name} is up after {report.took_s:.1f} s; "
                    "`kproxy lab down` takes it down",
                    err=True,
                )
                return 0
            else:
                failure = msgspec.convert(line["failed"], messages.Failure)
                raise_failure(failure)
        if not data:
            raise errors.KproxyError(
                f"lab {directory.name} did not come up", remedy=f"see {directory.log}"
            )


def raise_failure(failure: messages.Failure) -> None:
    """Raise what a detached lab has told of its end."""
    if failure.code in (0, 1, 2):
        kind = errors.UsageError if failure.code == 2 else errors.KproxyError
        raise kind(failure.message, remedy=failure.remedy)
    click.echo(f"kproxy: {failure.message} ({failure.remedy})", err=True)
    sys.exit(failure.code)
