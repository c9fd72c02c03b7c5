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
from typing import Any

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import profile, recordfile, records
from kproxy.traffic.remote import channel, clockoffset, messages
from kproxy.traffic.remote.channel import Channel
from kproxy.traffic.remote.generator import Generator
from kproxy.traffic.remote.terms import Attention, Mark, Stream, Taken

CLOCK_EXCHANGES = 64
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

    def count(self) -> int:
        """Return how many packets have arrived there."""
        self.line.send(do="count")
        return messages.whole(self.line.expect("count"), "packets")

    def fetch(self) -> tuple[str, dict[str, Any]]:
        """End the recording; return the path of its records, and what it says of itself."""
        self.line.send(do="stop")
        said = self.line.expect("stopped", _DATA_SECONDS)
        size = messages.whole(said, "size", low=recordfile.HEADER_SIZE, high=MOST_BYTES)
        fd, path = channel.fresh_file("kproxy-received")
        os.ftruncate(fd, size)
        digest, at, packed = hashlib.sha256(), 0, b""
        while (piece := self.line.receive(_DATA_SECONDS)).get("event") == "data":
            packed += base64.b64decode(str(piece.get("z")))
            if not piece.get("last"):
                continue
            data = zlib.decompress(packed)
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
        return path, {name: said.get(name) for name in ("packets", "drops", "overflow")}


@dataclass(slots=True)
class _Progress:
    """How far a run is."""

    sent: int = 0
    received: int = 0
    marks: list[Mark] = field(default_factory=list)
    cut: str = ""
    report: dict[str, Any] | None = None


def one_way(
    stream: Stream,
    interface: str,
    flows: Sequence[profile.UdpFlow],
    joined: Joined,
    attention: Attention,
) -> Taken:
    """Send a stream to a receiver, and return what both ends recorded.

    ``flows`` are the finished frames. MeasurementError: something broke on the way.
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
        progress = _Progress()
        _run(generator, joined, attention, progress, started)
        ended = time.monotonic_ns()
        _drain(joined, progress, stream.tmax_s)
    after = joined.clock()
    path, said = joined.fetch()
    received, state = records.received_array(path, trial)
    assert progress.report is not None
    return Taken(
        stream=stream,
        trial=trial,
        sent=records.sent_array(generator.record),
        received=received,
        state=state,
        report=progress.report,
        started_ns=started,
        watched_until_ns=max(time.monotonic_ns(), ended + round(stream.tmax_s * 1e9) + 1),
        clocks=clockoffset.Clocks(before=before, after=None if joined.same_clock else after),
        marks=tuple(progress.marks),
        receiver={**joined.welcome, **said},
        cut=progress.cut,
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


def _run(
    generator: Generator,
    joined: Joined,
    attention: Attention,
    progress: _Progress,
    started: int,
) -> None:
    """Watch a run until the generator has stopped; a beat tells the receiver that we live."""
    beat = time.monotonic() + _BEAT_SECONDS
    while progress.report is None:
        watched: list[Any] = [generator, *attention.fds]
        readable, _, _ = select.select(watched, [], [], max(0.0, beat - time.monotonic()))
        if any(fd in readable for fd in attention.fds):
            marks, end = attention.read()
            progress.marks += marks
            if end and not progress.cut:
                progress.cut = "ended by the user"
                generator.tell("stop")
        if generator in readable:
            for said in generator.said():
                if said["event"] == "mark":
                    progress.sent = int(said["sent"])
                elif said["event"] == "stopped":
                    progress.report = said["report"]
                    progress.sent = int(said["report"]["sent"])
        if time.monotonic() >= beat:
            beat = time.monotonic() + _BEAT_SECONDS
            progress.received = joined.count()
            attention.show(progress.sent, progress.received, (time.monotonic_ns() - started) / 1e9)
            if progress.report is None:
                generator.tell("mark", name="beat")


def _drain(joined: Joined, progress: _Progress, tmax_s: float) -> None:
    """Wait until all have arrived, or Tmax is over."""
    deadline = time.monotonic() + tmax_s
    while (arrived := joined.count()) < progress.sent:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(left, _BEAT_SECONDS / 5))
    progress.received = arrived
