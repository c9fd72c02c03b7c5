"""Sends where nobody receives, and waits for answers: round-trip loss (RFC 6673) and times.

Works with any server: an echo, a name server, whatever accepts TCP connections, a host that
answers pings. What was lost, the question or the answer, is not known then.
"""

import os
import secrets
import select
import time
from array import array
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from kproxy.traffic import records, schedule
from kproxy.traffic.remote import probes, terms
from kproxy.traffic.remote.probes import Key
from kproxy.traffic.remote.terms import Attention, Mark, Stream, Taken

if TYPE_CHECKING:
    from kproxy.traffic.remote.terms import Array

MOST_PACKETS = 5_000_000
FASTEST_PPS = 20_000.0
"""One process does everything here; more needs a receiver."""
_BEAT_NS = 500_000_000
_BURST = 64
LATE_NS = 1_000_000


class _Records:
    """What was sent and what was answered, as columns of numbers."""

    def __init__(self) -> None:
        self._sent = {name: array("q") for name, _ in records.SENT_FIELDS}
        self._received = {name: array("q") for name, _ in records.RECEIVED_FIELDS}

    def note_sent(self, flow: int, seq: int, ns: int, code: int) -> None:
        status = records.STATUS_FAILED if code else records.STATUS_SENT
        for column, value in zip(self._sent.values(), (flow, seq, ns, status, code), strict=True):
            column.append(value)

    def note_answer(self, key: Key, sent_ns: int, now: int) -> None:
        for column, value in zip(self._received.values(), (*key, sent_ns, now), strict=True):
            column.append(value)

    def sent(self) -> "Array":
        return _joined(self._sent, records.SENT_FIELDS)

    def received(self) -> "Array":
        return _joined(self._received, records.RECEIVED_FIELDS)


def _joined(columns: "dict[str, array[int]]", fields: list[tuple[str, str]]) -> "Array":
    import numpy as np

    found = np.empty(len(columns["flow"]), fields)
    for name, column in columns.items():
        found[name] = column
    return found


class Run:
    """One run. ``prober`` is closed with it."""

    def __init__(self, stream: Stream, prober: probes.Prober, trial: int) -> None:
        self.stream = stream
        self.trial = trial
        self._prober = prober
        self.total = MOST_PACKETS if stream.packets is None else stream.packets
        self._records = _Records()
        self._tmax = round(stream.tmax_s * 1e9)
        self._waiting: dict[Key, int] = {}
        self._order: deque[tuple[int, Key]] = deque()
        self._outcomes: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._lateness: list[int] = []
        self._longest = 0
        self.next = 0
        self.sent = 0
        self.answered = 0
        self.t0 = self._last = time.monotonic_ns()
        self._schedule = schedule.Schedule.at_rate(self.t0, stream.rate_pps)

    def watch(self, attention: Attention) -> Taken:
        """Send, and take answers until Tmax after the last packet or until all have come."""
        marks: list[Mark] = []
        cut, beat = "", self.t0 + _BEAT_NS
        while True:
            now = time.monotonic_ns()
            sending = self.next < self.total and not cut
            if not sending and (not self._waiting or now >= self._last + self._tmax):
                break
            due = self._schedule.due(self.next) if sending else self._last + self._tmax
            if self._wait(min(due, beat), attention):
                new, end = attention.read()
                marks += new
                cut = cut or ("ended by the user" if end else "")
            if sending and not cut:
                self._send_due()
            now = time.monotonic_ns()
            self._expire(now)
            if now >= beat:
                beat = now + _BEAT_NS
                attention.show(self.sent, self.answered, (now - self.t0) / 1e9)
        if self.stream.packets is None and not cut and self.next >= self.total:
            cut = f"ended after {self.total:,} probes, the most of one run"
        state = records.ReceiverState("", 0, self._prober.drops(), 0, self._prober.clock_error_ns)
        self._prober.close()
        return self._taken(tuple(marks), cut, state)

    def _wait(self, until: int, attention: Attention) -> bool:
        """Take answers until then; return whether the user wants something."""
        reads: list[Any] = [*attention.fds, self._prober]
        timeout = max(0, until - time.monotonic_ns()) / 1e9
        readable, _, _ = select.select(reads, [], [], timeout)
        if self._prober in readable:
            self._take()
        return any(fd in readable for fd in attention.fds)

    def _take(self) -> None:
        for what, ns in self._prober.answers():
            if isinstance(what, str):
                self._outcomes[what] += 1
                continue
            sent_ns = self._waiting.pop(what, None)
            # Of an answer that comes again, when it was sent does not matter any more.
            self._records.note_answer(what, sent_ns or ns, ns)
            self.answered += sent_ns is not None

    def _send_due(self) -> None:
        now = time.monotonic_ns()
        number = min(self._schedule.due_by(now), self.total) - self.next
        for _ in range(min(number, _BURST)):
            seq, flow = divmod(self.next, self.stream.flows)
            before = self._last = time.monotonic_ns()
            self._lateness.append(before - self._schedule.due(self.next))
            code = self._prober.send(flow, seq, before)
            self._longest = max(self._longest, time.monotonic_ns() - before)
            self.next += 1
            if code:
                self._failed[os.strerror(code)] += 1
            else:
                self.sent += 1
                self._waiting[flow, seq] = before
                self._order.append((before, (flow, seq)))
            self._records.note_sent(flow, seq, before, code)

    def _expire(self, now: int) -> None:
        while self._order and self._order[0][0] + self._tmax < now:
            _, key = self._order.popleft()
            if self._waiting.pop(key, None) is not None:
                self._prober.expire(*key)

    def _taken(self, marks: tuple[Mark, ...], cut: str, state: records.ReceiverState) -> Taken:
        now = time.monotonic_ns()
        ordered = sorted(self._lateness)

        def share(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e6 if ordered else 0

        seconds = max(self._schedule.seconds(self.next), (self._last - self.t0) / 1e9)
        report = {
            "offered_pps": self.stream.rate_pps,
            "achieved_pps": self.sent / seconds if seconds else 0.0,
            "planned": self.next,
            "sent": self.sent,
            "not_sent": 0,
            "failed": dict(self._failed),
            "late": sum(1 for one in ordered if one > LATE_NS),
            "late_threshold_ms": LATE_NS / 1e6,
            "lateness_ms": {"p50": share(0.5), "p99": share(0.99), "max": share(1.0)},
            "longest_send_call_ms": self._longest / 1e6,
        }
        return Taken(
            stream=self.stream,
            trial=self.trial,
            sent=self._records.sent(),
            received=self._records.received(),
            state=state,
            report=report,
            started_ns=self.t0,
            watched_until_ns=max(now, self._last + self._tmax + 1),
            marks=marks,
            outcomes=dict(self._outcomes),
            cut=cut,
        )


def measure(
    kind: terms.Probe, stream: Stream, interface: str, query: str, attention: Attention
) -> Taken:
    """Measure round trips to a server. UsageError, MeasurementError."""
    trial = secrets.randbits(31)
    return Run(stream, probes.opened(kind, stream, interface, trial, query), trial).watch(
        attention
    )
