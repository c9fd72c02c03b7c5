"""A receiver's record file as arrays, as a whole or in parts.

Ten minutes at 20,000 packets/s are twelve million records: who reads them in parts needs memory
for one part only.
"""

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import recordfile, records

Array: TypeAlias = NDArray[np.void]

PART = 1 << 18
_LOOK_BACK = 1 << 16
_RECORD = np.dtype([("s", "<u4"), ("n", "<u4"), ("flow", ">u4"), ("seq", ">u4"), ("sent", ">i8")])
_SECTION = np.dtype(
    [("s", "<u4"), ("error", "<u4"), ("trial", "<u4"), ("spare", "<u4"), ("offset", "<i8")]
)


class ReceivedFile:
    """An open record file of a receiver; it may still be written.

    Raises MeasurementError for a file that is none, that is cut, or in which records found no
    room. ``state`` is known at once, but for ``clock_error_ns``, the largest of what was read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = recordfile.RecordReader(path, recordfile.KIND_RECEIVED, records.RECEIVED_SIZE)
        recordfile.require_room(self._file, path)
        file = self._file
        self.state = records.ReceiverState(file.name, file.count, file.drops, file.overflow, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def whole(self, trial: int, start: int = 0) -> Array:
        """Return all packets of a trial; see :func:`records.received_array`."""
        parts = list(self.parts(trial, start))
        return np.concatenate(parts) if parts else np.empty(0, records.RECEIVED_FIELDS)

    def parts(self, trial: int, start: int = 0, size: int = PART) -> Iterator[Array]:
        """Yield the packets of a trial, from at most ``size`` records at a time, in order."""
        now, offset = self._section_before(start, trial)
        for at in range(start, self._file.count, size):
            raw = np.frombuffer(self._file.records(at, size), _RECORD)
            places = np.flatnonzero(raw["s"] == records.SECTION)
            sections = raw[places].view(_SECTION)
            self._note_error(sections[sections["trial"] == trial])
            trials = np.concatenate(([now], sections["trial"]))
            offsets = np.concatenate(([offset], sections["offset"]))
            now, offset = int(trials[-1]), int(offsets[-1])
            if (trials == trial).any():
                yield _packets(raw, places, trials == trial, offsets)

    def _section_before(self, start: int, trial: int) -> tuple[int, int]:
        """Return trial and offset of the section in which a record is; a negative one: none."""
        while start > 0:
            first = max(0, start - _LOOK_BACK)
            raw = np.frombuffer(self._file.records(first, start - first), _RECORD)
            places = np.flatnonzero(raw["s"] == records.SECTION)
            if len(places):
                found = raw[places[-1:]].view(_SECTION)
                self._note_error(found[found["trial"] == trial])
                return int(found["trial"][0]), int(found["offset"][0])
            start = first
        return -1, 0

    def _note_error(self, sections: Array) -> None:
        worst = int(sections["error"].max(initial=0))
        if worst > self.state.clock_error_ns:
            self.state = self.state._replace(clock_error_ns=worst)


def _packets(
    raw: Array,
    places: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    offsets: NDArray[np.int64],
) -> Array:
    """Return the packets of the wanted sections, of which the first begins before ``raw``."""
    which = np.searchsorted(places, np.arange(len(raw)), side="right")
    # A second of 0 is a record torn by SIGKILL.
    mine = wanted[which] & (raw["s"] != records.SECTION) & (raw["s"] != 0)
    packets, offset = raw[mine], offsets[which[mine]]
    found = np.empty(len(packets), records.RECEIVED_FIELDS)
    found["flow"], found["seq"], found["sent_ns"] = (packets[n] for n in ("flow", "seq", "sent"))
    found["received_ns"] = packets["s"].astype("i8") * 1_000_000_000 + packets["n"] + offset
    return found
