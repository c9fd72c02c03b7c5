"""Running programs in containers over a WebSocket, against the kubelet's side of it."""

import contextlib
import json
import os
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from wsproto import ConnectionType, WSConnection, events

from kproxy.client import podexec
from kproxy.client.kept import HEAD_MOST, TAIL_MOST
from kproxy.client.kubeconfig import Access
from kproxy.client.rest import Rest, Unreachable
from kproxy.controlplane import execstream
from kproxy.controlplane.podaccess import Running
from kproxy.errors import ApiError, KproxyError
from kproxy.lab.podexec import Beside
from netns.wait import wait_until

WHERE = ("kube-system", "proxy-1", "kube-proxy")
WITHIN = 60.0


class Here:
    """A host that is this one."""

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield


class Runtime:
    """Programs run beside this test."""

    def __init__(self) -> None:
        self.started: list[Beside] = []

    def exec(self, sandbox: Any, spec: Any, command: Sequence[str], streams: Any) -> Beside:
        host: Any = Here()
        one = Beside(host, command, streams, env=dict(os.environ), cwd="/")
        self.started.append(one)
        return one


class Server:
    """Answers one exec after the other, as kubelets do, or what it is told."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.answer = b""
        self.cuts = False
        self.messages: Iterator[events.Event] | None = None
        """Sent instead of what a kubelet does, until the client closes."""
        self.closed: list[events.CloseConnection] = []
        self.heads: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/prefix"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        text = head.decode()
        self.heads.append(text)
        if self.answer:
            connection.sendall(self.answer)
            return
        if self.cuts or self.messages is not None:
            socketed = WSConnection(ConnectionType.SERVER)
            socketed.receive_data(head)
            accepted = events.AcceptConnection(subprotocol=podexec.PROTOCOLS[0])
            connection.sendall(socketed.send(accepted))
            self._send_all(connection, socketed)
            return
        first, *lines = text.strip().split("\r\n")
        path = first.split()[1]
        pairs = [line.split(": ", 1) for line in lines]
        headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query, keep_blank_values=True)
        request = execstream.Request.parse(query)
        nothing: Any = None
        runtime: Any = self.runtime
        where = Running(sandbox=nothing, spec=nothing)
        execstream.serve(connection, path, headers, runtime, where, request)

    def _send_all(self, connection: socket.socket, socketed: WSConnection) -> None:
        for message in self.messages or ():
            connection.sendall(socketed.send(message))
        while self.messages is not None and (data := connection.recv(4096)):
            socketed.receive_data(data)
            found = [one for one in socketed.events() if isinstance(one, events.CloseConnection)]
            self.closed += found


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as server:
        yield server


@pytest.fixture
def rest(server: Server) -> Iterator[Rest]:
    with Rest(Access(server=server.url, token="t0ken")) as rest:
        yield rest


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_output_and_exit_code_come_back_apart(rest: Rest, server: Server) -> None:
    ran = podexec.run(rest, WHERE, sh("echo out; echo err >&2; exit 7"), WITHIN)
    assert ran == podexec.Ran(code=7, stdout="out\n", stderr="err\n")
    (head,) = server.heads
    first = head.split("\r\n")[0]
    assert first.startswith("GET /prefix/api/v1/namespaces/kube-system/pods/proxy-1/exec?")
    assert "container=kube-proxy" in first
    assert "authorization: bearer t0ken" in head.lower()


def test_much_output_comes_whole(rest: Rest) -> None:
    ran = podexec.run(rest, WHERE, sh("yes 0123456789abcde | head -c 1000000"), WITHIN)
    assert (ran.code, len(ran.stdout)) == (0, 1_000_000)


def test_of_a_long_output_head_and_tail_are_kept_and_what_is_missing_is_said(rest: Rest) -> None:
    told = 3 * HEAD_MOST
    text = f"printf begin; head -c {told - len('beginend')} /dev/zero | tr '\\0' x; printf end"
    ran = podexec.run(rest, WHERE, sh(f"{{ {text}; }} | tee /dev/stderr"), WITHIN)
    assert ran.code == 0
    for said in (ran.stdout, ran.stderr):
        head, missing, tail = said.partition(
            f"\n[{told - HEAD_MOST - TAIL_MOST} bytes are left out here]\n"
        )
        assert missing
        assert (len(head), head[:6]) == (HEAD_MOST, "beginx")
        assert (len(tail), tail[-4:]) == (TAIL_MOST, "xend")


def test_words_are_not_for_a_shell(rest: Rest) -> None:
    ran = podexec.run(rest, WHERE, ["printf", "%s|", "a b", "$(id)", "&c=d", ""], WITHIN)
    assert ran.stdout == "a b|$(id)|&c=d||"


def test_what_cannot_be_started_is_told(rest: Rest) -> None:
    with pytest.raises(ApiError, match="cannot start no-such-program"):
        podexec.run(rest, WHERE, ["no-such-program"], WITHIN)


def test_one_that_does_not_end_is_left_and_ends_with_the_connection(
    rest: Rest, server: Server
) -> None:
    with pytest.raises(podexec.ExecTimeout, match=r"no end within 0\.5 s"):
        podexec.run(rest, WHERE, ["sleep", "1000"], 0.5)
    (one,) = server.runtime.started
    wait_until(lambda: one.poll() is not None, WITHIN, "the program to end", interval=0.01)


def test_a_signal_is_told_as_shells_do(rest: Rest) -> None:
    assert podexec.run(rest, WHERE, sh("kill -9 $$"), WITHIN).code == 137


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (404, "NotFound")])
def test_a_refusal_is_the_servers(rest: Rest, server: Server, code: int, reason: str) -> None:
    status = {"kind": "Status", "code": code, "reason": reason, "message": "pods/exec: no"}
    body = json.dumps(status).encode()
    server.answer = f"HTTP/1.1 {code} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with pytest.raises(ApiError, match="pods/exec: no") as refused:
        podexec.run(rest, WHERE, ["true"], WITHIN)
    assert (refused.value.code, refused.value.reason) == (code, reason)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
    ],
)
def test_who_speaks_something_else_is_an_error_of_ours(
    rest: Rest, server: Server, answer: bytes
) -> None:
    server.answer = answer
    with pytest.raises(KproxyError):
        podexec.run(rest, WHERE, ["true"], WITHIN)


def test_a_connection_that_ends_after_the_program_was_let_in_says_so(
    rest: Rest, server: Server
) -> None:
    server.cuts = True
    with pytest.raises(podexec.ExecLost, match="the connection ended"):
        podexec.run(rest, WHERE, ["true"], WITHIN)


def test_a_message_without_end_is_refused(rest: Rest, server: Server) -> None:
    pieces = [b"\1" * 65536] * (podexec.MESSAGE_MOST // 65536) + [b"!"]
    server.messages = (events.BytesMessage(data=one, message_finished=False) for one in pieces)
    with pytest.raises(podexec.ExecLost, match=f"longer than {podexec.MESSAGE_MOST} bytes"):
        podexec.run(rest, WHERE, ["true"], WITHIN)
    wait_until(lambda: server.closed, WITHIN, "the reason to be told")
    (told,) = server.closed
    assert told.code == 1009
    assert told.reason == f"a message is longer than {podexec.MESSAGE_MOST} bytes"


def test_a_refusal_without_end_is_cut_off(rest: Rest, server: Server) -> None:
    length = 1000 * podexec.MESSAGE_MOST
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n\r\n".encode()
    server.answer = head + b"no" * podexec.MESSAGE_MOST
    with pytest.raises(ApiError) as refused:
        podexec.run(rest, WHERE, ["true"], WITHIN)
    assert refused.value.code == 403


def test_a_server_that_is_not_there(server: Server) -> None:
    server.close()
    with (
        Rest(Access(server="http://127.0.0.1:1")) as rest,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"),
    ):
        podexec.run(rest, WHERE, ["true"], WITHIN)
