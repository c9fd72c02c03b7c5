"""The three kinds of records and their readers.

Sent (24 bytes, little-endian), one for each *span*, consecutive packets that had the same fate at
the same moment: status u32 (low byte: 1 sent, 2 failed, 3 not sent; the errno of a failed send
above it), number u32, first packet u64, time u64: when the packets were handed to the kernel, or,
for packets that were not sent, when the first of them should have been. Packet k belongs to flow k
modulo the number of flows; these, and the rate, are the file's table (:func:`sent_table`).

Received (24 bytes), one for each packet: seconds and nanoseconds of the kernel's time stamp (u32
each, little-endian), then flow, the low half of the sequence number (u32 each) and the time of
sending (u64), as they came, big-endian. *Sections* between them (:func:`section`) say to which
trial the next ones belong. The kernel stamps arrivals with CLOCK_REALTIME; a section, written at
least every second while packets arrive, carries the offset to CLOCK_MONOTONIC, too, by which the
reader converts. Where a network card stamps (:mod:`kproxy.traffic.phc`) it is by its own clock,
and sections, with the offset of that one, are written every 20 ms.

TCP (96 bytes, little-endian): see :class:`TcpRecord`.

All times are CLOCK_MONOTONIC nanoseconds of the one kernel that the lab runs on.
"""

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kproxy.traffic import recordfile

if TYPE_CHECKING:  # generators and responders import this module, and must start fast
    from kproxy.traffic.receivedfile import Array

SPAN = struct.Struct("<IIQQ")
STATUS_SENT = 1
STATUS_FAILED = 2
STATUS_NOT_SENT = 3
_TABLE = struct.Struct("<QII")  # rate in thousandths per second (0: uneven), flows, spare

RECEIVED_SIZE = 24
#: A section: this word, error of the offset in ns, trial, spare, offset (monotonic - realtime).
SECTION = 0xFFFFFFFF
_SECTION = struct.Struct("<IIIIq")
_RECEIVED = struct.Struct("<II")
_RECEIVED_PROBE = struct.Struct("!IIQ")

TCP = struct.Struct("<BBHIIIQQQ56s")
KIND_REQUEST = 1
KIND_CONNECT = 2
KIND_ESTABLISH = 3
OUTCOMES = (
    "unfinished",
    "ok",
    "refused",
    "reset",
    "timeout",
    "unreachable",
    "closed",
    "error",
)

#: The types of the fields of what :func:`sent_array` and :func:`received_array` return.
SENT_FIELDS = [("flow", "u4"), ("seq", "u8"), ("ns", "i8"), ("status", "u1"), ("errno", "u2")]
RECEIVED_FIELDS = [("flow", "u4"), ("seq", "u8"), ("sent_ns", "i8"), ("received_ns", "i8")]


class Sent(NamedTuple):
    """One planned packet. ``status`` is STATUS_SENT, STATUS_FAILED or STATUS_NOT_SENT."""

    status: int
    errno: int
    flow: int
    seq: int
    ns: int


class Received(NamedTuple):
    """One packet that reached a pod: when it was sent, and when that pod's kernel had it."""

    flow: int
    seq: int
    sent_ns: int
    received_ns: int
    pod: str


class TcpRecord(NamedTuple):
    """One finished request, new connection, or establishment of a connection to be kept.

    ``kind`` is ``request``, ``connect`` or ``establish``; ``outcome`` one of OUTCOMES;
    ``connected_ns`` is 0 where no connection was made; ``pod`` is "" where nobody answered.
    For requests and establishments ``connection`` numbers the connections to that target, and an
    establishment with ``seq`` above 0 is one that replaces a broken connection.
    """

    kind: str
    outcome: str
    target: int
    connection: int
    seq: int
    start_ns: int
    connected_ns: int
    end_ns: int
    pod: str


class ReceiverState(NamedTuple):
    """What a pod's receiver says of itself.

    ``records`` in its file, ``drops`` at its sockets, records without room (``overflow``) and
    the largest error of its clock conversion in nanoseconds.
    """

    pod: str
    records: int
    drops: int
    overflow: int
    clock_error_ns: int


_KINDS = {KIND_REQUEST: "request", KIND_CONNECT: "connect", KIND_ESTABLISH: "establish"}


def sent_table(flows: Sequence[int], rate_mhz: int) -> bytes:
    """Return the table of a sender's file: its flows' numbers, and its rate if it is even (or 0).

    The rate is in thousandths per second; packets that were not sent were due at that distance.
    """
    return _TABLE.pack(rate_mhz, len(flows), 0) + struct.pack(f"<{len(flows)}I", *flows)


