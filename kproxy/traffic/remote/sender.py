"""The sending end: joins a receiver, compares clocks, sends, fetches what was recorded there."""

import base64
import hashlib
import os
import secrets
import select
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import profile, recordfile, records
from kproxy.traffic.hwstamp import Stamps
from kproxy.traffic.remote import channel, clockoffset, messages
from kproxy.traffic.remote.channel import Channel
from kproxy.traffic.remote.generator import Generator
from kproxy.traffic.remote.terms import Attention, Mark, Stream, Taken

if TYPE_CHECKING:
    from kproxy.traffic.remote.terms import Array

CLOCK_EXCHANGES = 64
SILENCE_SECONDS = 30.0
"""A network that fails may be that of the control channel, too: so long that is borne."""
_BEAT_SECONDS = 0.5
_DATA_SECONDS = 60.0
MOST_BYTES = 4 << 30
"""Of records that are fetched: what a receiver could make us keep."""


class Joined:
    """A receiver that has proved that it knows the token, as we have."""

    def __init__(self, line: Channel, token: str) -> None:
        self.line = line
        try:
            self.welcome = self._introduce(token)
        except channel.Closed:
            raise MeasurementError(
                f"{line.name} has closed the connection", remedy="look at what it says there"
            ) from None
        self.same_clock = self.welcome.get("clock") == channel.clock_identity()
        self._asked_at: float | None = None

    def _introduce(self, token: str) -> dict[str, Any]:
        hello = self.line.expect("hello")
        if hello.get("format") != messages.FORMAT:
            raise UsageError(
                f"{self.line.name} speaks {hello.get('format')!r}, this is {messages.FORMAT}",
                remedy="use the same kproxy on both hosts",
            )
        ours = secrets.token_hex(16)
        proof = messages.proof(token, str(hello.get("challenge")), messages.SENDER)
        self.line.send(do="hello", format=messages.FORMAT, proof=proof, challenge=ours)
        answer = self.line.receive()
        if answer.get("event") == "error":
            raise UsageError(
                f"{self.line.name} refuses: {answer.get('message')}",
                remedy="give the --token that it has printed",
            )
        if not messages.is_proof(answer.get("proof"), token, ours, messages.RECEIVER):
            raise UsageError(
                f"{self.line.name} does not know the token itself: a stranger",
                remedy="is it your `kproxy measure receive`?",
            )
        return answer

    def require(self, wanted: Stamps) -> None:
        """Raise UsageError unless arrivals are stamped there as is wanted here."""
        there = self.welcome.get("timestamps")
        if wanted is not Stamps.AUTO and there != wanted:
            raise UsageError(
                f"--timestamps {wanted}: {self.line.name} has {str(there)[:40]} stamps",
                remedy=f"`kproxy measure receive --timestamps {wanted}` there",
            )

    def clock(self) -> clockoffset.Offset:
        """Compare the clocks now."""
        if self.same_clock:
            return clockoffset.SAME
        found = []
        for _ in range(CLOCK_EXCHANGES):
            self.line.send(do="clock", ns=time.monotonic_ns())
            said = self.line.expect("clock")
            returned = time.monotonic_ns()
            sent, received, answered = (
                messages.whole(said, name) for name in ("ns", "received", "answered")
            )
            found.append(clockoffset.Exchange(sent, received, answered, returned))
        try:
            return clockoffset.estimate(found)
        except ValueError as error:
            raise MeasurementError(f"{self.line.name}: {error}") from None

    def start(self, trial: int, packets: int, rate_pps: float) -> None:
        """Have it record. MeasurementError: it refuses."""
        rate = max(1, round(rate_pps))
        self.line.send(do="start", trial=trial, packets=packets, rate_pps=rate)
        self.line.expect("started")

    def ask(self) -> None:
        """Ask how many packets have arrived there, unless an answer is still to come.

        MeasurementError: it has not come for too long.
        """
        now = time.monotonic()
        if self._asked_at is None:
            self.line.send(do="count")
            self._asked_at = now
        elif now > self._asked_at + SILENCE_SECONDS:
            raise MeasurementError(f"{self.line.name} is silent for {SILENCE_SECONDS:.0f} s")

    def told(self) -> int | None:
        """Return the answer to :meth:`ask`, if it has come."""
        said = self.line.line()
        return None if said is None else self._counted(said)

    def count(self) -> int:
        """Ask, and wait for the answer."""
        self.ask()
        return self._counted(self.line.receive(SILENCE_SECONDS))

    def _counted(self, said: dict[str, Any]) -> int:
        self._asked_at = None
        return messages.whole(self.line.checked(said, "count"), "packets")

    def fetch(self) -> tuple[str, dict[str, Any]]:
        """End the recording; return the path of its records, and what it says of itself."""
        self.line.send(do="stop")
        said = self.line.expect("stopped", _DATA_SECONDS)
        size = messages.whole(said, "size", low=recordfile.HEADER_SIZE, high=MOST_BYTES)
        fd, path = channel.fresh_file("kproxy-received")
        os.ftruncate(fd, size)
        digest, at, packed = hashlib.sha256(), 0, b""
        while (piece := self.line.receive(_DATA_SECONDS)).get("event") == "data":
            try:
                packed += base64.b64decode(str(piece.get("z")))
                if not piece.get("last"):
                    continue
                data = zlib.decompress(packed)
            except (ValueError, zlib.error):
                break
            packed = b""
            if at + len(data) > size:
                raise MeasurementError(f"{self.line.name} sends more records than it has said")
            os.pwrite(fd, data, at)
            digest.update(data)
            at += len(data)
        if piece.get("event") != "end" or piece.get("sha256") != digest.hexdigest():
            raise MeasurementError(
                f"{self.line.name}: its records came damaged: {str(piece)[:80]}"
            )
        if overflow := messages.whole(said, "overflow"):
            raise MeasurementError(
                f"{self.line.name} had no room for {overflow:,} packets, duplicates or others'"
            )
        told = ("packets", "drops", "overflow", "unstamped")
        return path, {name: messages.whole(said, name) for name in told}


