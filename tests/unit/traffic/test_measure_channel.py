"""Sender and receiver of a measurement: who is let in, what is refused, what is handed over."""

import socket

import pytest
import remote_pair
from remote_pair import TOKEN

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import records, wire
from kproxy.traffic.remote import channel, messages
from kproxy.traffic.remote.sender import Joined
from netns.wait import wait_until


def arrived(joined: Joined, number: int) -> None:
    wait_until(lambda: joined.count() >= number, 60, f"{number} packets", interval=0.01)


def finish(ends: remote_pair.Ends) -> None:
    """Let the receiver end by a run that is in order."""
    with ends.connect() as line:
        joined = Joined(line, TOKEN)
        joined.start(1, 1, 1.0)
        joined.fetch()


def test_records_come_over_as_they_were_written() -> None:
    with remote_pair.receiver() as ends, ends.connect() as line:
        joined = Joined(line, TOKEN)
        joined.start(7, 500, 1000.0)
        remote_pair.send_probes(ends.port, 7, range(500))
        remote_pair.send_probes(ends.port, 8, range(3))  # of another trial
        arrived(joined, 503)
        path, said = joined.fetch()
        found, state = records.received_array(path, 7)
    assert said == {"packets": 503, "drops": 0, "overflow": 0, "unstamped": 0}
    assert found["seq"].tolist() == list(range(500))
    assert found["sent_ns"].tolist() == list(range(1, 501))
    assert state.pod == "far"


def test_who_reads_the_same_clock_needs_no_exchange() -> None:
    with remote_pair.receiver() as ends, ends.connect() as line:
        joined = Joined(line, TOKEN)
        assert joined.same_clock
        joined.same_clock = False
        found = joined.clock()
        assert abs(found.offset_ns) <= found.error_ns
        assert found.exchanges == 64
        joined.start(1, 1, 1.0)
        joined.fetch()


def test_a_wrong_token_is_refused_and_never_sent() -> None:
    with remote_pair.receiver() as ends:
        with ends.connect() as line, pytest.raises(UsageError, match="does not know the token"):
            Joined(line, "another")
        with socket.create_connection(("127.0.0.1", ends.control)) as sock:
            assert TOKEN.encode() not in sock.recv(4096)
        finish(ends)
    assert any("does not know the token" in one for one in ends.said)


def test_a_receiver_that_does_not_know_the_token_is_a_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = channel.connect("127.0.0.1", server.getsockname()[1])
        far, _ = server.accept()
        with line, far:
            far.sendall(messages.pack(event="hello", format=messages.FORMAT, challenge="c"))
            far.sendall(messages.pack(event="welcome", proof="guessed", most_packets=5))
            with pytest.raises(UsageError, match="a stranger"):
                Joined(line, TOKEN)


def test_a_second_sender_is_turned_away_and_the_first_goes_on() -> None:
    with remote_pair.receiver() as ends, ends.connect() as line:
        joined = Joined(line, TOKEN)
        joined.start(1, 10, 1.0)
        with ends.connect() as other, pytest.raises(MeasurementError, match="another sender"):
            Joined(other, TOKEN)
        assert joined.count() == 0
        joined.fetch()


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "is not kproxy.measure/1"),
        (b'{"do": "hello", "format": "kproxy.measure/9"}\n', "speaks 'kproxy.measure/9'"),
        (b"x" * (messages.LONGEST_LINE + 70000), "too long"),
        (b"[1]\n", "is not kproxy.measure/1"),
        (b"[" * 60_000 + b"\n", "is not kproxy.measure/1"),
        (
            b'{"do": "hello", "format": "kproxy.measure/1", "proof": "\\ud800"}\n',
            "does not know the token",
        ),
    ],
)
def test_who_speaks_something_else_is_told_so(said: bytes, complaint: str) -> None:
    with remote_pair.receiver() as ends:
        with socket.create_connection(("127.0.0.1", ends.control)) as sock:
            sock.sendall(said)
            answer = b""
            while data := _read(sock):
                answer += data
        finish(ends)
    assert any(complaint in one for one in ends.said), ends.said


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096)
    except ConnectionResetError:  # it did not read to the end
        return b""


def test_more_packets_than_fit_are_refused_before_any_is_sent() -> None:
    with remote_pair.receiver(most_packets=100) as ends:
        with ends.connect() as line, pytest.raises(MeasurementError, match="more than the 100"):
            Joined(line, TOKEN).start(1, 101, 1.0)
        finish(ends)


@pytest.mark.parametrize("packets", [0, -1, 1.5, True, "9", None, 1 << 70])
def test_a_number_of_packets_that_is_none_is_named(packets: object) -> None:
    with remote_pair.receiver() as ends:
        with ends.connect() as line:
            Joined(line, TOKEN)
            line.send(do="start", trial=1, packets=packets, rate_pps=1)
            with pytest.raises(MeasurementError, match="packets: "):
                line.expect("started")
        finish(ends)


def test_nobody_listening_is_one_line_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UsageError, match=r"no receiver at 127\.0\.0\.1") as told:
        channel.connect("127.0.0.1", port)
    assert "kproxy measure receive" in told.value.remedy


def test_what_can_be_no_name_is_no_receiver() -> None:
    with pytest.raises(UsageError, match=r"no receiver at a\.\.b:1: "):
        channel.connect("a..b", 1)
    with pytest.raises(UsageError, match=r"cannot listen on a\.\.b port 1: "):
        channel.listen("a..b", 1)


def test_a_receiver_answers_nobody() -> None:
    """Whoever sends under another's address would have it send to that one."""
    with (
        remote_pair.receiver() as ends,
        ends.connect() as line,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        joined = Joined(line, TOKEN)
        joined.start(7, 10, 10.0)
        stranger.connect(("127.0.0.1", ends.port))
        stranger.send(b"no probe")
        stranger.send(wire.header(7, 0, flags=wire.FLAG_ECHO, seq=1, sent_ns=1))
        arrived(joined, 1)  # and so the one before has been seen, too
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(100)
        joined.fetch()


def test_packets_that_nobody_asks_for_any_more_are_told() -> None:
    with remote_pair.receiver() as ends:
        with ends.connect() as line:
            joined = Joined(line, TOKEN)
            joined.start(7, 10, 10.0)
            remote_pair.send_probes(ends.port, 7, range(3))
            arrived(joined, 3)
        finish(ends)
    assert any("3 packets had come; nobody has had them" in one for one in ends.said)
    assert sum("nobody has had them" in one for one in ends.said) == 1


def test_damaged_records_are_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = channel.connect("127.0.0.1", server.getsockname()[1])
        far, _ = server.accept()
        with line, far:
            joined = Joined.__new__(Joined)
            joined.line = line
            far.sendall(messages.pack(event="stopped", size=4096, packets=0, drops=0, overflow=0))
            far.sendall(messages.pack(event="end", bytes=0, sha256="wrong"))
            with pytest.raises(MeasurementError, match="damaged"):
                joined.fetch()
