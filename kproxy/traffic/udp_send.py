"""The isochronous UDP sender: a process that is told over a pipe what to send (see ``control``).

    python -m kproxy.traffic.udp_send [--once PROFILE]

Packet k is due at t0 + k / rate and belongs to flow k modulo the number of flows. Up to 1,000
packets/s each leaves on its own; above that the sender wakes once per millisecond and sends what
has become due in one sendmmsg call. It sleeps until the next deadline and never spins.

After a stall it sends at most ``catch_up_packets`` overdue packets; older ones are recorded as
*not sent*, with the time at which they were due, and are never counted as lost. ``--once`` runs
one profile to the end of its duration without reading commands.
"""

import ctypes
import math
import os
import socket
import struct
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import control, mmsg, profile, recordfile, records, schedule, wire

QUANTUM_NS = 1_000_000
SINGLE_UP_TO_PPS = 1000
#: Fewer than the 1,000 packets that a CPU's receive backlog (netdev_max_backlog) holds.
BATCH = 256
SEND_BUFFER = 8 << 20
_FIFO_PRIORITY = 10
_MCL_CURRENT_ONFAULT = 1 | 4


class Ring:
    """Finished frames in the order in which they leave, with their message headers.

    Its length is a multiple of the number of flows, so packet k always uses slot k modulo length
    and only its stamp (and checksum) changes.
    """

    def __init__(self, flows: tuple[profile.UdpFlow, ...], trial: int) -> None:
        rounds = -(-BATCH // len(flows))
        slots = [flow for _ in range(rounds) for flow in flows]
        self.length = len(slots)
        self.buffer = bytearray(sum(len(flow.frame) for flow in slots))
        self.iovecs = (mmsg.IoVec * self.length)()
        self.headers = (mmsg.MsgHdr * self.length)()
        self.address = ctypes.addressof(self.headers)
        self.stamp_at: list[int] = []
        self.checksums: list[tuple[int, int] | None] = []
        base, at = mmsg.address_of(self.buffer), 0
        for slot, flow in enumerate(slots):
            end = at + len(flow.frame)
            self.buffer[at:end] = flow.frame
            start = at + flow.header_at
            self.buffer[start + 4 : start + 8] = trial.to_bytes(4, "big")
            self.stamp_at.append(start + wire.STAMP_AT)
            self.checksums.append(self._checksum(flow, at, trial))
            self.iovecs[slot].base, self.iovecs[slot].len = base + at, len(flow.frame)
            self.headers[slot].iov = ctypes.addressof(self.iovecs) + slot * ctypes.sizeof(
                mmsg.IoVec
            )
            self.headers[slot].iovlen = 1
            at = end
        self.checksummed = any(self.checksums)

    @staticmethod
    def _checksum(flow: profile.UdpFlow, at: int, trial: int) -> tuple[int, int] | None:
        """Return the checksum's place and the sum that stands for everything but the stamp."""
        if flow.checksum_at is None:
            return None
        (value,) = struct.unpack_from("!H", flow.frame, flow.checksum_at)
        (old,) = struct.unpack_from("!I", flow.frame, flow.header_at + 4)
        change = (trial >> 16) + (trial & 0xFFFF)
        change -= (old >> 16) + (old & 0xFFFF)
        return at + flow.checksum_at, ((~value & 0xFFFF) + change) % 0xFFFF

    def sum_up(self, slot: int) -> None:
        """Make a slot's checksum right after its stamp has been written."""
        if (checksum := self.checksums[slot]) is not None:
            place, base = checksum
            stamp = struct.unpack_from("!8H", self.buffer, self.stamp_at[slot])
            # 0xFFFF, not 0: in UDP a checksum of 0 says that there is none.
            total = (base + sum(stamp)) % 0xFFFF
            struct.pack_into("!H", self.buffer, place, (~total & 0xFFFF) or 0xFFFF)


class Stream:
    """One run of a profile: what is due, what was sent, and what went wrong."""

    def __init__(self, wanted: profile.UdpProfile, realtime_refused: str = "") -> None:
        self.wanted = wanted
        self.realtime_refused = realtime_refused
        self.trial = wanted.trial
        self.fds: tuple[int, ...] = ()
        self.sock = _packet_socket(wanted.interface)
        self.ring = Ring(wanted.flows, wanted.trial)
        self.writer = recordfile.RecordWriter(
            wanted.record, recordfile.KIND_SENT, records.SENT.size, wanted.capacity, "udp_send"
        )
        self.flow_ids = [flow.flow for flow in wanted.flows]
        self.quantum = _quantum(wanted)
        self.catch_up = wanted.catch_up_packets or max(1, round(wanted.rate_pps))
        total = wanted.duration_s
        self.total = None if total is None else round(total * wanted.rate_pps)
        self.next = 0
        self.sent = 0
        self.not_sent = 0
        self.short_sends = 0
        self.longest_call = 0
        self.errnos: dict[int, int] = {}
        self.lateness = array("q")
        self._scratch = bytearray(BATCH * records.SENT.size)
        self._view = memoryview(self._scratch)
        self.t0 = time.monotonic_ns()
        self.schedule = schedule.Schedule.at_rate(self.t0, wanted.rate_pps)
        self._last = self.t0
        self._not_before = 0

    @property
    def endless(self) -> bool:
        """Whether the stream goes on until it is closed."""
        return self.total is None

    @property
    def finished(self) -> bool:
        """Whether every packet of the profile's duration has been dealt with."""
        return self.total is not None and self.next >= self.total

    def deadline(self) -> int:
        """Return when to call :meth:`step` next."""
        at = self.schedule.due(self.next)
        if self.quantum:
            at = self.t0 - (self.t0 - at) // self.quantum * self.quantum
        return max(at, self._not_before)

    def step(self) -> None:
        """Send what has become due, at most a catch-up's worth; note the rest as not sent.

        One batch at a time: while catching up, too, the sender sleeps between batches, because
        the kernel's receive work and the receivers may have no other CPU.
        """
        now = time.monotonic_ns()
        number = self.schedule.due_by(now) - self.next
        if self.total is not None:
            number = min(number, self.total - self.next)
        if number > self.catch_up:
            self._skip(number - self.catch_up)
            number = self.catch_up
        self._not_before = now + QUANTUM_NS if number > BATCH else 0
        number = min(number, BATCH)
        while number > 0:  # twice, where the ring begins anew
            slot = self.next % self.ring.length
            batch = min(number, self.ring.length - slot)
            self._send(slot, batch)
            number -= batch

    def _skip(self, number: int) -> None:
        self.not_sent += number
        while number:
            batch = min(number, BATCH)
            for i in range(batch):
                k = self.next + i
                self._note(i, records.STATUS_NOT_SENT, k, self.schedule.due(k))
            self.writer.append(self._view, batch)
            self.next += batch
            number -= batch

    def _send(self, slot: int, batch: int) -> None:
        now = time.monotonic_ns()
        self._prepare(slot, batch, now)
        done = 0
        while done < batch:
            at = self.ring.address + (slot + done) * mmsg.HDR_SIZE
            result = mmsg.sendmmsg(self.sock.fileno(), at, batch - done)
            if result < 0:
                self.errnos[-result] = self.errnos.get(-result, 0) + 1
                self._note(done, records.STATUS_FAILED | -result << 8, self.next + done, now)
                result = 1
            else:
                self.sent += result
                self.short_sends += result < batch - done
            done += result
        self._last = time.monotonic_ns()
        self.longest_call = max(self.longest_call, self._last - now)
        self.writer.append(self._view, batch)
        self.next += batch

    def _prepare(self, slot: int, batch: int, now: int) -> None:
        """Stamp a batch and write its records: the only work that is done for each packet."""
        stamp, note = wire.STAMP.pack_into, records.SENT.pack_into
        buffer, places, scratch, size = (
            self.ring.buffer,
            self.ring.stamp_at,
            self._scratch,
            records.SENT.size,
        )
        ids, flows, first, sent = self.flow_ids, len(self.flow_ids), self.next, records.STATUS_SENT
        for i in range(batch):
            seq, flow = divmod(first + i, flows)
            stamp(buffer, places[slot + i], seq, now)
            note(scratch, i * size, sent, ids[flow], seq, now)
        if self.ring.checksummed:
            for i in range(slot, slot + batch):
                self.ring.sum_up(i)
        due = self.schedule.due
        self.lateness.extend([now - due(k) for k in range(first, first + batch)])

    def _note(self, place: int, status: int, k: int, ns: int) -> None:
        flow, flows = self.flow_ids[k % len(self.flow_ids)], len(self.flow_ids)
        records.SENT.pack_into(
            self._scratch, place * records.SENT.size, status, flow, k // flows, ns
        )

    def close(self) -> dict[str, Any]:
        """End the run; return the sender's report on itself."""
        self.sock.close()
        self.writer.close()
        # By the clock, not by the plan: who falls behind all the time has not held the rate.
        late_after = int(self.wanted.late_ms * 1e6) + self.quantum
        took = (self._last - self.t0 - late_after) / control.SECOND
        seconds = max(self.schedule.seconds(self.next), took)
        ordered = sorted(self.lateness)
        return {
            "trial": self.wanted.trial,
            "offered_pps": self.wanted.rate_pps,
            "achieved_pps": self.sent / seconds if seconds else 0.0,
            "t0_ns": self.t0,
            "seconds": seconds,
            "planned": self.next,
            "sent": self.sent,
            "not_sent": self.not_sent,
            "failed": {os.strerror(code): n for code, n in sorted(self.errnos.items())},
            "short_sends": self.short_sends,
            "late": sum(1 for value in ordered if value > late_after),
            "late_threshold_ms": late_after / 1e6,
            "lateness_ms": {
                "p50": _percentile(ordered, 0.5) / 1e6,
                "p99": _percentile(ordered, 0.99) / 1e6,
                "max": _percentile(ordered, 1.0) / 1e6,
            },
            "longest_send_call_ms": self.longest_call / 1e6,
            "realtime_refused": self.realtime_refused,
        }


def _quantum(wanted: profile.UdpProfile) -> int:
    """Return how often the sender wakes, in nanoseconds; 0: for every packet."""
    if wanted.quantum_ms is not None:
        return round(wanted.quantum_ms * 1e6)
    return 0 if wanted.rate_pps <= SINGLE_UP_TO_PPS else QUANTUM_NS


def _percentile(ordered: list[int], share: float) -> int:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0


def _packet_socket(interface: str) -> socket.socket:
    # Protocol 0: this socket sends only; nothing that arrives is queued on it.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((interface, 0))
    except OSError as err:
        sock.close()
        raise UsageError(f"interface {interface!r}: {err.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, 32, SEND_BUFFER)  # SO_SNDBUFFORCE
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return sock


def become_realtime() -> str:
    """Ask for SCHED_FIFO and locked memory. Returns "" or what was not allowed."""
    refused = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_FIFO_PRIORITY))
    except OSError as err:
        refused.append(f"SCHED_FIFO: {err.strerror}")
    if mmsg.libc.mlockall(_MCL_CURRENT_ONFAULT):
        refused.append(f"mlockall: {os.strerror(ctypes.get_errno())}")
    return ", ".join(refused)


def open_stream(path: Path) -> Stream:
    """Read a profile and make its stream ready, its clock beginning now."""
    wanted = profile.read_udp(path)
    refused = become_realtime() if wanted.realtime else "not asked for"
    try:
        return Stream(wanted, refused)
    except PermissionError:
        raise MeasurementError(
            "cannot open a packet socket", remedy="run as root or with CAP_NET_RAW"
        ) from None


if __name__ == "__main__":
    sys.exit(control.main("udp_send", open_stream, sys.argv[1:]))
