"""The receiving end in a pod: records probe packets without looking at each of them.

One recvmmsg call puts payloads and the kernel's control messages into the slots of a scratch
buffer; what a record keeps of them is copied column by column into the record file. Python looks
at a batch as a whole (lengths, magics, trials, flags), and at single packets only if some of them
differ. A socket buffer for two seconds of traffic makes a stalled receiver late, not lossy.
"""

import ctypes
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kproxy.traffic import mmsg, recordfile, records, wire

if TYPE_CHECKING:
    from kproxy.traffic.phc import CardClock

#: Where a system call is dear, a third of receiving is saved by 512 instead of 128.
BATCH = 512
#: Datagrams up to this many bytes are echoed whole; longer ones are not answered.
ECHO_BYTES = 2048
#: What the kernel charges for a small packet, with room to spare.
CHARGE_BYTES = 1280
#: Bounds of what is asked for (the kernel doubles it): 2 s at 100,000 packets/s are the most.
LEAST_BUFFER = 1 << 20
MOST_BUFFER = 1 << 27
CLOCK_EVERY_NS = 1_000_000_000
_SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
_SO_TIMESTAMPING = 37
#: RX_HARDWARE, RX_SOFTWARE, SOFTWARE, RAW_HARDWARE: both stamps of arrivals, the card's as it is.
_BOTH_STAMPS = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6
_SO_RXQ_OVFL = 40
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8
_ADDRESS = 28
_MAGIC_WORD = struct.unpack("=I", wire.MAGIC)[0]
_ECHO_WORD = struct.unpack("=I", wire.FLAG_ECHO.to_bytes(4, "big"))[0]
_CONTROL_AT = wire.HEADER.size
_RECORD_WORDS = records.RECEIVED_SIZE // 4
_HDR_WORDS = mmsg.HDR_SIZE // 4
_LEN_WORD = mmsg.MsgHdr.len.offset // 4
_NAMELEN_WORD = mmsg.MsgHdr.namelen.offset // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is where in a slot: the head of the payload, the stamp, after drops SO_RXQ_OVFL.

    ``size`` in bytes; the others are words. Of a stamp the next word but one has the nanoseconds.
    """

    size: int
    stamp: int
    drops: int

    @property
    def words(self) -> int:
        """The words of a slot."""
        return self.size // 4

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """The words of which a record is made, and their places in it.

        Nanoseconds, flow, sequence number (low), time of sending (high, low); seconds, by which a
        record counts as written, last.
        """
        return ((self.stamp + 2, 1), (2, 2), (5, 3), (6, 4), (7, 5), (self.stamp, 0))


#: Where the stamp of the kernel is in either layout: SCM_TIMESTAMPNS, one time, comes first.
_KERNEL_STAMP = (_CONTROL_AT + 16) // 4
BY_KERNEL = Layout(size=96, stamp=_KERNEL_STAMP, drops=20)
#: Then SCM_TIMESTAMPING: three times, of the kernel, of nobody any more, of the card.
BY_CARD = Layout(size=152, stamp=_KERNEL_STAMP + 16, drops=36)


def open_socket(
    port: int, *, packets_per_second: float, seconds: float = 2.0, by_card: bool = False
) -> socket.socket:
    """Return a UDP socket bound to ``port`` of every address (IPv6 and IPv4 where there is IPv6).

    Its buffer holds ``seconds`` of traffic at that rate, if the kernel allows; arrivals are
    stamped by the kernel and its drops are counted. ``by_card``: by the network card, too, for a
    :class:`Batch` with that layout.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
    except OSError:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(("", port))
    prepare(sock, packets_per_second=packets_per_second, seconds=seconds, by_card=by_card)
    return sock


def prepare(
    sock: socket.socket,
    *,
    packets_per_second: float,
    seconds: float = 2.0,
    by_card: bool = False,
) -> None:
    """Have a socket hold so much traffic, stamp arrivals, and count what it drops."""
    # The kernel doubles the number, to account for its own bookkeeping, so half is asked for.
    wanted = int(packets_per_second * seconds * CHARGE_BYTES / 2)
    wanted = min(max(wanted, LEAST_BUFFER), MOST_BUFFER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    # Also for stamps of the card: with it the kernel always has one of its own, even of a packet
    # that came while it was still turning them on. So neither control message is ever missing.
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    if by_card:
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _BOTH_STAMPS)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)


