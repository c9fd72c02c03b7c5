"""The three kinds of records and their readers.

Sent (24 bytes, little-endian): status u32 (low byte: 1 sent, 2 failed, 3 not sent; the errno of a
failed send above it), flow u32, sequence u64, time u64: when the packet was handed to the kernel,
or, for a packet that was not sent, when it should have been.

Received (96 bytes): the first 32 bytes of the payload as they came (:mod:`kproxy.traffic.wire`),
then the kernel's control messages in its native layout (SCM_TIMESTAMPNS, SO_RXQ_OVFL). Nobody
looks at them while packets arrive. The kernel stamps arrivals with CLOCK_REALTIME; *clock
records* between them (magic ``kpcl``, written at the start and about every second while packets
arrive) carry the offset to CLOCK_MONOTONIC, by which the reader converts.

TCP (96 bytes, little-endian): see :class:`TcpRecord`.

All times are CLOCK_MONOTONIC nanoseconds of the one kernel that the lab runs on.
"""

import os
import struct
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kproxy.traffic import recordfile, wire

if TYPE_CHECKING:  # generators and responders import this module, and must start fast
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.void]

SENT = struct.Struct("<IIQQ")
STATUS_SENT = 1
STATUS_FAILED = 2
STATUS_NOT_SENT = 3

RECEIVED_SIZE = 96
CONTROL_AT = 32
#: Clock record: magic, error of the offset in ns, offset (monotonic - realtime) in ns, spare.
CLOCK_MAGIC = b"kpcl"
CLOCK = struct.Struct("!4sIq16x")
_RECEIVED = struct.Struct("!4sIIIQQ64s")
_TIMESTAMP = struct.Struct("@qiiqq")  # cmsg_len, level, type, seconds, nanoseconds
_CMSG = struct.Struct("@qii")
SOL_SOCKET = 1
SCM_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
_TRIAL_WORD = 1
_CLOCK_WORD = int.from_bytes(CLOCK_MAGIC, sys.byteorder)

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
_RAW_RECEIVED = [
    *(("magic", "S4"), ("trial", ">u4"), ("flow", ">u4"), ("flags", ">u4")),
    *(("seq", ">u8"), ("ns", ">i8"), ("size", "i8"), ("level", "i4"), ("kind", "i4")),
    *(("s", "i8"), ("n", "i8"), ("size2", "i8"), ("level2", "i4"), ("dropped_kind", "i4")),
    *(("dropped", "u4"), ("spare", "V12")),
]
_RAW_CLOCK = [("magic", "S4"), ("error", ">u4"), ("offset", ">i8"), ("spare", "V80")]


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


def read_sent(
    path: str | os.PathLike[str], *, start: int = 0, number: int | None = None
) -> list[Sent]:
    """Read a sender's record file, all of it or ``number`` records from ``start`` on.

    A file whose records found no room raises MeasurementError.
    """
    with recordfile.RecordReader(path, recordfile.KIND_SENT, SENT.size) as file:
        recordfile.require_room(file, path)
        data = file.records(start, number)
    return [Sent(s & 0xFF, s >> 8, flow, seq, ns) for s, flow, seq, ns in SENT.iter_unpack(data)]


def read_received(
    path: str | os.PathLike[str], trial: int, *, start: int = 0, only: range | None = None
) -> tuple[list[Received], ReceiverState]:
    """Read the probes of one trial from a receiver's record file, in the order of arrival.

    ``start`` is a record number (``ReceiverState.records`` of an earlier reading) before which
    nothing of this trial is looked for. ``only`` leaves out packets whose sequence number is not
    in that range, so that a long trial can be read in parts.
    """
    with recordfile.RecordReader(path, recordfile.KIND_RECEIVED, RECEIVED_SIZE) as file:
        recordfile.require_room(file, path)
        data = file.records(_first(file, trial, start))
        state = ReceiverState(file.name, file.count, file.drops, file.overflow, 0)
    packets, drops, error = _decode(data, trial, state.pod, only)
    return packets, state._replace(drops=max(drops, state.drops), clock_error_ns=error)


def sent_array(
    path: str | os.PathLike[str], *, start: int = 0, number: int | None = None
) -> "Array":
    """Read a sender's record file as one structured array, in the order of the plan.

    Fields: ``flow`` u4, ``seq`` u8, ``ns`` i8, ``status`` u1, ``errno`` u2, as in :class:`Sent`.
    ``start`` and ``number`` choose records. Raises MeasurementError as :func:`read_sent` does.
    """
    import numpy as np

    with recordfile.RecordReader(path, recordfile.KIND_SENT, SENT.size) as file:
        recordfile.require_room(file, path)
        raw = np.frombuffer(file.records(start, number), "<u4, <u4, <u8, <u8")
    found = np.empty(len(raw), SENT_FIELDS)
    found["status"], found["errno"] = raw["f0"] & 0xFF, raw["f0"] >> 8
    found["flow"], found["seq"], found["ns"] = raw["f1"], raw["f2"], raw["f3"]
    return found


