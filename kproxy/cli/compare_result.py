"""What becomes of a comparison's result: it is written, shown, and judged by an exit code."""

import itertools
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kproxy import errors
from kproxy.cli import report

if TYPE_CHECKING:
    from kproxy.cli.compare_job import Job
    from kproxy.traffic.resultset import ResultSet

TABLE_WIDTH = 120
"""Where the width of the terminal is not known (a pipe, a file)."""


def make(place: Path) -> None:
    """Make the directory of the results. Raises UsageError if nothing can be written there.

    Before anything is measured: a result that cannot be kept is found out now, not in the end.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise errors.UsageError(
            f"--out {place}: {error.strerror}", remedy="name a directory that you may write to"
        ) from None


def finish(job: "Job", results: "ResultSet") -> int:
    """Write and show a result; return the exit code."""
    from kproxy.traffic import resultset

    place = Path(job.place)
    path = (fresh(place) if job.fresh else place) / "result.json"
    resultset.write(results, path)
    if job.part:
        return 0
    for problem in job.problems:
        click.echo(f"kproxy: left out: {problem}", err=True)
    _show(results, path, job.as_json)
    before = resultset.read(Path(job.reproduced)) if job.reproduced else None
    return _judge(results, before, bool(job.problems))


def _judge(results: "ResultSet", before: "ResultSet | None", problems: bool) -> int:
    """Return the exit code; tell what differs from an earlier result."""
    from kproxy.lab import comparison

    incomplete = results.parameters["incomplete"]
    for how, number in (
        (comparison.INTERRUPTED, signal.SIGINT),
        (comparison.TERMINATED, signal.SIGTERM),
    ):
        if how in incomplete:
            click.echo(f"kproxy: {how} after {len(results.trials)} trials", err=True)
            return 128 + number
    if incomplete:
        raise errors.MeasurementError(f"the run is incomplete: {'; '.join(incomplete)}")
    if before is not None:
        from kproxy.lab import reproduction

        differing = reproduction.differences(before, results)
        for line in [*reproduction.circumstances(before, results), *differing]:
            click.echo(f"differs: {line}")
        if differing:
            return 1
        click.echo(f"reproduced: all {len(results.summary)} rows of the summary are the same")
    if not all(row.valid for row in results.summary):
        return 1
    return 2 if problems else 0


def fresh(place: Path) -> Path:
    """Return a directory for this run that no other has: named by the time it began."""
    from kproxy.lab import facts

    stamp = facts.started()[:19].replace(":", "-")
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := place / name).exists())


def _show(results: "ResultSet", path: Path, as_json: bool) -> None:
    if as_json:
        click.echo(path.read_text(), nl=False)
    else:
        from rich.console import Console

        from kproxy.reports import switchtable, tables

        plain = switchtable.without_switches(results)
        console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
        for table in (
            tables.packets_table(plain),
            tables.tcp_table(plain),
            tables.restart_table(plain),
            switchtable.table(results),
        ):
            if table is not None and table.row_count:
                console.print(table)
        for note in [*switchtable.left_behind(results), *tables.notes(results)]:
            console.print(note, highlight=False)
    click.echo(f"kproxy: written: {path}", err=True)
    report.beside(path)