def drops(sock: socket.socket) -> int:
    """Return how many packets the kernel has dropped at this socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    return int(struct.unpack_from("=I", data, 4 * _SK_MEMINFO_DROPS)[0])


def stamp(control: Sequence[tuple[int, int, bytes]]) -> int | None:
    """Return when the kernel had a packet (CLOCK_REALTIME, ns), by its control messages.

    For who takes packets one by one, with recvmsg, from a socket that has SO_TIMESTAMPNS set.
    None: it is not said, as of what came before that was set.
    """
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, ns = struct.unpack_from("@ll", data)
            return int(seconds * 1_000_000_000 + ns)
    return None


def clock_offset() -> tuple[int, int]:
    """Measure CLOCK_MONOTONIC minus CLOCK_REALTIME; return it and its error in nanoseconds.

    The best of three: its error is half the time between the two readings around it.
    """
    best = (1 << 62, 0)
    for _ in range(3):
        before = time.monotonic_ns()
        real = time.time_ns()
        after = time.monotonic_ns()
        best = min(best, ((after - before + 1) // 2, (before + after) // 2 - real))
    return best[1], best[0]


class Batch:
    """The slots into which recvmmsg puts packets; shared by all sockets of the process."""

    def __init__(self, skip: int = 0, layout: Layout = BY_KERNEL) -> None:
        """``skip``: so many bytes of each packet come before what is kept."""
        self._skip = skip
        self._layout = layout
        self._slot_words = layout.words
        self._kept = layout.kept
        self._skipped = bytearray(max(1, skip))
        self.slots = bytearray(BATCH * layout.size)
        self.tails = bytearray(BATCH * ECHO_BYTES)
        self.names = bytearray(BATCH * _ADDRESS)
        self._headers = bytearray(BATCH * mmsg.HDR_SIZE)
        self._iovecs = (mmsg.IoVec * (3 * BATCH))()
        self._at = mmsg.address_of(self._headers)
        self._lay_out()
        self._fresh = bytes(self._headers)
        self.words = memoryview(self.slots).cast("I")
        self.header_words = memoryview(self._headers).cast("I")

    def _lay_out(self) -> None:
        slots, tails = mmsg.address_of(self.slots), mmsg.address_of(self.tails)
        size = self._layout.size
        names, iovecs = mmsg.address_of(self.names), ctypes.addressof(self._iovecs)
        headers = (mmsg.MsgHdr * BATCH).from_buffer(self._headers)
        skipped = mmsg.address_of(self._skipped)
        for i, header in enumerate(headers):
            before, head, tail = self._iovecs[3 * i : 3 * i + 3]
            before.base, before.len = skipped, self._skip
            head.base, head.len = slots + i * size, _CONTROL_AT
            tail.base, tail.len = tails + i * ECHO_BYTES, ECHO_BYTES
            header.name, header.namelen = names + i * _ADDRESS, _ADDRESS
            first = 3 * i if self._skip else 3 * i + 1
            header.iov = iovecs + first * ctypes.sizeof(mmsg.IoVec)
            header.iovlen = 3 * i + 3 - first
            header.control = slots + i * size + _CONTROL_AT
            header.controllen = size - _CONTROL_AT

    def receive(self, sock: socket.socket) -> int:
        """Take what has arrived, at most a batch; returns how many packets (0: none)."""
        # The kernel has overwritten the lengths of the headers it used last time.
        ctypes.memmove(self._at, self._fresh, len(self._fresh))
        return max(0, mmsg.recvmmsg(sock.fileno(), self._at, BATCH))

    def only_probes(self, number: int) -> bool:
        """Whether all are probes of one trial that ask for nothing: the case to be quick."""
        step, slots = self._slot_words, number * self._slot_words
        lengths = self.header_words[_LEN_WORD : number * _HDR_WORDS : _HDR_WORDS].tolist()
        return (
            min(lengths) >= wire.HEADER.size + self._skip
            and self.words[0:slots:step].tolist().count(_MAGIC_WORD) == number
            and self.words[1:slots:step].tolist().count(self.words[1]) == number
            and _ECHO_WORD not in self.words[3:slots:step].tolist()
        )

    def trial(self, i: int) -> int:
        """Return the trial of packet ``i``, a probe."""
        at = i * self._layout.size
        return int.from_bytes(self.slots[at + 4 : at + 8], "big")

    def drops(self, number: int) -> int:
        """Return what the last of ``number`` packets says of drops at its socket; 0: nothing."""
        at = (number - 1) * self._slot_words + self._layout.drops
        return int(self.words[at]) if self.words[at - 1] == _SO_RXQ_OVFL else 0

    def copy(self, first: int, number: int, target: memoryview) -> None:
        """Write the records of ``number`` packets, from ``first`` on, into words of a file."""
        step = self._slot_words
        begin, end = first * step, (first + number) * step
        for word, place in self._kept:
            target[place::_RECORD_WORDS] = self.words[begin + word : end : step]

    def kernel_stamp(self, i: int) -> int:
        """Return when the kernel had packet ``i``, in nanoseconds of CLOCK_REALTIME."""
        at = i * self._slot_words + _KERNEL_STAMP
        return int(self.words[at]) * 1_000_000_000 + int(self.words[at + 2])

    def unstamped(self, first: int, number: int) -> list[int]:
        """Return which of ``number`` packets, from ``first`` on, have no stamp."""
        begin, end = first * self._slot_words, (first + number) * self._slot_words
        seconds = self.words[begin + self._layout.stamp : end : self._slot_words].tolist()
        return [i for i, value in enumerate(seconds, first) if not value] if 0 in seconds else []

    def is_probe(self, i: int) -> bool:
        """Whether packet ``i`` is a probe."""
        return (
            self.length(i) >= wire.HEADER.size and self.words[i * self._slot_words] == _MAGIC_WORD
        )

    def wants_echo(self, i: int) -> bool:
        """Whether packet ``i`` is to be answered: a probe that says so, or no probe at all."""
        return not self.is_probe(i) or self.words[i * self._slot_words + 3] == _ECHO_WORD

    def length(self, i: int) -> int:
        """Return the length of packet ``i``'s payload."""
        return int(self.header_words[i * _HDR_WORDS + _LEN_WORD]) - self._skip

    def payload(self, i: int) -> bytes:
        """Return packet ``i``'s payload, as far as it was kept."""
        slot, tail = i * self._layout.size, i * ECHO_BYTES
        head = self.slots[slot : slot + min(self.length(i), _CONTROL_AT)]
        rest = max(0, self.length(i) - _CONTROL_AT)
        return bytes(head + self.tails[tail : tail + rest])

    def name(self, i: int) -> bytes:
        """Return the raw socket address from which packet ``i`` came."""
        length = self.header_words[i * _HDR_WORDS + _NAMELEN_WORD]
        return bytes(self.names[i * _ADDRESS : i * _ADDRESS + length])


