"""The time line of a lab: the structured log lines of all its processes, on one clock.

Every component writes JSON lines (:mod:`kproxy.logs`) to a file of its own in one directory. They
carry the monotonic clock of the kernel, so lines of different processes can be put in order.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors
from kproxy.lab.filewatch import FileWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One log line. ``source`` is the name of its file without the suffix."""

    mono_ns: int
    source: str
    who: str
    msg: str
    level: str
    fields: dict[str, Any]


class EventLog:
    """Reads the log files of a directory as they grow."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self._offsets: dict[Path, int] = {}
        self._watch = FileWatch(directory)
        self._unread = set(directory.iterdir())

    def refresh(self) -> list[Event]:
        """Read what is new; return it, oldest first. Half-written lines are left for next time."""
        fresh: list[Event] = []
        self._unread |= self._watch.changed()
        for path in sorted(path for path in self._unread if path.suffix == ".log"):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + whole
            fresh.extend(_parse(path.stem, data[:whole]))
        self._unread.clear()
        fresh.sort(key=lambda event: event.mono_ns)
        self.events.extend(fresh)
        return fresh

    def find(self, accept: Callable[[Event], bool], *, since_ns: int = 0) -> Event | None:
        """Return the first event not older than ``since_ns`` that is accepted."""
        return next((e for e in self.events if e.mono_ns >= since_ns and accept(e)), None)

    def wait(
        self, accept: Callable[[Event], bool], *, why: str, timeout: float, since_ns: int = 0
    ) -> Event:
        """Wait for an event and return it; ``MeasurementError`` after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self.refresh()
            event = self.find(accept, since_ns=since_ns)
            if event is not None:
                return event
            if not self._watch.wait(deadline - time.monotonic()):
                raise errors.MeasurementError(
                    f"waited {timeout:g} s in vain for {why}",
                    remedy=f"see the logs in {self.directory}; {self.trouble()}",
                )

    def close(self) -> None:
        """Stop watching the directory."""
        self._watch.close()

    def trouble(self) -> str:
        """Return what a process reported last that was not in order, in words."""
        bad = [e for e in self.events if e.level in ("warning", "error")]
        if not bad:
            return "no process reported an error"
        last = bad[-1]
        return f"last report, from {last.source}: {last.msg} {last.fields}"


def _parse(source: str, data: bytes) -> Iterator[Event]:
    for line in data.splitlines():
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
            mono_ns = int(fields.pop("mono_ns"))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            # A traceback or a tool's own words: still worth showing if nothing else explains.
            text = line.decode(errors="replace")
            yield Event(mono_ns=0, source=source, who="", msg=text, level="warning", fields={})
            continue
        fields.pop("time", None)
        yield Event(
            mono_ns=mono_ns,
            source=source,
            who=str(fields.pop("who", "")),
            msg=str(fields.pop("msg", "")),
            level=str(fields.pop("level", "info")),
            fields=fields,
        )
