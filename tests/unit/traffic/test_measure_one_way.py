"""The sending end of a run: the end of the wait for packets, a receiver that is lost."""

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import card_clock
import pytest
import remote_pair
from remote_pair import TOKEN

from kproxy.cli import measure_table
from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import profile, recordfile, records
from kproxy.traffic.hwstamp import Stamps
from kproxy.traffic.remote import channel, messages, outcome, sender
from kproxy.traffic.remote.sender import Joined
from kproxy.traffic.remote.terms import Mark, Stream, Taken

PACKETS = 10
REPORT = {
    "sent": PACKETS,
    "late": 0,
    "late_threshold_ms": 1.0,
    "lateness_ms": {"p50": 0.0, "p99": 0.0, "max": 0.0},
    "failed": {},
}


class Generator:
    """Sends given numbers as an ordinary program, says that it sent ten, and ends when told to."""

    arrive: Sequence[int] = range(PACKETS)
    port = 0
    endless = False

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._record_fd, self.record = channel.fresh_file("sent")
        self.told: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def start(self, wanted: profile.UdpProfile) -> int:
        table = records.sent_table([0], 0)
        writer = recordfile.RecordWriter(
            self.record, recordfile.KIND_SENT, records.SPAN.size, PACKETS, "sender", table
        )
        began = time.monotonic_ns()
        for k in range(PACKETS):
            writer.append(records.SPAN.pack(records.STATUS_SENT, 1, k, began + k), 1)
        writer.close()
        for seq in self.arrive:
            remote_pair.send_probes(self.port, wanted.trial, range(seq, seq + 1))
        if not self.endless:
            self._say(event="stopped", report=REPORT)
        return began

    def tell(self, do: str, **fields: Any) -> None:
        self.told.append(do)
        if do == "stop":
            self._say(event="stopped", report=REPORT if self.endless else None)

    def said(self) -> list[dict[str, Any]]:
        lines = os.read(self._reader, 1 << 16).splitlines()
        return [json.loads(line) for line in lines]

    def _say(self, **said: Any) -> None:
        os.write(self._writer, json.dumps(said).encode() + b"\n")


class Nobody:
    """Attention of nobody, or of somebody who ends the run at once."""

    def __init__(self, *, end: bool = False) -> None:
        self._end = end
        self._reader, self._writer = os.pipe()
        if end:
            os.write(self._writer, b"!")

    @property
    def fds(self) -> Sequence[int]:
        return [self._reader]

    def read(self) -> tuple[Sequence[Mark], bool]:
        os.read(self._reader, 16)
        return [], self._end

    def show(self, sent: int, received: int, seconds: float) -> None:
        return


@pytest.fixture(autouse=True)
def generator(monkeypatch: pytest.MonkeyPatch) -> type[Generator]:
    class Fresh(Generator):
        """Of this test."""

    monkeypatch.setattr(sender, "Generator", Fresh)
    return Fresh


def one_way(joined: Joined, *, tmax_s: float, attention: Nobody | None = None) -> Taken:
    wanted = Stream(
        destination=ip_address("127.0.0.1"), port=9, rate_pps=10.0, seconds=1.0, flows=1,
        tmax_s=tmax_s,
    )  # fmt: skip
    return sender.one_way(wanted, "lo", (), joined, attention or Nobody())


def measured(arrive: Sequence[int], kind: type[Generator], tmax_s: float = 60.0) -> Taken:
    with remote_pair.receiver() as ends, ends.connect() as line:
        kind.arrive, kind.port = arrive, ends.port
        return one_way(Joined(line, TOKEN), tmax_s=tmax_s)


def test_when_all_have_come_nobody_waits_and_all_count(generator: type[Generator]) -> None:
    taken = measured(range(PACKETS), generator)
    assert taken.watched_until_ns > time.monotonic_ns() + 30_000_000_000
    found = outcome.outcome(taken, "here", "udp").measurement
    assert (found.sent, found.received, found.lost, found.discarded) == (PACKETS, PACKETS, 0, 0)


def test_a_duplicate_does_not_stand_for_a_packet_that_may_still_come(
    generator: type[Generator],
) -> None:
    """Ten have come, as were sent, but one of them twice: nobody knows of the other."""
    taken = measured([*range(PACKETS - 1), 0], generator)
    assert taken.watched_until_ns <= time.monotonic_ns()
    found = outcome.outcome(taken, "here", "udp").measurement
    assert (found.lost, found.discarded, found.duplicated) == (0, PACKETS, 1)


def test_more_than_were_sent_are_no_reason_to_stop_waiting(generator: type[Generator]) -> None:
    taken = measured([*range(PACKETS - 1), 0, 1], generator, tmax_s=2.0)
    found = outcome.outcome(taken, "here", "udp").measurement
    assert (found.lost, found.discarded, found.duplicated) == (1, 0, 2)


def test_an_end_that_comes_when_all_is_sent_changes_nothing(generator: type[Generator]) -> None:
    with remote_pair.receiver() as ends, ends.connect() as line:
        generator.port = ends.port
        taken = one_way(Joined(line, TOKEN), tmax_s=60.0, attention=Nobody(end=True))
    assert taken.report == REPORT
    assert len(taken.received) == PACKETS


