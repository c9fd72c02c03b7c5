"""The live view of a run on a terminal: how far it is, rates, losses, events; pure but for rich.

It is told steps, and gives what is to be seen; :mod:`kproxy.cli.progress` shows that.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kproxy.lab.comparison import Step
from kproxy.lab.news import Ended, Happened, Rates, in_words

MOST_ROWS = 8
"""So many places are shown, those of which there was news last."""
SPARKS = "▁▂▃▄▅▆▇█"
MOST_SPARKS = 24


@dataclass(slots=True)
class Place:
    """What is known of one mode, or of one link."""

    doing: str = ""
    happened: str = ""
    last: Ended | None = None
    received: list[float] = dataclasses.field(default_factory=list)
    sent: float = 0.0
    told: int = 0
    """When there was news of it last, in numbers of steps."""


class LiveView:
    """What is to be seen. ``now`` returns seconds of a clock that goes on."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._begun = now()
        self._first: tuple[int, float] | None = None
        self._done, self._total, self._told = 0, 0, 0
        self._places: dict[str, Place] = {}
        self._sent, self._lost, self._failed, self._trials = 0, 0, 0, 0
        self._unexplained: int | None = None

    def tell(self, step: Step) -> None:
        """Take a step, or news of one."""
        self._done, self._total = step.done, step.total
        if self._first is None and self._done:  # until then the labs were built
            self._first = self._done, self._now()
        self._told += 1
        place = self._places.setdefault(step.mode, Place())
        place.told = self._told
        match step.news:
            case None:
                place.doing, place.happened = step.text, ""
            case Happened(name=name):
                place.happened = name
            case Rates(sent=sent, received=received):
                place.sent = sent
                place.received = [*place.received, received][-MOST_SPARKS:]
            case Ended() as ended:
                place.last, place.happened = ended, ""
                place.received.clear()
                self._add(ended)

    def _add(self, ended: Ended) -> None:
        self._trials += 1
        self._sent += ended.sent
        self._lost += ended.lost
        self._failed += ended.failed
        if ended.unexplained is not None:
            self._unexplained = (self._unexplained or 0) + ended.unexplained

    def __rich__(self) -> RenderableType:
        """Return what is to be seen now."""
        return Group(self._bar(), self._table(), self._sum())

    def _bar(self) -> Table:
        spent = self._now() - self._begun
        left = ""
        if self._first is not None and self._first[0] < self._done < self._total:
            done, since = self._first
            each = (self._now() - since) / (self._done - done)
            left = f"about {_clock(each * (self._total - self._done))} left"
        grid = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=self._total or None, completed=self._done, width=30)
        grid.add_row(bar, f"{self._done} of {self._total} trials", _clock(spent), left)
        return grid

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("", "now", "packets/s", "last trial", "lost", "longest", "events (ms)"):
            table.add_column(name, no_wrap=name in ("", "packets/s", "longest"))
        shown = sorted(self._places, key=lambda mode: self._places[mode].told)[-MOST_ROWS:]
        for mode, place in self._places.items():  # a row stays where it is
            if mode not in shown:
                continue
            doing = f"{place.doing}: {place.happened}" if place.happened else place.doing
            table.add_row(mode, doing, _rates(place), *_last(place.last))
        return table

    def _sum(self) -> Text:
        if not self._trials:
            return Text("")
        bad = self._lost or self._failed
        noun = "trial" if self._trials == 1 else "trials"
        text = (
            f"{self._trials} {noun}: {self._lost:,} of {self._sent:,} packets lost, "
            f"{self._failed:,} TCP requests and connections failed"
        )
        if self._unexplained is not None:
            text += f"; {self._unexplained:,} unexplained"
        return Text(text, style="yellow" if bad else "green")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _rates(place: Place) -> str:
    if place.received:
        return f"{place.sent:,.0f} sent, {place.received[-1]:,.0f} received {_sparks(place)}"
    if place.last is not None:
        return f"{place.last.offered_pps:,.0f} offered"
    return ""


def _sparks(place: Place) -> str:
    most = max(place.received) or 1.0
    return "".join(SPARKS[round((len(SPARKS) - 1) * v / most)] for v in place.received)


def _last(ended: Ended | None) -> tuple[Text, ...]:
    if ended is None:
        return (Text(""),) * 4
    what = Text(f"{ended.case} {ended.number}", style="" if ended.valid else "bold red")
    if not ended.valid:
        what.append(" NOT VALID")
    if not ended.lost and not ended.failed:
        lost = Text("nothing", style="green")
    else:
        failed = f", {ended.failed:,} TCP" if ended.failed else ""
        lost = Text(f"{ended.lost:,} of {ended.sent:,}{failed}", style="yellow")
    time = "not recovered" if ended.failover_ms is None else f"{ended.failover_ms:,.0f} ms"
    return (
        what,
        lost,
        Text(time if ended.lost or ended.failed else ""),
        Text(in_words(ended.events)),
    )