class Recorder:
    """Receives on any number of sockets into one record file (None: counts only).

    Not ``echoes``: nothing is answered, whatever it asks for. ``card``: by that clock arrivals
    have been stamped, on sockets opened ``by_card``; those left out are counted.
    """

    def __init__(
        self,
        writer: recordfile.RecordWriter | None,
        *,
        echoes: bool = True,
        card: "CardClock | None" = None,
    ) -> None:
        self.writer = writer
        self._echoes = echoes
        self.probes = 0
        self.echoed = 0
        self.unstamped = 0
        self._card = card
        self._to_card = 0
        self._batch = self._answered = Batch(layout=BY_CARD if card else BY_KERNEL)
        self._trial = -1
        self._section_due = 0

    def readable(self, sock: socket.socket, sniffed: Batch | None = None) -> None:
        """Take what has arrived on a socket, a few batches at most: others wait, too.

        ``sniffed``: the batch for a socket of :mod:`kproxy.traffic.sniff`, which is not answered.
        """
        self._batch = sniffed or self._answered
        for _ in range(8):
            number = self._batch.receive(sock)
            if number == 0:
                return
            self._take(sock, number)
            if number < BATCH:
                return

    def _take(self, sock: socket.socket, number: int) -> None:
        batch = self._batch
        if self.writer is not None and batch.drops(number) > self.writer.drops:
            self.writer.drops = batch.drops(number)
        if batch.only_probes(number):
            self._record(0, number)
            return
        for i in range(number):
            if batch.is_probe(i):
                self._record(i, 1)
            if batch is not self._answered or not self._echoes:
                continue
            if batch.wants_echo(i) and batch.length(i) <= ECHO_BYTES:
                mmsg.sendto(sock.fileno(), batch.payload(i), batch.name(i))
                self.echoed += 1

    def _record(self, first: int, number: int) -> None:
        """Record packets of one trial."""
        self.probes += number
        if self.writer is None:
            return
        now, trial = time.monotonic_ns(), self._batch.trial(first)
        if now >= self._section_due or trial != self._trial:
            self._begin_section(now, trial, first)
        number = self.writer.room(number)
        if number:
            at = self.writer.place
            with memoryview(self.writer.map) as whole:
                part = whole[at : at + number * records.RECEIVED_SIZE]
                with part, part.cast("I") as target:
                    self._batch.copy(first, number, target)
                    if self._card is not None:
                        self._stamp_others(first, number, target)
        self.writer.written(number)

    def _begin_section(self, now: int, trial: int, first: int) -> None:
        """Write by how much the stamps that follow are to be corrected."""
        assert self.writer is not None
        if self._card is None:
            offset, error = clock_offset()
            self._section_due = now + CLOCK_EVERY_NS
        else:
            kernel, _ = clock_offset()
            waited = now - kernel - self._batch.kernel_stamp(first)
            _, offset, error = self._card.section(waited)
            self._to_card = kernel - offset
            self._section_due = now + self._card.every_ns
        self._trial = trial
        self.writer.append(records.section(trial, offset, error), 1)

    def _stamp_others(self, first: int, number: int, target: memoryview) -> None:
        """Give those that the card has left out the kernel's stamp, by the card's clock."""
        for i in self._batch.unstamped(first, number):
            ns = self._batch.kernel_stamp(i) + self._to_card
            at = (i - first) * _RECORD_WORDS
            target[at], target[at + 1] = divmod(ns, 1_000_000_000)
            self.unstamped += 1

    def note_drops(self, sockets: list[socket.socket]) -> int:
        """Write the drops of all sockets into the file's header; return their number."""
        total = 0
        for sock in sockets:
            with suppress(OSError):
                total += drops(sock)
        if self.writer is not None and self.writer.drops != total:
            self.writer.drops = total
            self.writer.flush()
        return total
