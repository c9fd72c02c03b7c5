"""Probes and hooks for real: sockets on loopback, programs, timers; nothing waits for another."""

import contextlib
import math
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from kproxy.controlplane import probesockets
from kproxy.controlplane.access.pki import Authority
from kproxy.controlplane.actions import OUTPUT_ROOM, Action, Actions, Connect, Get, Run, Sleep
from kproxy.controlplane.fakeruntime import FakeRuntime
from kproxy.controlplane.probesockets import Outcome, request
from kproxy.controlplane.runtime import ContainerSpec, Streams

PATIENCE = 60.0


class Bench:
    """Does actions as a kubelet's loop would."""

    def __init__(self) -> None:
        self.runtime = FakeRuntime()
        self.actions = Actions(self.runtime)
        self.now: Callable[[], float] = time.monotonic

    def outcome(self, *actions: Action, timeout: float = PATIENCE) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        for number, action in enumerate(actions):
            self.begin(action, timeout, lambda outcome, now, n=number: found.update({n: outcome}))
        self.until(lambda: len(found) == len(actions))
        return [found[number] for number in range(len(actions))]

    def begin(self, action: Action, timeout: float, done: Callable[[Outcome, float], None]) -> int:
        return self.actions.begin(action, now=self.now(), timeout=timeout, done=done)

    def until(self, accept: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not accept():
            assert time.monotonic() < deadline
            now = self.now()
            self.actions.advance(now)
            due = self.actions.due()
            wait = PATIENCE if due is None else max(due - now, 0)
            if not accept():
                select.select([self.actions], [], [], wait)

    def close(self) -> None:
        self.actions.close()
        self.runtime.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


class Clock:
    """A time that goes on only when it is told to: a slow machine is not late."""

    def __init__(self, bench: Bench) -> None:
        self.time = 100.0
        self._bench = bench
        bench.now = lambda: self.time

    def on(self) -> None:
        """Go on to what is due next."""
        self.time = max(self.time, self._bench.actions.due() or self.time)


class Answering:
    """A server that reads a request and sends what it is told to, in a thread."""

    def __init__(
        self, answer: bytes, *, context: ssl.SSLContext | None = None, keep=False
    ) -> None:
        self.requests: list[bytes] = []
        self._answer, self._context, self._keep = answer, context, keep
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._kept: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            data = connection.recv(65536)
            if data == b"stop":
                connection.close()
                return
            self.requests.append(data)
            connection.sendall(self._answer)
            self._kept.append(connection)
            if not self._keep:
                connection.close()

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            client: socket.socket = sock
            if self._context:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                client = context.wrap_socket(sock)
            client.sendall(b"stop")
            self._thread.join()
            client.close()
        for one in self._kept:
            one.close()
        self._listener.close()


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    made: list[Answering] = []

    def make(answer: bytes, **options) -> Answering:
        made.append(Answering(answer, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def get(server: Answering, **fields) -> Get:
    return Get(host="127.0.0.1", port=server.port, **fields)


def test_a_connection_that_opens_is_success_and_a_refused_one_is_not(bench):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        good = Connect(host="127.0.0.1", port=port)
        assert bench.outcome(good) == [Outcome(success=True)]
    (refused,) = bench.outcome(good)
    assert not refused.success
    assert "refused" in refused.message


@pytest.mark.parametrize(
    ("status", "success"),
    [
        (200, True),
        (204, True),
        (302, True),
        (199, False),
        (400, False),
        (404, False),
        (500, False),
        (503, False),
    ],
)
def test_the_status_decides(bench, answering, status, success):
    server = answering(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status)
    (found,) = bench.outcome(get(server))
    assert found.success is success
    assert success or found.message == f"HTTP probe failed with statuscode: {status}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000,
    ],
)
def test_answers_of_all_kinds_are_understood(bench, answering, answer):
    assert bench.outcome(get(answering(answer))) == [Outcome(success=True)]


def test_an_answer_of_known_length_is_not_awaited_longer(bench, answering):
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", keep=True)
    assert bench.outcome(get(server), timeout=math.inf) == [Outcome(success=True)]


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_is_a_failure(bench, answering, answer):
    (found,) = bench.outcome(get(answering(answer)))
    assert not found.success


def test_what_is_asked(bench, answering):
    server = answering(b"HTTP/1.1 200 OK\r\n\r\n")
    bench.outcome(get(server, path="ready?x=1", headers=(("Host", "shop"), ("X-A", "b"))))
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /ready?x=1 HTTP/1.1"
    assert "host: shop" in lines
    assert "x-a: b" in lines
    assert "user-agent: kube-probe/kproxy" in lines
    assert request("fd00::1", 80, "/", ()).split(b"\r\n")[1] == b"host: [fd00::1]:80"


def test_over_tls_any_certificate_is_taken(bench, answering, tmp_path):
    pair = Authority.make().server("x", ["192.0.2.1"])
    certificate, key = pair.save(tmp_path, "x")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", context=context)
    assert bench.outcome(get(server, tls=True)) == [Outcome(success=True)]


def test_plain_text_is_no_tls(bench, answering):
    server = answering(b"HTTP/1.1 200 OK\r\n\r\n")
    (found,) = bench.outcome(get(server, tls=True))
    assert not found.success


def test_a_silent_server_costs_its_own_probe_only(bench, answering):
    silent = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", keep=True)
    quick = answering(b"HTTP/1.1 200 OK\r\n\r\n")
    order: list[str] = []
    clock = Clock(bench)
    bench.begin(get(silent), 0.3, lambda outcome, now: order.append(outcome.message))
    bench.begin(get(quick), PATIENCE, lambda outcome, now: order.append("quick"))
    bench.until(lambda: order == ["quick"])
    clock.on()
    bench.until(lambda: len(order) == 2)
    assert order == ["quick", "timed out after 0.3 s"]


def test_sleeping_succeeds_unless_time_is_up_first(bench):
    clock = Clock(bench)
    found: list[bool] = []
    for seconds in (0.01, 60):
        bench.begin(Sleep(seconds=seconds), 0.05, lambda outcome, _: found.append(outcome.success))
    clock.on()
    bench.until(lambda: len(found) == 1)
    assert found == [True]
    clock.on()
    bench.until(lambda: len(found) == 2)
    assert found == [True, False]


def test_a_program_ends_well_badly_or_too_late(bench):
    sandbox = bench.runtime.run_sandbox(uid="u", namespace="n", name="p", host_network=False)
    spec = ContainerSpec(name="c", command=("x",))
    codes = {"good": 0, "bad": 3, "killed": -9, "slow": None}
    bench.runtime.execute = lambda command: codes[command[0]]
    runs = [Run(sandbox=sandbox, spec=spec, command=(name,)) for name in codes]
    clock = Clock(bench)
    told: dict[int, Outcome] = {}
    for number, run in enumerate(runs):
        bench.begin(run, 0.05, lambda outcome, _, n=number: told.update({n: outcome}))
    bench.until(lambda: len(told) == 3)
    clock.on()
    bench.until(lambda: len(told) == 4)
    found = [told[number] for number in range(4)]
    assert [one.message for one in found] == [
        "",
        "exit code 3",
        "signal 9",
        "timed out after 0.05 s",
    ]
    assert [one.success for one in found] == [True, False, False, False]


def test_what_cannot_even_begin_has_failed(bench):
    bench.runtime.refuse = {"exec"}
    sandbox = bench.runtime.run_sandbox(uid="u", namespace="n", name="p", host_network=False)
    run = Run(sandbox=sandbox, spec=ContainerSpec(name="c", command=()), command=("x",))
    unreachable = Connect(host="not-an-address", port=1)
    found = bench.outcome(run, unreachable)
    assert [one.success for one in found] == [False, False]
    assert "refused" in found[0].message


def test_what_is_cancelled_is_not_told(bench):
    told: list[Outcome] = []
    number = bench.begin(Sleep(seconds=0), PATIENCE, lambda outcome, now: told.append(outcome))
    bench.actions.cancel(number)
    bench.actions.cancel(number)
    bench.outcome(Sleep(seconds=0.02))
    assert told == []
    assert bench.actions.due() is None


@pytest.mark.parametrize(
    ("host", "port"), [("name.example", 80), ("..", 80), ("", 80), ("127.0.0.1", 70000)]
)
def test_names_are_not_looked_up_and_nonsense_is_refused(bench, monkeypatch, host, port):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: pytest.fail("it was looked up"))
    (found,) = bench.outcome(Connect(host=host, port=port))
    assert not found.success
    assert "is no " in found.message


