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
from contextlib import suppress

from kproxy.traffic import mmsg, recordfile, records, wire

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
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40
_SO_MEMINFO = 55
_SK_MEMINFO_DROPS = 8
_ADDRESS = 28
_MAGIC_WORD = struct.unpack("=I", wire.MAGIC)[0]
_ECHO_WORD = struct.unpack("=I", wire.FLAG_ECHO.to_bytes(4, "big"))[0]
#: A slot: the head of the payload, then SCM_TIMESTAMPNS and, after drops, SO_RXQ_OVFL.
_SLOT = 96
_CONTROL_AT = wire.HEADER.size
_SLOT_WORDS = _SLOT // 4
_RECORD_WORDS = records.RECEIVED_SIZE // 4
#: The words of a slot that a record is made of, the word by which it counts as written last:
#: nanoseconds, flow, sequence number (low), time of sending (high, low); seconds.
_KEPT = ((14, 1), (2, 2), (5, 3), (6, 4), (7, 5), (12, 0))
_DROPS_KIND_WORD = 19
_DROPS_WORD = 20
_HDR_WORDS = mmsg.HDR_SIZE // 4
_LEN_WORD = mmsg.MsgHdr.len.offset // 4
_NAMELEN_WORD = mmsg.MsgHdr.namelen.offset // 4


def open_socket(port: int, *, packets_per_second: float, seconds: float = 2.0) -> socket.socket:
    """Return a UDP socket bound to ``port`` of every address (IPv6 and IPv4 where there is IPv6).

    Its buffer holds ``seconds`` of traffic at that rate, if the kernel allows; arrivals are
    stamped by the kernel and its drops are counted.
    """
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
    except OSError:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(("", port))
    prepare(sock, packets_per_second=packets_per_second, seconds=seconds)
    return sock


def prepare(sock: socket.socket, *, packets_per_second: float, seconds: float = 2.0) -> None:
    """Have a socket hold so much traffic, stamp arrivals, and count what it drops."""
    # The kernel doubles the number, to account for its own bookkeeping, so half is asked for.
    wanted = int(packets_per_second * seconds * CHARGE_BYTES / 2)
    wanted = min(max(wanted, LEAST_BUFFER), MOST_BUFFER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)


def drops(sock: socket.socket) -> int:
    """Return how many packets the kernel has dropped at this socket."""
    data = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    return int(struct.unpack_from("=I", data, 4 * _SK_MEMINFO_DROPS)[0])


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

    def __init__(self, skip: int = 0) -> None:
        """``skip``: so many bytes of each packet come before what is kept."""
        self._skip = skip
        self._skipped = bytearray(max(1, skip))
        self.slots = bytearray(BATCH * _SLOT)
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
        names, iovecs = mmsg.address_of(self.names), ctypes.addressof(self._iovecs)
        headers = (mmsg.MsgHdr * BATCH).from_buffer(self._headers)
        skipped = mmsg.address_of(self._skipped)
        for i, header in enumerate(headers):
            before, head, tail = self._iovecs[3 * i : 3 * i + 3]
            before.base, before.len = skipped, self._skip
            head.base, head.len = slots + i * _SLOT, _CONTROL_AT
            tail.base, tail.len = tails + i * ECHO_BYTES, ECHO_BYTES
            header.name, header.namelen = names + i * _ADDRESS, _ADDRESS
            first = 3 * i if self._skip else 3 * i + 1
            header.iov = iovecs + first * ctypes.sizeof(mmsg.IoVec)
            header.iovlen = 3 * i + 3 - first
            header.control = slots + i * _SLOT + _CONTROL_AT
            header.controllen = _SLOT - _CONTROL_AT

    def receive(self, sock: socket.socket) -> int:
        """Take what has arrived, at most a batch; returns how many packets (0: none)."""
        # The kernel has overwritten the lengths of the headers it used last time.
        ctypes.memmove(self._at, self._fresh, len(self._fresh))
        return max(0, mmsg.recvmmsg(sock.fileno(), self._at, BATCH))

    def only_probes(self, number: int) -> bool:
        """Whether all are probes of one trial that ask for nothing: the case to be quick."""
        slots = number * _SLOT_WORDS
        lengths = self.header_words[_LEN_WORD : number * _HDR_WORDS : _HDR_WORDS].tolist()
        return (
            min(lengths) >= wire.HEADER.size + self._skip
            and self.words[0:slots:_SLOT_WORDS].tolist().count(_MAGIC_WORD) == number
            and self.words[1:slots:_SLOT_WORDS].tolist().count(self.words[1]) == number
            and _ECHO_WORD not in self.words[3:slots:_SLOT_WORDS].tolist()
        )

    def trial(self, i: int) -> int:
        """Return the trial of packet ``i``, a probe."""
        return int.from_bytes(self.slots[i * _SLOT + 4 : i * _SLOT + 8], "big")

    def drops(self, number: int) -> int:
        """Return what the last of ``number`` packets says of drops at its socket; 0: nothing."""
        last = (number - 1) * _SLOT_WORDS
        if self.words[last + _DROPS_KIND_WORD] != _SO_RXQ_OVFL:
            return 0
        return int(self.words[last + _DROPS_WORD])

    def copy(self, first: int, number: int, target: memoryview) -> None:
        """Write the records of ``number`` packets, from ``first`` on, into words of a file."""
        begin, end = first * _SLOT_WORDS, (first + number) * _SLOT_WORDS
        for word, place in _KEPT:
            target[place::_RECORD_WORDS] = self.words[begin + word : end : _SLOT_WORDS]

    def is_probe(self, i: int) -> bool:
        """Whether packet ``i`` is a probe."""
        return self.length(i) >= wire.HEADER.size and self.words[i * _SLOT_WORDS] == _MAGIC_WORD

    def wants_echo(self, i: int) -> bool:
        """Whether packet ``i`` is to be answered: a probe that says so, or no probe at all."""
        return not self.is_probe(i) or self.words[i * _SLOT_WORDS + 3] == _ECHO_WORD

    def length(self, i: int) -> int:
        """Return the length of packet ``i``'s payload."""
        return int(self.header_words[i * _HDR_WORDS + _LEN_WORD]) - self._skip

    def payload(self, i: int) -> bytes:
        """Return packet ``i``'s payload, as far as it was kept."""
        slot, tail = i * _SLOT, i * ECHO_BYTES
        head = self.slots[slot : slot + min(self.length(i), _CONTROL_AT)]
        rest = max(0, self.length(i) - _CONTROL_AT)
        return bytes(head + self.tails[tail : tail + rest])

    def name(self, i: int) -> bytes:
        """Return the raw socket address from which packet ``i`` came."""
        length = self.header_words[i * _HDR_WORDS + _NAMELEN_WORD]
        return bytes(self.names[i * _ADDRESS : i * _ADDRESS + length])


class Recorder:
    """Receives on any number of sockets into one record file (None: counts only).

    Not ``echoes``: nothing is answered, whatever it asks for.
    """

    def __init__(self, writer: recordfile.RecordWriter | None, *, echoes: bool = True) -> None:
        self.writer = writer
        self._echoes = echoes
        self.probes = 0
        self.echoed = 0
        self._batch = self._answered = Batch()
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
            self.writer.append(records.section(trial, *clock_offset()), 1)
            self._section_due, self._trial = now + CLOCK_EVERY_NS, trial
        number = self.writer.room(number)
        if number:
            at = self.writer.place
            with memoryview(self.writer.map) as whole:
                part = whole[at : at + number * records.RECEIVED_SIZE]
                with part, part.cast("I") as target:
                    self._batch.copy(first, number, target)
        self.writer.written(number)

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
