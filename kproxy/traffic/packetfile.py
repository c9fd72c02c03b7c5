"""The packets of a trial as one compact file for pandas, polars or numpy: a compressed .npz.

One column for each field, one row for each packet of the plan; ``docs/records.md`` describes it.
It is written in parts, so that a long trial needs no memory to speak of. Times are differences,
which compress well: ten minutes at 20,000 packets/s are twelve million rows in under 100 MB.
"""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from kproxy.traffic import matching
from kproxy.traffic.receivedfile import Array

#: Instead of a delay, for a packet that did not arrive.
NOT_ARRIVED = np.uint32(0xFFFFFFFF)
_LONGEST = 0xFFFFFFFE
#: Delays are told in steps of so many nanoseconds, well below what a kernel's clock is exact to.
DELAY_UNIT_NS = 100
COLUMNS = [
    ("flow", "<u4"),
    ("seq", "<u4"),
    ("status", "u1"),
    ("pod", "u1"),
    ("copies", "u1"),
    ("gap_ns", "<u4"),
    ("delay_100ns", "<u4"),
]


def write(path: Path, parts: Iterable[tuple[Array, dict[str, Array]]], pods: list[str]) -> int:
    """Write the parts that :func:`kproxy.traffic.parts.parts` yields; returns how many rows.

    The file appears whole or not at all. Raises ValueError if there are more than 255 pods.
    """
    if len(pods) > np.iinfo("u1").max:
        raise ValueError(f"{len(pods)} pods are more than a column of one byte can tell apart")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.ExitStack() as stack:
        columns = _Columns(path.parent, stack)
        first = None
        rows = 0
        for sent, received in parts:
            first = int(sent["ns"][0]) if first is None and len(sent) else first
            # What was not sent was due before what was sent late, just before it.
            times = np.maximum.accumulate(np.append(columns.last_ns or first or 0, sent["ns"]))
            columns.add(_rows(sent, received, pods, np.diff(times)))
            columns.last_ns = int(times[-1])
            rows += len(sent)
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                columns.pack(archive, rows)
                _put(archive, "pods", np.array(pods, dtype="U"))
                _put(archive, "first_ns", np.array(first or 0, dtype="<i8"))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return rows


def _rows(
    sent: Array, received: dict[str, Array], pods: list[str], gaps: NDArray[np.int64]
) -> Array:
    """Return the rows of some packets; ``gaps``: since the packet before each was sent."""
    rows = np.zeros(len(sent), COLUMNS)
    rows["flow"], rows["seq"], rows["status"] = sent["flow"], sent["seq"], sent["status"]
    rows["gap_ns"] = np.minimum(gaps, 0xFFFFFFFF)
    rows["delay_100ns"] = NOT_ARRIVED
    key = matching.keys(sent["flow"], sent["seq"])
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    for pod, arrived in received.items():
        if not len(arrived) or not len(sent):
            continue
        wanted = matching.keys(arrived["flow"], arrived["seq"])
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        known = ordered[place] == wanted
        row = order[place[known]]
        delay = (arrived["received_ns"][known] - sent["ns"][row]) // DELAY_UNIT_NS
        # Of copies the first counts.
        here = np.full(len(rows), NOT_ARRIVED)
        np.minimum.at(here, row, np.clip(delay, 0, _LONGEST).astype("u4"))
        first = here < rows["delay_100ns"]
        rows["delay_100ns"][first] = here[first]
        rows["pod"][first] = pods.index(pod)
        counts = np.bincount(row, minlength=len(rows)) + rows["copies"]
        rows["copies"] = np.minimum(counts, np.iinfo("u1").max)
    return rows


class _Columns:
    """One unlinked file for each column, in the directory of the result."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._files: dict[str, IO[bytes]] = {}
        for name, _ in COLUMNS:
            file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  the stack closes it
            self._files[name] = stack.enter_context(file)
        self.last_ns: int | None = None

    def add(self, rows: Array) -> None:
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(rows[name]).tobytes())

    def pack(self, archive: zipfile.ZipFile, rows: int) -> None:
        for name, kind in COLUMNS:
            file = self._files[name]
            file.seek(0)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as target:
                header = {"descr": kind, "fortran_order": False, "shape": (rows,)}
                npy.write_array_header_1_0(target, header)
                for piece in _pieces(file):
                    target.write(piece)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(1 << 20):
        yield piece


def _put(archive: zipfile.ZipFile, name: str, value: Array) -> None:
    with archive.open(f"{name}.npy", "w") as target:
        npy.write_array(target, value, allow_pickle=False)
