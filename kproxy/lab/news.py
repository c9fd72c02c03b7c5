"""What there is to tell of a run while it lasts: what happens in a trial, its rates, how it ended.

In virtual time nobody looks on at intervals, because that would move the clock: rates are told
when something happens. In real time the records are looked at twice a second, too.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy.errors import MeasurementError
from kproxy.traffic import recordfile, records
from kproxy.traffic.chainset import LinkTrial
from kproxy.traffic.resultset import TimelineEvent, Trial
from netns.kernels import base

EVERY_S = 0.5
LEAST_S = 0.2
"""No rate is told of less than this time."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something was put on the time line."""

    name: str


News = Ended | Happened | Rates


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
    """How many packets a lab's record files tell of, as they grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sent: dict[Path, int] = {}
        self._read: dict[Path, int] = {}

    def sent(self) -> int:
        """Return the packets that came into files of senders since the last call.

        A file that was begun anew counts from its beginning.
        """
        total = 0
        for path in self._directory.glob("*.sent"):
            now, before = _sent(path), self._sent.get(path, 0)
            total += now - before if now >= before else now
            self._sent[path] = now
        return total

    def received(self) -> int:
        """Return the packets that came into files of receivers since the last call."""
        return sum(self._received(path) for path in self._directory.glob("*.received"))

    def _received(self, path: Path) -> int:
        kind, size = recordfile.KIND_RECEIVED, records.RECEIVED_SIZE
        try:
            with recordfile.RecordReader(path, kind, size) as file:
                data = file.records(self._read.get(path, 0))
        except MeasurementError:  # it is being made
            return 0
        first_words = memoryview(data).cast("I")[:: size // 4].tolist()
        self._read[path] = self._read.get(path, 0) + len(first_words)
        return len(first_words) - first_words.count(records.SECTION)


def _sent(path: Path) -> int:
    """Return how many packets a sender's file tells of: its last span says."""
    kind, size = recordfile.KIND_SENT, records.SPAN.size
    try:
        with recordfile.RecordReader(path, kind, size) as file:
            last = file.records(file.count - 1) if file.count else b""
    except MeasurementError:
        return 0
    if not last:
        return 0
    _, number, first, _ = records.SPAN.unpack(last)
    return int(first + number)


class Reporter:
    """Tells of one trial while it lasts."""

    def __init__(self, directory: Path, tell: Callable[[News], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._counts = Counts(directory)
        self._counts.sent()
        self._counts.received()
        self._last = time.monotonic()

    def happened(self, name: str) -> None:
        """Tell an event, and the rates until then."""
        self._tell(Happened(name=name))
        self.look()

    def look(self) -> None:
        """Tell the rates since the last look."""
        with self._lock:
            now = time.monotonic()
            passed = now - self._last
            if passed < LEAST_S:
                return
            self._last = now
            rates = Rates(
                sent=self._counts.sent() / passed, received=self._counts.received() / passed
            )
        self._tell(rates)


@contextlib.contextmanager
def watched(directory: Path, tell: Callable[[News], None]) -> Iterator[Callable[[str], None]]:
    """Tell of a trial while this is entered; yields what is to be told events by their names."""
    reporter, over = Reporter(directory, tell), threading.Event()
    if base.clock() is not base.Clock.REAL:
        yield reporter.happened
        return

    def look() -> None:
        while not over.wait(EVERY_S):
            reporter.look()

    thread = threading.Thread(target=look, name="rates", daemon=True)
    thread.start()
    try:
        yield reporter.happened
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
