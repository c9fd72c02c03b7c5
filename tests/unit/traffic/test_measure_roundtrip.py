"""Round trips to servers in this process: what is lost, answered twice, refused, marked."""

import contextlib
import errno
import itertools
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from kproxy.errors import UsageError
from kproxy.traffic.remote import outcome, probes, roundtrip
from kproxy.traffic.remote.terms import Mark, Probe, Stream, Taken

HERE = ip_address("127.0.0.1")
QUEUES = 16


class Nobody:
    """Attention of nobody; ends the run after so many looks, and marks then."""

    def __init__(self, marks: Sequence[Mark] = (), *, end: bool = False) -> None:
        self._given = list(marks)
        self._end = end
        self.shown: list[int] = []
        self._reader, self._writer = socket.socketpair()
        if marks or end:
            self._writer.send(b"!")

    @property
    def fds(self) -> Sequence[int]:
        return [self._reader.fileno()]

    def read(self) -> tuple[Sequence[Mark], bool]:
        self._reader.recv(16)
        return self._given, self._end

    def show(self, sent: int, received: int, seconds: float) -> None:
        self.shown.append(sent)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


@contextlib.contextmanager
def udp_server(answer: Callable[[bytes, int], Sequence[bytes]]) -> Iterator[int]:
    """Answer each datagram with what ``answer(data, number)`` returns.

    A machine that is slow delays datagrams, and loses none: there are queues for all of a test.
    """
    with contextlib.ExitStack() as stack:
        socks: list[socket.socket] = []
        for _ in range(QUEUES):
            sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(socks[0].getsockname() if socks else (str(HERE), 0))
            socks.append(sock)
        reader, writer = (stack.enter_context(end) for end in socket.socketpair())

        def serve() -> None:
            number = 0
            while reader not in (ready := select.select([reader, *socks], [], [])[0]):
                for sock in ready:
                    data, peer = sock.recvfrom(65536)
                    for one in answer(data, number):
                        sock.sendto(one, peer)
                    number += 1

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield socks[0].getsockname()[1]
        writer.send(b"!")
        thread.join(60)


def stream(port: int, **changes: Any) -> Stream:
    """Return 100 packets. Where none is lost the run ends long before Tmax, on any machine."""
    given = {"rate_pps": 500.0, "flows": 4, "seconds": 0.2, "tmax_s": 10.0, **changes}
    return Stream(destination=HERE, port=port, **given)


def measure(kind: Probe, wanted: Stream, attention: Nobody | None = None) -> Taken:
    attention = attention or Nobody()
    try:
        return roundtrip.measure(kind, wanted, "", "kubernetes.default", attention)
    finally:
        attention.close()


