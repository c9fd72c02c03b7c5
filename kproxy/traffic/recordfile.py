"""Record files: fixed-size records in a shared mapping, which a SIGKILL does not lose.

The writer maps a sparse file and copies records into it; the kernel owns the pages, so whatever
was written is in the file when the process dies. Put these files on a tmpfs (``/run`` or
``/dev/shm``): then writing a record is a memory copy and nothing else.

Layout: one page of header, then ``capacity`` records of ``record_size`` bytes. Numbers are
little-endian. Every record begins with a word that is not zero. ``count`` is written after the
records it counts, so a reader goes on behind it until a record begins with a zero word: the batch
during which the writer was killed counts too.

======  =====  ========================================================================
offset  size   header field
======  =====  ========================================================================
0       8      ``KPXREC1\\0``
8       4      kind: 1 sent, 2 received, 3 TCP
12      4      record size
16      8      capacity, in records
24      8      count of records written
32      8      records that found no room (the measurement is invalid if not 0)
40      8      packets that the kernel dropped at the receiving sockets
64      …      name of the writer (a pod's name), UTF-8, zero-terminated
======  =====  ========================================================================
"""

import mmap
import os
import struct
from pathlib import Path

from kproxy.errors import MeasurementError

MAGIC = b"KPXREC1\0"
HEADER = struct.Struct("<8sIIQQQQ")
HEADER_SIZE = 4096
NAME_AT = 64
NAME_SIZE = 256
KIND_SENT = 1
KIND_RECEIVED = 2
KIND_TCP = 3
_COUNTERS = struct.Struct("<QQQ")
_COUNTERS_AT = 24


class RecordWriter:
    """Appends records to a new file (an existing one is replaced). Close it, or just die."""

    def __init__(
        self, path: str | os.PathLike[str], kind: int, record_size: int, capacity: int, name: str
    ) -> None:
        self.record_size = record_size
        self.capacity = capacity
        self.count = 0
        self.overflow = 0
        self.drops = 0
        size = HEADER_SIZE + record_size * capacity
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(fd, size)
            self.map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        HEADER.pack_into(self.map, 0, MAGIC, kind, record_size, capacity, 0, 0, 0)
        text = name.encode()[: NAME_SIZE - 1]
        self.map[NAME_AT : NAME_AT + len(text)] = text

    def append(self, records: bytes | bytearray | memoryview, number: int) -> None:
        """Append ``number`` records; those that find no room are counted in ``overflow``."""
        room = min(number, self.capacity - self.count)
        at = HEADER_SIZE + self.count * self.record_size
        self.map[at : at + room * self.record_size] = records[: room * self.record_size]
        self.count += room
        self.overflow += number - room
        self.flush()

    def flush(self) -> None:
        """Write the counters; needed only after changing ``drops`` or writing in place."""
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
        magic, found, length, self.capacity, count, self.overflow, self.drops = HEADER.unpack_from(
            self._map
        )
        if magic != MAGIC or found != kind or length != record_size:
            self.close()
            raise MeasurementError(f"{path}: not a record file of kind {kind}")
        if size < HEADER_SIZE + record_size * self.capacity:
            self.close()
            raise MeasurementError(f"{path}: cut: {size} bytes, its header promises more")
        self.record_size = record_size
        self.name = self._map[NAME_AT : NAME_AT + NAME_SIZE].split(b"\0", 1)[0].decode()
        self.count = self._scan(count)

    def _scan(self, count: int) -> int:
        while count < self.capacity:
            at = HEADER_SIZE + count * self.record_size
            if self._map[at : at + 4] == b"\0\0\0\0":
                break
            count += 1
        return int(count)

    def records(self, start: int = 0, number: int | None = None) -> bytes:
        """Return the records from number ``start`` on, so many or all, as one byte string."""
        end = self.count if number is None else min(self.count, start + number)
        return self._map[
            HEADER_SIZE + start * self.record_size : HEADER_SIZE + end * self.record_size
        ]

    def words(self, number: int) -> list[int]:
        """Return word ``number`` (of 4 bytes) of every record, as native integers."""
        end = HEADER_SIZE + self.count * self.record_size
        with memoryview(self._map) as whole, whole[HEADER_SIZE:end].cast("I") as words:
            return words[number :: self.record_size // 4].tolist()

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
