"""Reading a container's log as ``kubectl logs`` wants it: the end, since when, followed, limited.

Two kinds of files: with a time before every line (CRI), and lines of :mod:`kproxy.logs`, which
have their time in them. A reader never waits; :func:`follow` says when to look again.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from kproxy import errors

from .runtime import LogFiles

LOOK_AGAIN = 0.25
"""Seconds after which a file that is followed is looked at again."""
READ_BYTES = 256 * 1024
_OWN_TIME = re.compile(rb'"time"\s*:\s*"([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What is wanted, as in the parameters of ``containerLogs``."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit: int | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str], now: datetime) -> "LogOptions":
        """Read a query. Raises ApiError 422 naming the parameter."""
        since = None
        if seconds := _number(query, "sinceSeconds", least=1):
            since = now - timedelta(seconds=seconds)
        elif query.get("sinceTime"):
            since = _time(query["sinceTime"].encode())
            if since is None:
                raise _invalid("sinceTime", query["sinceTime"], "must be a time (RFC 3339)")
        return cls(
            follow=_flag(query, "follow"),
            previous=_flag(query, "previous"),
            timestamps=_flag(query, "timestamps"),
            tail=_number(query, "tailLines", least=0),
            since=since,
            limit=_number(query, "limitBytes", least=1),
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or a part of one: ``text`` ends with a newline where the line does."""

    time: bytes
    text: bytes


def read(
    files: LogFiles, options: LogOptions, *, over: Callable[[], bool]
) -> Generator[bytes, None, None]:
    """Yield what is to be sent; an empty piece: nothing now, look again a little later.

    ``over`` tells whether nothing will be added any more; then, or where nobody follows, it ends.
    """
    reader = Reader(files)
    try:
        yield from _limited(_pieces(reader, options, over), options.limit)
    finally:
        reader.close()


def _pieces(reader: "Reader", options: LogOptions, over: Callable[[], bool]) -> Iterator[bytes]:
    lines: Iterable[Line] = reader.lines()
    if options.since is not None:
        lines = _since(lines, options.since)
    if options.tail is not None:
        lines = deque(lines, maxlen=options.tail)
    yield from _shown(lines, options.timestamps)
    while options.follow:
        ended = over()  # asked before reading: what was written before the end is there then
        silent = True
        for piece in _shown(reader.lines(), options.timestamps):
            silent = False
            yield piece
        if ended:
            return
        if silent:
            yield b""


def _limited(pieces: Iterator[bytes], limit: int | None) -> Iterator[bytes]:
    for data in pieces:
        if limit is None:
            yield data
            continue
        yield data[:limit]
        limit -= len(data)
        if limit <= 0:
            return


class Reader:
    """Reads the files of a log in order, and what is added to the last one."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._waiting: list[IO[bytes]] = []
        self._rest = b""
        self._time = b""
        for number, path in enumerate(files.paths):
            self._add(path, files.begin if number == 0 else 0)

    def lines(self) -> Iterator[Line]:
        """Yield what is there and was not read before."""
        while self._waiting or self._follow_on():
            current = self._waiting[0]
            yield from self._rest_of(current)
            if len(self._waiting) == 1 and not self._rotated(current):
                return
            # It may have grown between the last read and its being full.
            yield from self._rest_of(current)
            self._waiting.pop(0).close()

    def close(self) -> None:
        """Close the files."""
        while self._waiting:
            self._waiting.pop().close()

    def _add(self, path: Path, begin: int = 0) -> bool:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        file.seek(begin)
        self._waiting.append(file)
        return True

    def _follow_on(self) -> bool:
        return self._add(self._files.paths[-1])

    def _rotated(self, file: IO[bytes]) -> bool:
        """Return whether a file is full and another one has taken its place."""
        try:
            now = self._files.paths[-1].stat()
        except FileNotFoundError:
            return False
        return not os.path.samestat(now, os.fstat(file.fileno()))

    def _rest_of(self, file: IO[bytes]) -> Iterator[Line]:
        while data := self._read(file):
            yield from self._parse(data)

    def _read(self, file: IO[bytes]) -> bytes:
        """Read on, a part at a time: a file may be larger than the memory."""
        if self._files.end is None:
            return file.read(READ_BYTES)
        return file.read(min(max(self._files.end - file.tell(), 0), READ_BYTES))

    def _parse(self, data: bytes) -> Iterator[Line]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        for text in whole:
            if self._files.plain:
                found = _OWN_TIME.search(text)
                self._time = found[1] if found else self._time
                yield Line(self._time, text + b"\n")
                continue
            time, _, rest = text.partition(b" ")
            _, _, tagged = rest.partition(b" ")
            tag, _, message = tagged.partition(b" ")
            yield Line(time, message + (b"\n" if tag.startswith(b"F") else b""))


def _since(lines: Iterable[Line], since: datetime) -> Iterator[Line]:
    for line in lines:
        time = _time(line.time)
        if time is None or time >= since:
            yield line


def _shown(lines: Iterable[Line], timestamps: bool) -> Iterator[bytes]:
    begins = True
    for line in lines:
        yield line.time + b" " + line.text if timestamps and begins else line.text
        begins = line.text.endswith(b"\n")


def _time(text: bytes) -> datetime | None:
    """Read a time; nanoseconds are cut to microseconds."""
    words = re.sub(rb"(\.\d{6})\d+", rb"\1", text).decode(errors="replace")
    try:
        time = datetime.fromisoformat(words.replace("Z", "+00:00"))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def _number(query: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise _invalid(name, text, "must be a whole number") from None
    if value < least:
        raise _invalid(name, text, f"must be greater than or equal to {least}")
    return value


def _invalid(name: str, value: str, problem: str) -> errors.ApiError:
    return errors.ApiError(422, "Invalid", f"{name}: Invalid value: {value!r}: {problem}")