def test_this_machine_has_a_name_all_the_same(bench):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = Connect(host="localhost", port=listener.getsockname()[1])
        assert bench.outcome(there) == [Outcome(success=True)]


def test_a_handshake_that_loses_its_socket_has_failed(bench, answering, monkeypatch):
    """As happens where the connection is reset just then."""

    def lost(sock: socket.socket):
        sock.close()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(probesockets, "_wrapped", lost)
    (found,) = bench.outcome(get(answering(b""), tls=True))
    assert "reset" in found.message


class Writing:
    """A program that writes on and on."""

    def __init__(self, streams: Streams) -> None:
        self.written = 0
        self._out = os.dup(streams.stdout)
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self.thread = threading.Thread(target=self._write)
        self.thread.start()

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            while self.written < 2 * OUTPUT_ROOM:
                self.written += os.write(self._out, b"y\n" * 8192)
        os.close(self._out)

    def fileno(self) -> int:
        return self._end

    def poll(self) -> int | None:
        return None

    def kill(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._end)


def test_a_program_that_writes_without_end_is_stopped_by_its_time(bench):
    made: list[Writing] = []

    def execute(sandbox, spec, command, streams):
        made.append(Writing(streams))
        return made[-1]

    bench.runtime.exec = execute
    sandbox = bench.runtime.run_sandbox(uid="u", namespace="n", name="p", host_network=False)
    run = Run(sandbox=sandbox, spec=ContainerSpec(name="c", command=()), command=("yes",))
    began = time.monotonic()
    bench.now = lambda: began + (1.0 if made and made[0].written >= OUTPUT_ROOM else 0.0)
    (found,) = bench.outcome(run, timeout=1.0)
    assert found.message == "timed out after 1 s"
    made[0].thread.join(PATIENCE)
    assert OUTPUT_ROOM <= made[0].written < OUTPUT_ROOM + 1024 * 1024
