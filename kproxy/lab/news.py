"""What there is to tell of a run while it lasts: how each trial ended, and what is under way.

A run in virtual time tells of a trial when it is over: it takes about a second, and whoever looked
on from within would move the clock. In real time the records are looked at while they grow.
"""

import contextlib
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy.traffic.chainset import LinkTrial
from kproxy.traffic.resultset import TimelineEvent, Trial
from netns.kernels import base

EVERY_S = 0.5
_COUNT = struct.Struct("<Q")
_COUNT_AT = 24
"""Where a record file has the number of its records (:mod:`kproxy.traffic.recordfile`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial is over. ``failover_ms`` is the longest; None: something has not recovered."""

    case: str
    number: int
    offered_pps: float
    sent: int
    lost: int
    failed: int
    failover_ms: float | None
    unexplained: int | None
    valid: bool
    events: tuple[TimelineEvent, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Packets per second that were sent and received since the last time this was told."""

    sent: float
    received: float


News = Ended | Rates


def ended(case: str, trial: Trial | LinkTrial) -> Ended:
    """Return what there is to tell of a trial."""
    found = trial.measurements
    times = [m.failover_time_ms or 0.0 for m in found if m.recovered]
    looked = [m.unexplained for m in found if m.unexplained is not None]
    return Ended(
        case=case,
        number=trial.number,
        offered_pps=sum(m.offered_pps or 0.0 for m in found),
        sent=sum(m.sent or 0 for m in found),
        lost=sum(m.lost or 0 for m in found),
        failed=sum(m.tcp.failed for m in found if m.tcp),
        failover_ms=max(times, default=0.0) if all(m.recovered for m in found) else None,
        unexplained=sum(looked) if looked else None,
        valid=trial.valid,
        events=trial.timeline,
    )


class Counts:
    """How many records a lab's files have, as their writers say."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._before: dict[Path, int] = {}

    def grown(self, ending: str) -> int:
        """Return how many records files of that ending have got since the last call.

        A file that was begun anew counts from its beginning.
        """
        total = 0
        for path in self._directory.glob(f"*{ending}"):
            count, before = _count(path), self._before.get(path, 0)
            total += count - before if count >= before else count
            self._before[path] = count
        return total


def _count(path: Path) -> int:
    try:
        with path.open("rb") as file:
            file.seek(_COUNT_AT)
            data = file.read(_COUNT.size)
    except OSError:
        return 0
    found: tuple[int, ...] = _COUNT.unpack(data) if len(data) == _COUNT.size else (0,)
    return found[0]


@contextlib.contextmanager
def watched(directory: Path, tell: Callable[[Rates], None]) -> Iterator[None]:
    """Tell the rates twice a second while this is entered; in real time only."""
    if base.clock() is not base.Clock.REAL:
        yield
        return
    counts, over = Counts(directory), threading.Event()

    def look() -> None:
        last = time.monotonic()
        counts.grown(".sent")
        counts.grown(".received")
        while not over.wait(EVERY_S):
            now = time.monotonic()
            sent, received = (counts.grown(one) / (now - last) for one in (".sent", ".received"))
            last = now
            tell(Rates(sent=sent, received=received))

    thread = threading.Thread(target=look, name="rates", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def in_words(events: Iterable[TimelineEvent]) -> str:
    """Return the events of a trial on one line, each name once."""
    first: dict[str, float] = {}
    for event in events:
        first.setdefault(event.name, event.ms)
    first.pop("fault", None)
    return " · ".join(f"{name} {ms:,.0f}" for name, ms in first.items())
