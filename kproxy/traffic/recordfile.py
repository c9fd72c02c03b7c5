"""Record files: fixed-size records in a shared mapping, which a SIGKILL does not lose.

The writer maps a sparse file and copies records into it; the kernel owns the pages, so whatever
was written is in the file when the process dies. Put these files on a tmpfs (``/run`` or
``/dev/shm``): then writing a record is a memory copy and nothing else.

Layout: one page of header, a table (whole pages, mostly none), then ``capacity`` records of
``record_size`` bytes. Numbers are little-endian. Every record begins with a word that is not zero.
``count`` is written after the records it counts, so a reader goes on behind it until a record
begins with a zero word: the batch during which the writer was killed counts too.

Pages of a mapping count as memory of the process that touches them, so writers and readers let go
of what lies behind them; the file keeps it.

======  =====  ========================================================================
offset  size   header field
======  =====  ========================================================================
0       8      ``KPXREC2\\0``
8       4      kind: 1 sent, 2 received, 3 TCP
12      4      record size
16      8      capacity, in records
24      8      count of records written
32      8      records that found no room (the measurement is invalid if not 0)
40      8      packets that the kernel dropped at the receiving sockets
48      8      bytes of the table
64      …      name of the writer (a pod's name), UTF-8, zero-terminated
======  =====  ========================================================================
"""

import mmap
import os
import struct
from pathlib import Path

from kproxy.errors import MeasurementError

MAGIC = b"KPXREC2\0"
HEADER = struct.Struct("<8sIIQQQQQ")
HEADER_SIZE = 4096
NAME_AT = 64
NAME_SIZE = 256
KIND_SENT = 1
KIND_RECEIVED = 2
KIND_TCP = 3
_COUNTERS = struct.Struct("<QQQ")
_COUNTERS_AT = 24
#: A process lets go of mapped pages when it has touched so many bytes more.
LET_GO_BYTES = 16 << 20


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


class RecordWriter:
    """Appends records to a new file (an existing one is replaced). Close it, or just die."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: int,
        record_size: int,
        capacity: int,
        name: str,
        table: bytes = b"",
    ) -> None:
        self.record_size = record_size
        self.capacity = capacity
        self.count = 0
        self.overflow = 0
        self.drops = 0
        self._records_at = HEADER_SIZE + _pages(len(table))
        size = self._records_at + record_size * capacity
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, size)
            self.map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        HEADER.pack_into(self.map, 0, MAGIC, kind, record_size, capacity, 0, 0, 0, len(table))
        text = name.encode()[: NAME_SIZE - 1]
        self.map[NAME_AT : NAME_AT + len(text)] = text
        self.map[HEADER_SIZE : HEADER_SIZE + len(table)] = table
        self._kept_from = self._records_at

    def append(self, records: bytes | bytearray | memoryview, number: int) -> None:
        """Append ``number`` records; those that find no room are counted in ``overflow``."""
        room = self.room(number)
        at = self.place
        self.map[at : at + room * self.record_size] = records[: room * self.record_size]
        self.written(room)

    @property
    def place(self) -> int:
        """Where in ``map`` the next record goes."""
        return self._records_at + self.count * self.record_size

    def room(self, number: int) -> int:
        """Return how many of ``number`` records there is room for; the others are overflow."""
        room = min(number, self.capacity - self.count)
        self.overflow += number - room
        return room

    def written(self, number: int) -> None:
        """Count ``number`` records that have been written at ``place``."""
        self.count += number
        self.flush()
        if self.place - self._kept_from > LET_GO_BYTES:
            end = self.place // mmap.PAGESIZE * mmap.PAGESIZE
            self.map.madvise(mmap.MADV_DONTNEED, self._kept_from, end - self._kept_from)
            self._kept_from = end

    def flush(self) -> None:
        """Write the counters; needed only after changing ``drops``."""
        _COUNTERS.pack_into(self.map, _COUNTERS_AT, self.count, self.overflow, self.drops)

    def close(self) -> None:
        """Unmap the file."""
        self.map.close()


class RecordReader:
    """The records of a file that may still be written, or whose writer was killed.

    Raises :class:`~kproxy.errors.MeasurementError` for a file that is no record file of this
    kind, or that is cut.
    """

    def __init__(self, path: str | os.PathLike[str], kind: int, record_size: int) -> None:
        try:
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < HEADER_SIZE:
                    raise MeasurementError(f"{path}: cut: {size} bytes are less than a header")
                self._map = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        except OSError as err:
            raise MeasurementError(f"{path}: {err.strerror}") from None
        (magic, found, length, self.capacity, count, self.overflow, self.drops, table) = (
            HEADER.unpack_from(self._map)
        )
        if magic != MAGIC or found != kind or length != record_size:
            self.close()
            raise MeasurementError(f"{path}: not a record file of kind {kind}")
        self._records_at = HEADER_SIZE + _pages(table)
        if size < self._records_at + record_size * self.capacity:
            self.close()
            raise MeasurementError(f"{path}: cut: {size} bytes, its header promises more")
        self.record_size = record_size
        self.name = self._map[NAME_AT : NAME_AT + NAME_SIZE].split(b"\0", 1)[0].decode()
        self.table = self._map[HEADER_SIZE : HEADER_SIZE + table]
        self._touched = 0
        self.count = self._scan(count)

    def _scan(self, count: int) -> int:
        while count < self.capacity:
            at = self._records_at + count * self.record_size
            if self._map[at : at + 4] == b"\0\0\0\0":
                break
            count += 1
        return int(count)

    def records(self, start: int = 0, number: int | None = None) -> bytes:
        """Return the records from number ``start`` on, so many or all, as one byte string."""
        end = self.count if number is None else min(self.count, start + number)
        first = self._records_at + start * self.record_size
        data = self._map[first : self._records_at + end * self.record_size]
        self._touched += len(data)
        if self._touched > LET_GO_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0
        return data

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def __enter__(self) -> "RecordReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def require_room(file: RecordReader, path: str | os.PathLike[str]) -> None:
    """Raise MeasurementError if records of this file found no room: counts would be wrong."""
    if file.overflow:
        raise MeasurementError(
            f"{path}: {file.overflow} records found no room in {file.capacity}",
            remedy="raise the record capacity",
        )