def found(taken: Taken) -> outcome.Outcome:
    return outcome.outcome(taken, "here", "echo")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a run for valid on a machine that is too busy to hold a rate."""
    monkeypatch.setattr(outcome, "MOST_LATE_MS", 60_000.0)


@pytest.mark.usefixtures("patient")
def test_every_echo_is_counted() -> None:
    with udp_server(lambda data, number: [data]) as port:
        result = found(measure(Probe.ECHO, stream(port)))
    measured = result.measurement
    assert (measured.sent, measured.received, measured.lost) == (100, 100, 0)
    assert (measured.duplicated, measured.strangers, measured.discarded) == (0, 0, 0)
    assert result.round_trip
    assert result.problems == ()
    assert measured.delay is not None
    assert measured.delay.min_ms >= 0


def test_lost_and_doubled_answers_are_counted() -> None:
    with udp_server(lambda data, number: [data] * (number % 5 and 1 + (number % 5 == 1))) as port:
        measured = found(measure(Probe.ECHO, stream(port, tmax_s=4))).measurement
    assert (measured.sent, measured.lost, measured.duplicated) == (100, 20, 20)


def test_answers_of_a_name_server_are_known_by_their_number() -> None:
    def answer(data: bytes, number: int) -> Sequence[bytes]:
        assert b"\x0akubernetes\x07default\x00\x00\x01\x00\x01" in data
        reply = data[:2] + bytes([data[2] | 0x80]) + data[3:]
        stranger = bytes([data[0] ^ 0x40]) + reply[1:]
        return [reply, stranger] if number == 0 else [reply] if number != 1 else [data]

    with udp_server(answer) as port:
        taken = measure(Probe.DNS, stream(port, tmax_s=4))
    measured = found(taken).measurement
    assert (measured.sent, measured.lost) == (100, 1)  # the one whose question came back
    assert taken.outcomes == {"other answers": 2}


def test_a_closed_port_is_told_as_refused() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((str(HERE), 0))
        port = sock.getsockname()[1]
    taken = measure(Probe.ECHO, stream(port, tmax_s=0.3))
    measured = found(taken).measurement
    assert (measured.sent, measured.lost) == (100, 100)
    assert taken.outcomes["refused"] > 0


def test_connections_are_counted_and_reset() -> None:
    with socket.create_server((str(HERE), 0), backlog=256) as server:
        taken = measure(Probe.TCP, stream(server.getsockname()[1]))
        far, _ = server.accept()
        with far, pytest.raises(ConnectionResetError):
            far.recv(1)
    assert found(taken).measurement.lost == 0
    taken = measure(Probe.TCP, stream(remote_closed_port(), tmax_s=4))
    assert taken.outcomes == {"refused": 100}
    assert found(taken).measurement.lost == 100


def test_there_may_be_more_sockets_than_select_takes() -> None:
    with udp_server(lambda data, number: [data]) as port:
        measured = found(measure(Probe.ECHO, stream(port, flows=1100, rate_pps=5500))).measurement
    assert (measured.sent, measured.lost) == (1100, 0)


def test_an_outage_may_leave_more_connections_open_than_select_takes() -> None:
    # Nobody accepts, so the queue is soon full; whoever comes then is not answered.
    with socket.create_server((str(HERE), 0), backlog=1) as server:
        wanted = stream(server.getsockname()[1], rate_pps=4000, seconds=0.4, tmax_s=0.5)
        measured = found(measure(Probe.TCP, wanted)).measurement
    assert measured.sent == 1600
    assert (measured.lost or 0) > 1500


def test_more_sockets_than_a_process_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 1024))
    with pytest.raises(UsageError, match="--flows 1000: that needs 1,000 sockets"):
        probes.opened(Probe.ECHO, stream(9, flows=1000), "", 1, "")
    with pytest.raises(UsageError, match="--rate 500 for --tmax 10"):
        probes.opened(Probe.TCP, stream(9, seconds=60), "", 1, "")


def test_answers_have_the_kernels_time_not_ours() -> None:
    with udp_server(lambda data, number: [data]) as port:
        prober = probes.opened(Probe.ECHO, stream(port, flows=1), "", 1, "")
        deadline = time.monotonic() + 60
        for seq in itertools.count():
            before = time.monotonic_ns()
            prober.send(0, seq, before)
            assert select.select([prober], [], [], 60)[0]
            after = time.monotonic_ns()
            time.sleep(0.01)  # it lies there: our clock goes on, the answer's time does not
            ((what, ns),) = prober.answers()
            assert what == (0, seq)
            assert before <= ns + prober.clock_error_ns
            if ns - prober.clock_error_ns <= after:
                break
            # A kernel begins to stamp arrivals some time after it was asked to.
            assert time.monotonic() < deadline
        assert prober.drops() == 0
        prober.close()


def remote_closed_port() -> int:
    with socket.create_server((str(HERE), 0)) as server:
        return int(server.getsockname()[1])


def test_ended_early_it_accounts_for_what_was_sent() -> None:
    attention = Nobody(end=True)
    with udp_server(lambda data, number: [data]) as port:
        taken = measure(Probe.ECHO, stream(port, seconds=60.0), attention)
    result = found(taken)
    assert result.cut == "ended by the user"
    assert result.measurement.sent is not None
    assert result.measurement.sent < 30_000
    assert result.measurement.lost == 0


def test_a_rate_that_is_not_held_makes_the_run_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """Takes its time for each."""

        clock_error_ns = 0

        def __init__(self) -> None:
            self._reader, self._writer = socket.socketpair()

        def fileno(self) -> int:
            return self._reader.fileno()

        def send(self, flow: int, seq: int, now: int) -> int:
            time.sleep(0.01)  # longer than the rate allows
            return errno.ENOBUFS

        def answers(self) -> Sequence[probes.Answer]:
            return []

        def expire(self, flow: int, seq: int) -> None:
            raise AssertionError("nothing was sent")

        def drops(self) -> int:
            return 3

        def close(self) -> None:
            self._reader.close()
            self._writer.close()

    monkeypatch.setattr(probes, "opened", lambda *asked: Slow())
    problems = found(measure(Probe.ECHO, stream(9, rate_pps=5000, seconds=0.01))).problems
    assert any("the sender does not hold the rate" in one for one in problems)
    assert any("the receiver's socket dropped 3 packets" in one for one in problems)


@pytest.mark.usefixtures("patient")
def test_a_mark_is_the_moment_that_counts() -> None:
    mark = Mark(name="mark 1", ns=10**18)
    with udp_server(lambda data, number: [data]) as port:
        result = found(measure(Probe.ECHO, stream(port), Nobody([mark])))
    assert [one.name for one in result.timeline] == ["first packet", "mark 1"]
    assert result.timeline[1].ms == 0
    assert result.measurement.failover_packet_loss == 0
    assert result.trial("").valid


@pytest.mark.parametrize("name", ["", ".", "a" * 64, "a." + "b" * 70])
def test_what_is_no_name_cannot_be_asked_for(name: str) -> None:
    with pytest.raises(UsageError, match="--query"):
        probes.opened(Probe.DNS, stream(53), "", 1, name)
