"""The image ``web``: what it answers, and how it ends."""

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from child_processes import DIES_WITH_US

PROGRAM = (sys.executable, "-m", "kproxy.traffic.webserver", "--port", "0", "--name", "pod")


class Server:
    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [*DIES_WITH_US, *PROGRAM, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline().split()[-1])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = self.connect()
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def test_it_says_who_it_is(server):
    assert server.get("/a?b=c") == (200, "pod /a\n")
    assert server.get("/a", "HEAD") == (200, "")
    assert server.get("/status/503")[0] == 503
    assert server.get("/status/9999")[0] == 400
    assert server.get("/readyz")[0] == 200


def test_it_is_ready_later_if_told_so():
    server = Server("--ready-after", "1000")
    try:
        assert server.get("/healthz")[0] == 200
        assert server.get("/readyz")[0] == 503
    finally:
        server.close()


def test_sigterm_lets_it_answer_what_was_asked(server):
    connection = server.connect()
    connection.connect()
    connection.send(b"GET /last HTTP/1.1\r\n")
    assert server.get("/")[0] == 200  # the other connection has been accepted before this one
    server.process.send_signal(signal.SIGTERM)
    connection.send(b"Host: x\r\nConnection: close\r\n\r\n")
    assert connection.sock.makefile("rb").read().endswith(b"pod /last\n")
    connection.close()
    assert server.process.wait(60) == 0


def test_a_port_that_is_taken_is_named(server):
    done = subprocess.run(
        [*PROGRAM[:3], "--port", str(server.port)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"port {server.port}: Address already in use\n"
