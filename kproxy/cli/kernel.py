"""``kproxy kernel``: builds, lists and removes the embedded kernels of this machine."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from kproxy import errors
from netns import errors as netns_errors
from netns.kernels import build as building
from netns.kernels import choice, native, registry, source, uml
from netns.kernels.progress import Progress

MEGA = 1_000_000


@click.group()
def kernel() -> None:
    """Build, list and remove kernels for the lab (User-Mode Linux).

    A kernel that was built here has IPVS, both variants of iptables, nftables and virtual time in
    one; Debian's package user-mode-linux has IPVS and legacy iptables. `--kernel NAME` of other
    commands takes one of them.
    """


@kernel.command()
@click.option(
    "--source",
    "wanted",
    default=source.DEFAULT,
    show_default=True,
    metavar="VERSION|ARCHIVE|TREE",
    help="Version of Debian's package linux-source-…, an archive, or an unpacked kernel.",
)
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=building.Request().jobs,
    show_default="one for each CPU",
    help="Compilers at once.",
)
@click.option("--force", is_flag=True, help="Build it even if it is there.")
def build(wanted: str, jobs: int, force: bool) -> int:
    """Build a kernel: about 6 minutes on 2 CPUs, 2.5 GB of room meanwhile, 13 MB afterwards.

    Does nothing if the kernel is there. After an interrupt the same command goes on.
    """
    request = building.Request(source=wanted, jobs=jobs, force=force)
    try:
        with _progress() as report:
            outcome = building.build(request, report)
    except netns_errors.SourceUnusable as error:
        raise errors.UsageError(f"--source: {error.message}", remedy=error.remedy) from None
    except netns_errors.BuildFailed as failure:
        click.echo("\n".join(failure.lines("kproxy")), err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("kproxy: interrupted; the same command goes on from here", err=True)
        return 130
    built = outcome.built
    if outcome.fresh:
        size = f"{built.size / MEGA:.0f} MB"
        click.echo(f"{built.name}: built in {duration(built.seconds)}, {size}, {built.directory}")
    else:
        click.echo(f"{built.name}: there already, built {built.built}, {built.directory}")
    return 0


@kernel.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_kernels(as_json: bool) -> None:
    """List the embedded kernels, and which one `--kernel auto` takes."""
    rows = [*map(_built_row, registry.built_kernels()), *_debian_rows()]
    unfinished = [place.name for place in registry.unfinished()]
    takes = _auto()
    if as_json:
        answer = {"kernels": rows, "unfinished": unfinished, "auto": takes}
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo("\n".join(lines(rows, unfinished, takes)))


@kernel.command()
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "everything", is_flag=True, help="Everything that was built here.")
def remove(names: tuple[str, ...], everything: bool) -> None:
    """Remove kernels that were built here, and builds that were not finished."""
    if bool(names) == everything:
        raise errors.UsageError(
            "name what to remove, or say --all", remedy="kproxy kernel list names them"
        )
    try:
        removed = registry.remove(registry.removable() if everything else sorted(set(names)))
    except netns_errors.KernelUnusable as error:
        raise errors.UsageError(error.message, remedy=error.remedy) from None
    for name in removed:
        click.echo(f"removed {name}")
    if not removed:
        click.echo("nothing was built here")


def lines(rows: list[dict[str, Any]], unfinished: list[str], takes: str | None) -> list[str]:
    """Return the list for people: a line for each kernel, and below it what it has and where."""
    table = [("NAME", "VERSION", "FROM", "SIZE", "BUILT")]
    for row in rows:
        name = f"{row['name']} *" if row["name"] == takes else row["name"]
        size = f"{row['size'] / MEGA:.0f} MB"
        table.append((name, row["version"], row["origin"], size, row["built"][:16]))
    widths = [max(len(cells[column]) for cells in table) for column in range(len(table[0]))]
    text = []
    details = [[], *([" ".join(row["features"]), row["path"]] for row in rows)]
    for cells, more in zip(table, details, strict=True):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        text += ["  ".join(padded).rstrip(), *(f"    {detail}" for detail in more)]
    for name in unfinished:
        text.append(f"{name}: not finished; `kproxy kernel build` goes on, `remove` removes it")
    if takes is None:
        text.append("none can be used: `kproxy kernel build`, or apt-get install user-mode-linux")
    elif takes == native.NAME:
        text.append("`--kernel auto` takes this machine's own kernel, which has IPVS")
    elif rows:
        text.append("* the one that `--kernel auto` takes")
    return text


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _built_row(built: registry.Built) -> dict[str, Any]:
    fields = dataclasses.asdict(built)
    del fields["directory"]
    fields["origin"] = fields.pop("source")
    return fields | {"path": str(built.directory / registry.EXECUTABLE)}


def _debian_rows() -> list[dict[str, Any]]:
    kernel = uml.debian()
    if kernel is None:
        return []
    return [
        {
            "name": kernel.name,
            "version": kernel.version,
            "origin": "package user-mode-linux",
            "features": kernel.features,
            "size": kernel.executable.stat().st_size,
            "built": "",
            "path": str(kernel.executable),
        }
    ]


def _auto() -> str | None:
    """Return the name of the kernel that ``--kernel auto`` takes, or None."""
    try:
        provider = choice.choose(choice.AUTO).provider
    except netns_errors.KernelUnusable:
        return None
    if isinstance(provider, uml.Uml) and provider.kernel is not None:
        return provider.kernel.name
    return provider.name


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal, otherwise lines; always on standard error."""
    if not sys.stderr.isatty():
        yield Lines(lambda text: click.echo(text, err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[seconds]:>8}"),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
    )
    # Without a thread of its own: the build reports every second, and it starts programs.
    with Bar(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, seconds="")

        def update(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.total or None,
                completed=progress.done,
                description=describe(progress),
                seconds=duration(progress.seconds),
                refresh=True,
            )

        yield update


def describe(progress: Progress) -> str:
    """Return in a line what a build is doing."""
    if not progress.total:
        return progress.step
    share = 100 * progress.done // progress.total
    text = f"{progress.step} {share} %, {progress.done} of about {progress.total}"
    return f"{text}: {progress.current}" if progress.current else text


class Lines:
    """Turns reports into lines: one for each step, and one for each tenth of a counted step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: tuple[str, int] = ("", -1)

    def __call__(self, progress: Progress) -> None:
        """Take a report."""
        tenth = 10 * progress.done // progress.total if progress.total else 0
        if (progress.step, tenth) != self._said:
            self._said = (progress.step, tenth)
            self._say(f"{progress.seconds:5.0f} s  {describe(progress)}")
