"""exec over WebSocket, as the kubelet's server speaks it."""

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kubelet_serving import PATIENCE, message, serving
from wsproto import ConnectionType, WSConnection, events

from kproxy.controlplane import execstream

__all__ = ["serving"]


@dataclass
class Exec:
    """A client of exec, as kubectl is one."""

    port: int
    query: str
    protocol: str = "v5.channel.k8s.io"
    output: dict[int, bytes] = field(default_factory=dict)
    closed: int = 0
    """The code with which the other side has closed."""
    _answered: bool = False
    _message: bytes = b""

    def __enter__(self) -> "Exec":
        self._sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        self._socketed = WSConnection(ConnectionType.CLIENT)
        target = f"/exec/default/a/c?{self.query}"
        self._send(events.Request(host="x", target=target, subprotocols=[self.protocol]))
        self.until(lambda: self._answered)
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def write(self, channel: int, data: bytes) -> None:
        self._send(events.BytesMessage(data=bytes([channel]) + data))

    def write_unfinished(self, data: bytes) -> None:
        self._send(events.BytesMessage(data=data, message_finished=False))

    def until(self, accept: Callable[[], bool]) -> None:
        while not accept():
            assert self._read(), self.output

    def status(self) -> dict:
        """Read to the end; return the final Status."""
        while self._read():
            pass
        return json.loads(self.output[3])

    def refused(self) -> tuple[int, str]:
        while self._read():
            pass
        return self.output[-1][0] + 256, self.output[-2].decode()

    def _send(self, event: events.Event) -> None:
        self._sock.sendall(self._socketed.send(event))

    def _read(self) -> bool:
        received = self._sock.recv(65536)
        self._socketed.receive_data(received or None)
        for event in self._socketed.events():
            if isinstance(event, (events.AcceptConnection, events.RejectConnection)):
                self._answered = True
            if isinstance(event, events.AcceptConnection):
                assert event.subprotocol == self.protocol
            elif isinstance(event, events.RejectConnection):
                self.output[-1] = bytes([event.status_code - 256])
            elif isinstance(event, events.CloseConnection):
                self.closed = event.code
            elif isinstance(event, events.RejectData):
                self.output[-2] = self.output.get(-2, b"") + bytes(event.data)
            elif isinstance(event, events.Message):
                self._message += bytes(event.data)
                if event.message_finished:
                    channel, data = self._message[0], self._message[1:]
                    self.output[channel] = self.output.get(channel, b"") + data
                    self._message = b""
        return bool(received)


def query(*command: str, **flags: str) -> str:
    words = [f"command={word}" for word in command]
    return "&".join([*words, *(f"{name}={value}" for name, value in flags.items())])


def script(text: str, **flags: str) -> str:
    return query("sh", "-c", text.replace(" ", "%20").replace("&", "%26"), **flags)


def test_output_error_output_and_exit_code(serving):
    wanted = script("echo $WHO; echo oh >&2; exit 3", stdout="true", stderr="true")
    with Exec(serving.port, wanted) as client:
        told = client.status()
    assert (client.output[1], client.output[2]) == (b"me\n", b"oh\n")
    assert (told["status"], told["reason"]) == ("Failure", "NonZeroExitCode")
    assert told["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


def test_success_and_the_names_that_kubelets_use(serving):
    with Exec(serving.port, query("true", output="1"), "v4.channel.k8s.io") as client:
        assert client.status() == {"metadata": {}, "status": "Success"}


def test_input_goes_through_and_its_end_too(serving):
    with Exec(serving.port, query("cat", stdin="true", stdout="true")) as client:
        client.write(0, b"hello ")
        client.until(lambda: client.output.get(1) == b"hello ")
        client.write(0, b"world")
        client.write(255, bytes([0]))
        assert client.status()["status"] == "Success"
    assert client.output[1] == b"hello world"


def test_much_input_and_output_do_not_block_each_other(serving):
    size = 4_000_000
    with Exec(serving.port, query("cat", stdin="true", stdout="true")) as client:
        writer = threading.Thread(
            target=lambda: (
                [client.write(0, b"x" * 100_000) for _ in range(size // 100_000)],
                client.write(255, bytes([0])),
            )
        )
        writer.start()
        assert client.status()["status"] == "Success"
        writer.join()
    assert len(client.output[1]) == size


def test_a_message_without_end_is_refused(serving):
    with Exec(serving.port, query("cat", stdin="true", stdout="true")) as client:
        for _ in range(execstream.MESSAGE_MOST // 65536):
            client.write_unfinished(b"\0" * 65536)
        client.write_unfinished(b"!")
        client.until(lambda: client.closed)
    assert client.closed == 1009


def test_a_terminal_of_the_clients_size(serving):
    wanted = script("test -t 0 && read x && stty size", stdin="true", stdout="true", tty="true")
    with Exec(serving.port, wanted) as client:
        client.write(4, b'{"Width": 101, "Height": 33}')
        client.write(0, b"go\n")
        assert client.status()["status"] == "Success"
    assert b"33 101" in client.output[1]


def test_a_program_that_is_not_there(serving):
    with Exec(serving.port, query("/no/such/program", stdout="true")) as client:
        told = client.status()
    assert told["reason"] == "InternalError"
    assert "cannot start /no/such/program" in told["message"]


def test_a_client_that_goes_away_takes_its_program_along(serving, tmp_path):
    wanted = script("echo $$; exec sleep 1000", stdout="true")
    with Exec(serving.port, wanted) as client:
        client.until(lambda: client.output.get(1, b"").endswith(b"\n"))
        pid = int(client.output[1])
        assert Path(f"/proc/{pid}").exists()
    gone = threading.Event()
    while Path(f"/proc/{pid}").exists():
        assert not gone.wait(0.02)


def test_what_a_program_leaves_behind_does_not_write_on(serving):
    left = "for i in $(seq 300); do echo more; sleep 0.1; done; echo last"
    with Exec(serving.port, script(f"({left}) & exit 3", stdout="true")) as client:
        assert client.status()["details"]["causes"][0]["message"] == "3"
    assert b"last" not in client.output.get(1, b"")


def test_what_a_program_leaves_behind_ends_with_it(serving):
    """And so it does not hold up the end, although it has the output open."""
    with Exec(serving.port, script("sleep 1000 & echo $!", stdout="true")) as client:
        assert client.status()["status"] == "Success"
    gone = threading.Event()
    while Path(f"/proc/{int(client.output[1])}").exists():
        assert not gone.wait(0.02)


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        ("stdout=true", 400, "at least one command"),
        ("command=x", 400, "at least one of stdin, stdout, stderr"),
    ],
)
def test_requests_that_make_no_sense(serving, wanted, code, words):
    with Exec(serving.port, wanted) as client:
        status, text = client.refused()
    assert status == code
    assert words in text


def test_other_protocols_are_refused_in_words(serving):
    spdy = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    code, words = message(serving.get("/exec/default/a/c?command=x&stdout=1", **spdy))
    assert code == 400
    assert "kproxy lab exec" in words
    with Exec(serving.port, query("true", stdout="true"), "other") as client:
        assert "v5.channel.k8s.io" in client.refused()[1]


def test_only_what_runs_can_be_entered(serving):
    answer = serving.get("/exec/default/waiting/c?command=x&stdout=1", Upgrade="websocket")
    assert message(answer) == (400, 'container "c" in pod "waiting" is not running')
