"""What becomes of a chain's result: it is written, shown, and judged by an exit code."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kproxy import errors
from kproxy.cli import compare_result, report

if TYPE_CHECKING:
    from kproxy.cli.chain_job import Job
    from kproxy.traffic.chainset import ChainSet
    from kproxy.traffic.soakset import SoakSet


def finish(job: "Job", results: "ChainSet") -> int:
    """Write and show a result; return the exit code."""
    from kproxy.traffic import chainset

    place = Path(job.place)
    path = (compare_result.fresh(place) if job.fresh else place) / "result.json"
    chainset.write(results, path)
    if job.part:
        return 0
    _show(results, path, job.as_json)
    before = chainset.read(Path(job.reproduced)) if job.reproduced else None
    return _judge(results, before)


def finish_random(job: "Job", results: "SoakSet") -> int:
    """Write and show what random kills came to; return the exit code."""
    from kproxy.reports import soaktable
    from kproxy.traffic import soakset

    place = Path(job.place)
    path = (compare_result.fresh(place) if job.fresh else place) / "result.json"
    soakset.write(results, path)
    if job.as_json:
        click.echo(path.read_text(), nl=False)
    else:
        for line in soaktable.lines(results):
            click.echo(line)
    click.echo(f"kproxy: written: {path}", err=True)
    return _cut_short(results.parameters["incomplete"], "") or (1 if results.violations else 0)


def _cut_short(incomplete: list[str], after: str) -> int:
    """Return the exit code of a run that was cut short, and say so; 0: it was not."""
    from kproxy.lab import comparison

    for how, number in (
        (comparison.INTERRUPTED, signal.SIGINT),
        (comparison.TERMINATED, signal.SIGTERM),
    ):
        if how in incomplete:
            click.echo(f"kproxy: {how}{after}", err=True)
            return 128 + number
    return 0


def _judge(results: "ChainSet", before: "ChainSet | None") -> int:
    """Return the exit code; tell what differs from an earlier result."""
    incomplete = results.parameters["incomplete"]
    if code := _cut_short(incomplete, f" after {len(results.trials)} trials"):
        return code
    if incomplete:
        raise errors.MeasurementError(f"the run is incomplete: {'; '.join(incomplete)}")
    if before is not None:
        from kproxy.lab.chain import reproduction

        differing = reproduction.differences(before, results)
        for line in differing:
            click.echo(f"differs: {line}")
        if differing:
            return 1
        click.echo(f"reproduced: all {len(results.summary)} rows of the summary are the same")
    return 0 if all(row.valid for row in results.summary) else 1


def _show(results: "ChainSet", path: Path, as_json: bool) -> None:
    if as_json:
        click.echo(path.read_text(), nl=False)
    else:
        from rich.console import Console

        from kproxy.reports import chaintable, watchedtable

        width = None if sys.stdout.isatty() else compare_result.TABLE_WIDTH
        console = Console(width=width)
        for one in (chaintable, watchedtable):
            if one.applies(results):
                console.print(one.table(results))
        for note in chaintable.notes(results):
            console.print(note, highlight=False)
    click.echo(f"kproxy: written: {path}", err=True)
    report.beside(path)
