"""The packet sender: a process that is told over a pipe what to send (see ``control``).

    python -m kproxy.traffic.udp_send [--once PROFILE]

Packet k is due at t0 + k / rate (or when a Poisson process says so) and belongs to flow k modulo
the number of flows. Up to 1,000 packets/s each leaves on its own; above that the sender wakes once
per millisecond and sends what has become due in one go (:mod:`kproxy.traffic.ring`). It sleeps
until the next deadline and never spins.

After a stall it sends at most ``catch_up_packets`` overdue packets; older ones are recorded as
*not sent*, with the time at which they were due, and are never counted as lost. ``--once`` runs
one profile to the end of its duration without reading commands.
"""

import ctypes
import os
import sys
import time
from array import array
from pathlib import Path
from typing import Any

from kproxy.errors import MeasurementError
from kproxy.traffic import (
    control,
    lateness,
    mmsg,
    profile,
    quality,
    recordfile,
    records,
    ring,
    schedule,
    slots,
)

QUANTUM_NS = 1_000_000
SINGLE_UP_TO_PPS = 1000
_FIFO_PRIORITY = 10
_MCL_CURRENT_ONFAULT = 1 | 4


class Stream:
    """One run of a profile: what is due, what was sent, and what went wrong."""

    def __init__(self, wanted: profile.UdpProfile, realtime_refused: str = "") -> None:
        self.wanted = wanted
        self.realtime_refused = realtime_refused
        self.trial = wanted.trial
        self.fds: tuple[int, ...] = ()
        self.ring = ring.TransmitRing(wanted.interface, wanted.flows, wanted.trial)
        self.quantum = _quantum(wanted)
        self.catch_up = wanted.catch_up_packets or max(1, round(wanted.rate_pps))
        total = wanted.duration_s
        self.total = None if total is None else round(total * wanted.rate_pps)
        self.next = 0
        self.sent = 0
        self.not_sent = 0
        self.ring_full = 0
        self.longest_call = 0
        self.errnos: dict[int, int] = {}
        self.lateness = lateness.Lateness()
        self.timer = lateness.Lateness()
        self.machine = quality.Machine.now()
        self.t0 = time.monotonic_ns()
        self.schedule = _schedule(wanted, self.t0)
        table = records.sent_table([flow.flow for flow in wanted.flows], self.schedule.rate_mhz)
        self.writer = recordfile.RecordWriter(
            *(wanted.record, recordfile.KIND_SENT, records.SPAN.size, wanted.capacity, "udp_send"),
            table=table,
        )
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
        if number <= 0:
            return
        woken = now - self.deadline()
        self.timer.add(woken, woken, 1)
        if number > self.catch_up:
            self._skip(number - self.catch_up)
            number = self.catch_up
        self._not_before = now + QUANTUM_NS if number > slots.BATCH else 0
        self._send(min(number, slots.BATCH))

    def _skip(self, number: int) -> None:
        self.not_sent += number
        if self.schedule.rate_mhz:
            self._note(records.STATUS_NOT_SENT, number, self.schedule.due(self.next))
            return
        for _ in range(number):
            self._note(records.STATUS_NOT_SENT, 1, self.schedule.due(self.next))

    def _send(self, number: int) -> None:
        now = time.monotonic_ns()
        first = self.next
        done = self.ring.send(first, number, now, self._ports(first, number))
        self._last = time.monotonic_ns()
        self.longest_call = max(self.longest_call, self._last - now)
        if done.taken:
            due = self.schedule.due
            self.lateness.add(now - due(first), now - due(first + done.taken - 1), done.taken)
            self.sent += done.taken
            self._note(records.STATUS_SENT, done.taken, now)
        left = number - done.taken
        if left and done.errno:
            self.errnos[done.errno] = self.errnos.get(done.errno, 0) + left
            self._note(records.STATUS_FAILED | done.errno << 8, left, now)
        elif left:  # no room: they remain due
            self.ring_full += 1
            self._not_before = now + QUANTUM_NS

    def _ports(self, first: int, number: int) -> bytes:
        """Return the source ports of packets that have one each, as on the wire."""
        if self.wanted.fresh_ports is None:
            return b""
        low, count = self.wanted.fresh_ports
        ports = array("H", [low + k % count for k in range(first, first + number)])
        if sys.byteorder == "little":
            ports.byteswap()
        return ports.tobytes()

    def _note(self, status: int, number: int, ns: int) -> None:
        """Record the fate of the next packets."""
        self.writer.append(records.SPAN.pack(status, number, self.next, ns), 1)
        self.next += number

    def close(self) -> dict[str, Any]:
        """End the run; return the sender's report on itself."""
        self.ring.close()
        self.writer.close()
        # By the clock, not by the plan: who falls behind all the time has not held the rate.
        late_after = int(self.wanted.late_ms * 1e6) + self.quantum
        took = (self._last - self.t0 - late_after) / control.SECOND
        planned = (self.schedule.due(self.next) - self.t0) / control.SECOND
        seconds = max(planned, took)
        return {
            "trial": self.wanted.trial,
            "offered_pps": self.wanted.rate_pps,
            "achieved_pps": self.sent / seconds if seconds else 0.0,
            "t0_ns": self.t0,
            "seconds": seconds,
            "pace": planned / seconds if seconds else 1.0,
            "planned": self.next,
            "sent": self.sent,
            "not_sent": self.not_sent,
            "failed": {os.strerror(code): n for code, n in sorted(self.errnos.items())},
            "ring_full": self.ring_full,
            "late": self.lateness.beyond(late_after),
            "late_threshold_ms": late_after / 1e6,
            "lateness_ms": _milliseconds(self.lateness),
            "timer_error_ms": _milliseconds(self.timer),
            "longest_send_call_ms": self.longest_call / 1e6,
            "realtime_refused": self.realtime_refused,
            **self.machine.since(),
        }


def _milliseconds(found: lateness.Lateness) -> dict[str, float]:
    return {
        "p50": found.percentile(0.5) / 1e6,
        "p99": found.percentile(0.99) / 1e6,
        "max": found.most / 1e6,
    }


def _schedule(wanted: profile.UdpProfile, t0: int) -> schedule.Due:
    if wanted.distribution is profile.Distribution.POISSON:
        return schedule.Poisson(t0, wanted.rate_pps, wanted.seed)
    return schedule.Schedule.at_rate(t0, wanted.rate_pps)


def _quantum(wanted: profile.UdpProfile) -> int:
    """Return how often the sender wakes, in nanoseconds; 0: for every packet."""
    if wanted.quantum_ms is not None:
        return round(wanted.quantum_ms * 1e6)
    return 0 if wanted.rate_pps <= SINGLE_UP_TO_PPS else QUANTUM_NS


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