def section(trial: int, offset: int, error: int) -> bytes:
    """Return a section: what follows is of that trial, and its times are corrected by that."""
    return _SECTION.pack(SECTION, min(error, 0xFFFFFFFF), trial, 0, offset)


def sent_array(
    path: str | os.PathLike[str], *, start: int = 0, number: int | None = None
) -> "Array":
    """Read a sender's record file as one structured array, in the order of the plan.

    Fields: ``flow`` u4, ``seq`` u8, ``ns`` i8, ``status`` u1, ``errno`` u2, as in :class:`Sent`.
    ``start`` and ``number`` choose packets of the plan, so that a long trial can be read in parts.
    A file whose records found no room raises MeasurementError.
    """
    import numpy as np

    with recordfile.RecordReader(path, recordfile.KIND_SENT, SPAN.size) as file:
        recordfile.require_room(file, path)
        spans = np.frombuffer(
            file.records(), [("status", "<u4"), ("n", "<u4"), ("first", "<u8"), ("ns", "<i8")]
        )
        rate_mhz = _TABLE.unpack_from(file.table)[0]
        flows = np.frombuffer(file.table, "<u4", offset=_TABLE.size)
    ends = np.cumsum(spans["n"], dtype="i8")
    total = int(ends[-1]) if len(ends) else 0
    k = np.arange(min(start, total), total if number is None else min(total, start + number))
    which = np.searchsorted(ends, k, side="right")
    status = spans["status"][which]
    found = np.empty(len(k), SENT_FIELDS)
    found["status"], found["errno"] = status & 0xFF, status >> 8
    found["flow"], found["seq"], found["ns"] = flows[k % len(flows)], k // len(flows), 0
    found["ns"] = spans["ns"][which]
    if rate_mhz:
        unsent = np.flatnonzero(found["status"] == STATUS_NOT_SENT)
        behind = k[unsent] - spans["first"][which[unsent]].astype("i8")
        found["ns"][unsent] += np.rint(behind * (1e12 / rate_mhz)).astype("i8")
    return found


def received_array(
    path: str | os.PathLike[str], trial: int, *, start: int = 0
) -> tuple["Array", ReceiverState]:
    """Read one trial's probes as one structured array, in the order in which they were taken.

    Fields: ``flow`` u4, ``seq`` u8, ``sent_ns`` i8, ``received_ns`` i8, as in :class:`Received`;
    the pod is the state's. ``start`` is a record number (``ReceiverState.records`` of an earlier
    reading) before which nothing of this trial is looked for.
    :class:`kproxy.traffic.receivedfile.ReceivedFile` reads a long trial in parts.
    """
    from kproxy.traffic import receivedfile

    with receivedfile.ReceivedFile(path) as file:
        found = file.whole(trial, start)
        return found, file.state


def read_sent(
    path: str | os.PathLike[str], *, start: int = 0, number: int | None = None
) -> list[Sent]:
    """Return :func:`sent_array` as a list; for a few packets."""
    found = sent_array(path, start=start, number=number)
    return [Sent(*one) for one in found[["status", "errno", "flow", "seq", "ns"]].tolist()]


def read_received(
    path: str | os.PathLike[str], trial: int, *, start: int = 0
) -> tuple[list[Received], ReceiverState]:
    """Return :func:`received_array` as a list; for a few packets."""
    found, state = received_array(path, trial, start=start)
    return [Received._make((*one, state.pod)) for one in found.tolist()], state


def read_tcp(path: str | os.PathLike[str]) -> list[TcpRecord]:
    """Read a TCP client's record file, in the order in which things ended."""
    with recordfile.RecordReader(path, recordfile.KIND_TCP, TCP.size) as file:
        recordfile.require_room(file, path)
        data = file.records()
    return [_tcp(fields) for fields in TCP.iter_unpack(data)]


def _tcp(fields: tuple[int, int, int, int, int, int, int, int, int, bytes]) -> TcpRecord:
    kind, outcome, _, target, connection, seq, start, connected, end, pod = fields
    name = pod.split(b"\0", 1)[0].decode(errors="replace")
    return TcpRecord(
        _KINDS[kind], OUTCOMES[outcome], target, connection, seq, start, connected, end, name
    )


def pack_received(packet: Received) -> bytes:
    """Return the record of a packet as the receiver writes it; for tests and converters."""
    seconds, ns = divmod(packet.received_ns, 1_000_000_000)
    probe = _RECEIVED_PROBE.pack(packet.flow, packet.seq & 0xFFFFFFFF, packet.sent_ns)
    return _RECEIVED.pack(seconds, ns) + probe