def test_a_result_says_whose_stamps_it_has(generator: type[Generator]) -> None:
    found = outcome.outcome(measured(range(PACKETS), generator), "here", "udp")
    assert found.arrivals is not None
    assert (found.arrivals.timestamps, found.arrivals.unstamped) == ("software", 0)
    (line,) = (one for one in measure_table.lines(found) if "stamps" in one)
    assert line.startswith("receiver's stamps  software ± 0.0")


def test_what_a_card_has_not_stamped_makes_a_run_invalid(generator: type[Generator]) -> None:
    """Over loopback no card stamps anything; the times are right all the same."""
    card = card_clock.FixedCard()
    began = time.monotonic_ns()
    with remote_pair.receiver(card=card) as ends, ends.connect() as line:
        generator.port = ends.port
        joined = Joined(line, TOKEN)
        joined.require(Stamps.AUTO)
        joined.require(Stamps.HARDWARE)
        with pytest.raises(UsageError, match="has hardware stamps"):
            joined.require(Stamps.SOFTWARE)
        taken = one_way(joined, tmax_s=60.0)
    allowed = 3 * taken.state.clock_error_ns
    assert began - allowed <= taken.received["received_ns"].min()
    assert taken.received["received_ns"].max() <= time.monotonic_ns() + allowed
    found = outcome.outcome(taken, "here", "udp")
    assert (found.measurement.lost, found.arrivals) == (
        0, outcome.Arrivals(
            timestamps="hardware", error_ms=taken.state.clock_error_ns / 1e6, unstamped=PACKETS
        ),
    )  # fmt: skip
    assert found.problems == (
        "the receiver's card has not stamped 10 packets: their times are the kernel's",
    )


def test_a_receiver_without_card_is_told_to_have_one(generator: type[Generator]) -> None:
    with remote_pair.receiver() as ends, ends.connect() as line:
        generator.port = ends.port
        joined = Joined(line, TOKEN)
        with pytest.raises(UsageError, match="has software stamps") as told:
            joined.require(Stamps.HARDWARE)
        one_way(joined, tmax_s=60.0)
    assert "measure receive --timestamps hardware" in told.value.remedy


@contextlib.contextmanager
def far_end() -> Iterator[tuple[Joined, socket.socket]]:
    """A receiver that says what the test has it say."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = channel.connect("127.0.0.1", server.getsockname()[1])
        far, _ = server.accept()
        with line, far:
            far.sendall(messages.pack(event="hello", format=messages.FORMAT, challenge="c"))
            joined = Joined.__new__(Joined)
            joined.line, joined.same_clock, joined._asked_at = line, True, None
            joined.welcome = {"name": "far", "most_packets": 1000}
            line.expect("hello")
            far.sendall(messages.pack(event="started"))
            yield joined, far


def test_a_receiver_that_is_lost_leaves_the_senders_half(generator: type[Generator]) -> None:
    generator.endless, generator.arrive = True, ()
    with far_end() as (joined, far):
        far.sendall(messages.pack(event="count", packets=7))
        far.shutdown(socket.SHUT_WR)
        taken = one_way(joined, tmax_s=1.0)
    assert taken.cut == "the receiver was lost"
    assert len(taken.sent) == PACKETS
    found = outcome.outcome(taken, "here", "udp")
    assert (found.measurement.sent, found.measurement.lost) == (PACKETS, None)
    assert found.measurement.sender is not None
    (problem,) = found.problems
    assert "has closed the connection; 7 packets had arrived when it last told" in problem
    assert not found.trial("").valid
    lines = measure_table.lines(found)
    assert any(line.startswith("NOT VALID") for line in lines)
    assert not any(line.startswith("lost") for line in lines)


def test_records_that_come_damaged_are_none(generator: type[Generator]) -> None:
    generator.arrive = ()
    with far_end() as (joined, far):
        far.sendall(messages.pack(event="count", packets=PACKETS))
        far.sendall(messages.pack(event="stopped", size=4096, packets=0, drops=0, overflow=0))
        far.sendall(messages.pack(event="data", z="bm8gemxpYg==", last=True))
        taken = one_way(joined, tmax_s=1.0)
    assert "damaged" in taken.gone
    assert len(taken.sent) == PACKETS


def test_a_receiver_that_has_no_room_says_so(generator: type[Generator]) -> None:
    generator.arrive = ()
    with far_end() as (joined, far):
        far.sendall(messages.pack(event="count", packets=PACKETS))
        far.sendall(messages.pack(event="stopped", size=4096, packets=0, drops=0, overflow=3))
        far.sendall(messages.pack(event="end", bytes=0, sha256=hashlib.sha256().hexdigest()))
        taken = one_way(joined, tmax_s=1.0)
    assert "no room for 3 packets" in taken.gone


def test_a_question_is_asked_again_when_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with far_end() as (joined, far):
        joined.line.expect("started")
        joined.ask()
        joined.ask()
        assert joined.told() is None
        far.sendall(messages.pack(event="count", packets=3))
        assert joined.count() == 3
        far.settimeout(60)
        assert far.recv(1000) == messages.pack(do="count")
        joined.ask()
        monkeypatch.setattr(sender, "SILENCE_SECONDS", -1.0)
        with pytest.raises(MeasurementError, match="is silent for"):
            joined.ask()


def test_records_are_in_memory_only() -> None:
    _, path = channel.fresh_file("x")
    assert Path(path).exists()
    assert str(Path(path).resolve()).startswith("/memfd:")