def received_array(
    path: str | os.PathLike[str], trial: int, *, start: int = 0
) -> tuple["Array", ReceiverState]:
    """Read one trial's probes as one structured array, in the order in which they were taken.

    Fields: ``flow`` u4, ``seq`` u8, ``sent_ns`` i8, ``received_ns`` i8, as in :class:`Received`;
    the pod is the state's. ``start`` as in :func:`read_received`.
    """
    import numpy as np

    with recordfile.RecordReader(path, recordfile.KIND_RECEIVED, RECEIVED_SIZE) as file:
        recordfile.require_room(file, path)
        raw = np.frombuffer(file.records(_first(file, trial, start)), _RAW_RECEIVED)
        state = ReceiverState(file.name, file.count, file.drops, file.overflow, 0)
    clocks = np.flatnonzero(raw["magic"] == CLOCK_MAGIC)
    corrections = np.frombuffer(raw[clocks].tobytes(), _RAW_CLOCK)
    mine = (raw["magic"] == wire.MAGIC) & (raw["trial"] == trial)
    mine &= (raw["level"] == SOL_SOCKET) & (raw["kind"] == SCM_TIMESTAMPNS)
    # The time of a packet is corrected by the last clock record before it.
    offsets = np.concatenate(([0], corrections["offset"]))
    offset = offsets[np.searchsorted(clocks, np.flatnonzero(mine))]
    packets = raw[mine]
    found = np.empty(len(packets), RECEIVED_FIELDS)
    found["flow"], found["seq"], found["sent_ns"] = packets["flow"], packets["seq"], packets["ns"]
    found["received_ns"] = packets["s"] * 1_000_000_000 + packets["n"] + offset
    drops = packets["dropped"][packets["dropped_kind"] == SO_RXQ_OVFL]
    return found, state._replace(
        drops=max(state.drops, int(drops.max(initial=0))),
        clock_error_ns=int(corrections["error"].max(initial=0)),
    )


def _first(file: recordfile.RecordReader, trial: int, start: int) -> int:
    """Return where to begin: at the clock record before the trial's first packet.

    A pod's file holds all trials so far; only this one's records are worth looking at singly.
    """
    try:
        first = file.words(_TRIAL_WORD).index(_native(trial.to_bytes(4, "big")), start)
    except ValueError:
        return file.count
    magics = file.words(0)
    while first > 0 and magics[first] != _CLOCK_WORD:
        first -= 1
    return first


def _native(word: bytes) -> int:
    return int.from_bytes(word, sys.byteorder)


def _decode(
    data: bytes, trial: int, pod: str, only: range | None
) -> tuple[list[Received], int, int]:
    offset, drops, worst = 0, 0, 0
    packets = []
    for number, (magic, its_trial, flow, _flags, seq, sent, control) in enumerate(
        _RECEIVED.iter_unpack(data)
    ):
        if magic == CLOCK_MAGIC:
            _, error, offset = CLOCK.unpack_from(data, number * RECEIVED_SIZE)
            worst = max(worst, error)
            continue
        if its_trial != trial or (only is not None and seq not in only):
            continue
        size, level, kind, seconds, ns = _TIMESTAMP.unpack_from(control)
        if level != SOL_SOCKET or kind != SCM_TIMESTAMPNS:
            continue  # a record torn by SIGKILL
        drops = max(drops, _overflow(control, (size + 7) & ~7))
        packets.append(Received(flow, seq, sent, seconds * 1_000_000_000 + ns + offset, pod))
    return packets, drops, worst


def _overflow(control: bytes, at: int) -> int:
    """Return the count of the SO_RXQ_OVFL message behind the time stamp, 0 without one."""
    size, level, kind = _CMSG.unpack_from(control, at)
    if size < _CMSG.size + 4 or level != SOL_SOCKET or kind != SO_RXQ_OVFL:
        return 0
    return int(struct.unpack_from("@I", control, at + _CMSG.size)[0])


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


def merge(received: Iterable[Iterable[Received]]) -> list[Received]:
    """Merge the receivers' records into one list in the order of arrival."""
    everything = [packet for packets in received for packet in packets]
    everything.sort(key=lambda packet: packet.received_ns)
    return everything


def pack_received(packet: Received, trial: int) -> bytes:
    """Return the record of a packet as the receiver writes it; for tests and converters."""
    seconds, ns = divmod(packet.received_ns, 1_000_000_000)
    payload = wire.header(trial, packet.flow, seq=packet.seq, sent_ns=packet.sent_ns)
    control = _TIMESTAMP.pack(_TIMESTAMP.size, SOL_SOCKET, SCM_TIMESTAMPNS, seconds, ns)
    return (payload + control).ljust(RECEIVED_SIZE, b"\0")
