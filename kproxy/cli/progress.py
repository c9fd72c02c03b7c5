"""How a long run shows where it is: a bar on a terminal, otherwise lines, which can be parsed."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kproxy.lab.comparison import Step


@contextlib.contextmanager
def shown() -> "Iterator[Callable[[Step], None]]":
    """Show a bar on a terminal, otherwise a line for every step; always on standard error."""
    begun = time.monotonic()
    if not sys.stderr.isatty():

        def line(step: "Step") -> None:
            seconds = time.monotonic() - begun
            where = f"[{step.done}/{step.total}] {step.mode}: {step.text}"
            click.echo(f"{seconds:5.0f} s  {where}", err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def update(step: "Step") -> None:
            text = f"{step.mode}: {step.text}"
            bar.update(task, total=step.total, completed=step.done, description=text)

        yield update
