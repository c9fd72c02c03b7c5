"""The journal: records on disk before anything is done about them. It is the audit log, too.

Files ``journal-NNNNNN.jsonl``, one JSON object a line, each with a checksum. A line is on the disk
when :meth:`Journal.append` returns. The newest file begins with a snapshot, so it alone is read at
a start, if that is whole; those before it are kept for who audits, up to a number.
"""

import contextlib
import errno
import fcntl
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from kproxy.errors import KproxyError, UsageError

from .records import AnyRecord, Snapshot

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyRecord).decode

_SUM = b',"crc":"%08x"}'
_SUM_LENGTH = len(_SUM % 0)
_PATTERN = "journal-*.jsonl"


class JournalFailed(KproxyError):
    """The journal cannot be written: nothing may be accepted or begun."""


class Line:
    """The form of a record on disk."""

    @staticmethod
    def write(record: AnyRecord) -> bytes:
        """Return the line of a record."""
        body = _encode(record)
        return body[:-1] + _SUM % zlib.crc32(body) + b"\n"

    @staticmethod
    def read(line: bytes) -> AnyRecord | None:
        """Return the record of a line; None if the line is not whole, or was changed."""
        line = line.rstrip(b"\n")
        body = line[:-_SUM_LENGTH] + b"}"
        if line[-_SUM_LENGTH:] != _SUM % zlib.crc32(body):
            return None
        try:
            record: AnyRecord = _decode(body)
        except (msgspec.ValidationError, msgspec.DecodeError):
            return None  # Of another release: who reads on must not stumble over it.
        return record


class Journal:
    """The journal of one directory, for one receiver at a time. A context manager.

    Raises UsageError if the directory cannot be used, or another receiver uses it.
    """

    def __init__(self, directory: Path, *, file_bytes: int, files: int) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._files = files
        self._torn = False
        self.skipped = 0
        """Lines that could not be read at the start: torn, changed, or of another release."""
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(directory / "lock")
            self._path, self._file, self._size = self._open()
            self._begins_with = _first_line(self._path)
        except OSError as error:
            problem = f"cannot use the journal in {directory}: {error.strerror or error}"
            raise UsageError(problem, remedy="name a directory that can be written") from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._lock.close()

    @property
    def size(self) -> int:
        """Return the bytes in the newest file."""
        return self._size

    @property
    def is_full(self) -> bool:
        """Return whether it is time to :meth:`rotate`.

        What a file begins with does not count: else, where much is known, every record would begin
        a file, and the audit log be gone after a few.
        """
        return self._size - self._begins_with >= self._file_bytes

    def replay(self) -> Iterator[AnyRecord]:
        """Yield the records since the last snapshot that can be read, or since the oldest file."""
        found = files(self._directory)
        begin = len(found) - 1
        while begin > 0 and not _begins_whole(found[begin]):
            begin -= 1
        for path in found[begin:]:
            yield from self._readable(path)

    def append(self, record: AnyRecord) -> None:
        """Write a record; it is on disk on return. Raises JournalFailed, and then it is not."""
        line = Line.write(record)
        try:
            if self._torn:
                os.ftruncate(self._file.fileno(), self._size)
                self._torn = False
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            # What was written of it must not stay before the next record.
            self._torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
                self._torn = False
            problem = f"cannot write {self._path}: {error.strerror or error}"
            raise JournalFailed(problem, remedy="make room on that disk") from None
        self._size += len(line)

    def rotate(self, snapshot: Snapshot) -> None:
        """Begin a new file with a snapshot. Raises JournalFailed; then the old one goes on."""
        path = self._directory / f"journal-{_number(self._path) + 1:06d}.jsonl"
        line = Line.write(snapshot)
        try:
            file = _whole(path, line)
        except OSError as error:
            # The newest file alone is read at a start: nobody goes on with this one.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise JournalFailed(f"cannot write {path}: {error.strerror or error}") from None
        self._file.close()
        self._path, self._file, self._size, self._torn = path, file, len(line), False
        self._begins_with = len(line)
        for old in files(self._directory)[: -self._files]:
            with contextlib.suppress(OSError):  # One more that is kept does no harm.
                old.unlink(missing_ok=True)

    def _open(self) -> tuple[Path, BinaryIO, int]:
        existing = files(self._directory)
        path = existing[-1] if existing else self._directory / "journal-000001.jsonl"
        file = _append_to(path)
        data = path.read_bytes()
        # A line without an end was never promised to anybody: the disk or the process went first.
        size = data.rfind(b"\n") + 1
        self.skipped += size < len(data)
        os.ftruncate(file.fileno(), size)
        os.fsync(file.fileno())
        _sync_directory(self._directory)
        return path, file, size

    def _readable(self, path: Path) -> Iterator[AnyRecord]:
        with path.open("rb") as lines:
            for line in lines:
                record = Line.read(line)
                if record is None:
                    self.skipped += 1
                else:
                    yield record


def files(directory: Path) -> list[Path]:
    """Return a journal's files, the oldest first; copies by other names are none."""
    return sorted((one for one in directory.glob(_PATTERN) if _number(one)), key=_number)


def read(directory: Path) -> Iterator[AnyRecord]:
    """Yield all records that are kept, the oldest first; for who reads beside a receiver.

    What cannot be read is left out. Raises UsageError if there is no journal.
    """
    found = files(directory)
    if not found:
        raise UsageError(f"no journal in {directory}", remedy="name the directory that holds it")
    for path in found:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # Rotated away meanwhile.
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
        for line in data.split(b"\n")[:-1]:
            record = Line.read(line)
            if record is not None:
                yield record


def _whole(path: Path, line: bytes) -> BinaryIO:
    """Make a file that is there with its first line, or not at all; return it, to append to."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with contextlib.ExitStack() as undo:
        file = undo.enter_context(_append_to(draft))
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
        draft.rename(path)
        _sync_directory(path.parent)
        undo.pop_all()
    return file


def _begins_whole(path: Path) -> bool:
    """Return whether a file needs no file before it."""
    with path.open("rb") as lines:
        return isinstance(Line.read(lines.readline()), Snapshot)


def _first_line(path: Path) -> int:
    """Return the length of a file's first line."""
    with path.open("rb") as lines:
        return len(lines.readline())


def _append_to(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _lock(path: Path) -> BinaryIO:
    file = _append_to(path)
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        problem = f"another receiver works with the journal in {path.parent}"
        raise UsageError(problem, remedy="end it first, or name another directory") from None
    return file


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("journal-")
    return int(digits) if digits.isdecimal() else 0


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
