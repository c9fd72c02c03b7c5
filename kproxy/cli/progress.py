"""How a long run shows where it is: a live view on a terminal, otherwise lines for parsers.

A part of a run (:mod:`kproxy.cli.parts`) tells its parent more than lines for people: its news,
each as a line of JSON.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from kproxy.lab.news import Ended, Happened, News, Rates
from netns.kernels import base

if TYPE_CHECKING:
    from kproxy.lab.comparison import Step

NEWS = "news: "
"""How a line of news begins."""
REFRESH_PER_S = 4


class _Telegram(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """News on the way from a part to its parent."""

    done: int
    mode: str
    ended: Ended | None = None
    happened: Happened | None = None
    rates: Rates | None = None


@contextlib.contextmanager
def shown(*, part: bool = False) -> "Iterator[Callable[[Step], None]]":
    """Show a live view on a terminal, otherwise a line for every step; always on standard error.

    ``part``: this process is a part of a run, and its parent reads the lines.
    """
    if part or not sys.stderr.isatty():
        yield _lines(part=part)
        return
    from rich.console import Console
    from rich.live import Live

    from kproxy.cli.liveview import LiveView

    view = LiveView(time.monotonic)
    # In virtual time a clock that ticks on the screen would be one more that moves the lab's.
    ticking = not base.inside_guest() or base.clock() is base.Clock.REAL
    with Live(
        view,
        console=Console(stderr=True),
        auto_refresh=ticking,
        refresh_per_second=REFRESH_PER_S,
        redirect_stdout=sys.stdout.isatty(),  # a file gets what is for it
        transient=True,
    ) as live:

        def update(step: "Step") -> None:
            view.tell(step)
            if not ticking:
                live.refresh()

        yield update


def _lines(*, part: bool) -> "Callable[[Step], None]":
    begun = time.monotonic()

    def line(step: "Step") -> None:
        if step.news is None:
            seconds = time.monotonic() - begun
            where = f"[{step.done}/{step.total}] {step.mode}: {step.text}"
            click.echo(f"{seconds:5.0f} s  {where}", err=True)
        elif part:
            click.echo(NEWS + _encoded(step, step.news), err=True)

    return line


def _encoded(step: "Step", news: News) -> str:
    told = _Telegram(
        done=step.done,
        mode=step.mode,
        ended=news if isinstance(news, Ended) else None,
        happened=news if isinstance(news, Happened) else None,
        rates=news if isinstance(news, Rates) else None,
    )
    return msgspec.json.encode(told).decode()


def news_of(line: str) -> tuple[int, str, News] | None:
    """Return what a line of a part tells: trials done, mode, news; None: it is another line."""
    if not line.startswith(NEWS):
        return None
    try:
        told = msgspec.json.decode(line.removeprefix(NEWS), type=_Telegram)
    except msgspec.DecodeError:
        return None
    news = told.ended or told.happened or told.rates
    return None if news is None else (told.done, told.mode, news)