def one_way(
    stream: Stream,
    interface: str,
    flows: Sequence[profile.UdpFlow],
    joined: Joined,
    attention: Attention,
) -> Taken:
    """Send a stream to a receiver, and return what both ends recorded.

    ``flows`` are the finished frames. MeasurementError: something broke before any was sent. A
    receiver that is lost later takes its half of the records with it: ``Taken.gone``.
    """
    trial = secrets.randbits(31)
    before = joined.clock()
    # Without end: as many as fit there.
    most = messages.whole(joined.welcome, "most_packets", low=1)
    packets = most if stream.packets is None else stream.packets
    joined.start(trial, packets, stream.rate_pps)
    with Generator() as generator:
        started = generator.start(
            _profile(stream, interface, flows, Path(generator.record), trial, packets)
        )
        run = _Run(generator, joined, attention, started)
        report = run.watch()
        ended = time.monotonic_ns()
        theirs = run.collected(trial, stream.tmax_s)
    if stream.packets is None and not run.cut:
        run.cut = f"ended after {packets:,} packets, the most that the receiver takes"
    return Taken(
        stream=stream,
        trial=trial,
        sent=records.sent_array(generator.record),
        received=theirs.received,
        state=theirs.state,
        report=report,
        started_ns=started,
        watched_until_ns=theirs.stopped_ns or ended + round(stream.tmax_s * 1e9) + 1,
        clocks=clockoffset.Clocks(before=before, after=theirs.clock),
        marks=tuple(run.marks),
        receiver={**joined.welcome, **theirs.said, "packets": run.received},
        cut=run.cut,
        gone=run.gone,
    )


def _profile(
    stream: Stream,
    interface: str,
    flows: Sequence[profile.UdpFlow],
    record: Path,
    trial: int,
    packets: int,
) -> profile.UdpProfile:
    return profile.UdpProfile(
        interface=interface,
        rate_pps=stream.rate_pps,
        flows=tuple(flows),
        record=record,
        trial=trial,
        duration_s=packets / stream.rate_pps,
        capacity=packets + 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Theirs:
    """The receiver's half, and what it says of itself.

    ``stopped_ns``: when it ended, if that was before Tmax after the last packet.
    """

    received: "Array"
    state: records.ReceiverState
    said: dict[str, Any] = field(default_factory=dict)
    clock: clockoffset.Offset | None = None
    stopped_ns: int | None = None


class _Run:
    """A run: the generator sends, the receiver counts, the user marks; all are listened to."""

    def __init__(
        self, generator: Generator, joined: Joined, attention: Attention, started: int
    ) -> None:
        self._generator = generator
        self._joined = joined
        self._attention = attention
        self._started = started
        self.sent = 0
        self.received = 0
        self.marks: list[Mark] = []
        self.cut = ""
        self.gone = ""

    def watch(self) -> dict[str, Any]:
        """Return the generator's report when it has stopped.

        A beat tells the receiver that we live, and us how far it is.
        """
        beat = time.monotonic() + _BEAT_SECONDS
        while True:
            watched: list[Any] = [self._generator, *self._attention.fds]
            watched += [] if self.gone else [self._joined.line]
            readable, _, _ = select.select(watched, [], [], max(0.0, beat - time.monotonic()))
            if any(fd in readable for fd in self._attention.fds):
                self._hear_user()
            if self._joined.line in readable:
                self._hear_receiver()
            if self._generator in readable and (report := self._hear_generator()) is not None:
                return report
            if time.monotonic() >= beat:
                beat = time.monotonic() + _BEAT_SECONDS
                self._beat()

    def _hear_user(self) -> None:
        marks, end = self._attention.read()
        self.marks += marks
        if end:
            self._end("ended by the user")

    def _end(self, why: str) -> None:
        if not self.cut:
            self.cut = why
            self._generator.tell("stop")

    def _hear_receiver(self) -> None:
        try:
            while (told := self._joined.told()) is not None:
                self.received = told
        except MeasurementError as error:
            self._lose(error)

    def _lose(self, error: MeasurementError) -> None:
        self.gone = error.message
        self._end("the receiver was lost")

    def _hear_generator(self) -> dict[str, Any] | None:
        report: dict[str, Any] | None = None
        for said in self._generator.said():
            if said["event"] == "mark":
                self.sent = int(said["sent"])
            elif said["event"] == "stopped" and said["report"] is not None:  # told twice: null
                report = said["report"]
                self.sent = int(said["report"]["sent"])
        return report

    def _beat(self) -> None:
        seconds = (time.monotonic_ns() - self._started) / 1e9
        self._attention.show(self.sent, self.received, seconds)
        self._generator.tell("mark", name="beat")
        if not self.gone:
            try:
                self._joined.ask()
            except MeasurementError as error:
                self._lose(error)

    def collected(self, trial: int, tmax_s: float) -> _Theirs:
        """Wait until all have arrived, or Tmax is over; return the receiver's half."""
        try:
            if not self.gone:
                return self._collected(trial, tmax_s)
        except MeasurementError as error:
            self.gone = error.message
        import numpy as np

        nothing = np.empty(0, records.RECEIVED_FIELDS)
        return _Theirs(received=nothing, state=records.ReceiverState("", 0, 0, 0, 0))

    def _collected(self, trial: int, tmax_s: float) -> _Theirs:
        waited = self._drain(tmax_s)
        stopped = time.monotonic_ns()
        after = self._joined.clock()
        path, said = self._joined.fetch()
        received, state = records.received_array(path, trial)
        return _Theirs(
            received=received,
            state=state,
            said=said,
            clock=None if self._joined.same_clock else after,
            # As many as were sent, but of some there are two: others may have been under way.
            stopped_ns=None if waited or _distinct(received) == self.sent else stopped,
        )

    def _drain(self, tmax_s: float) -> bool:
        """Wait until as many have arrived as were sent, or Tmax is over; return whether it is."""
        deadline = time.monotonic() + tmax_s
        while (arrived := self._joined.count()) != self.sent:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, _BEAT_SECONDS / 5))
        waited = arrived != self.sent
        self.received = arrived
        return waited


def _distinct(received: "Array") -> int:
    """Return how many different packets arrived."""
    import numpy as np

    return len(np.unique(received[["flow", "seq"]]))
