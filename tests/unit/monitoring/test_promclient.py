"""What a Prometheus is asked, and what becomes of its answers and of its silence."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kproxy import errors
from kproxy.monitoring.promclient import Prometheus, number


class Stub(ThreadingHTTPServer):
    """Answers everything with what it was told to."""

    answer: bytes = b""
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, dict[str, list[str]]]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append((parts.path, parse_qs(parts.query)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(stub: Stub, answer: Any) -> Prometheus:
    stub.answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Prometheus("127.0.0.1", stub.server_address[1])


def test_values_are_numbers_with_labels(stub: Stub) -> None:
    result = [
        {"metric": {"node": "a"}, "value": [1, "2.5"]},
        {"metric": {"node": "b"}, "value": [1, "NaN"]},
    ]
    found = ask(stub, {"status": "success", "data": {"result": result}}).values("up > 1", at=7)
    assert found == [({"node": "a"}, 2.5)]
    assert stub.asked == [("/api/v1/query", {"query": ["up > 1"], "time": ["7.000"]})]


def test_a_range_and_the_values_of_a_label(stub: Stub) -> None:
    client = ask(stub, {"status": "success", "data": {"result": ["a"]}})
    assert client.over_time("x", 1, 2, 0.5) == ["a"]
    client = ask(stub, {"status": "success", "data": ["n1"]})
    assert client.label_values("node", "up", 1, 2) == ["n1"]
    assert [path for path, _ in stub.asked] == [
        "/api/v1/query_range",
        "/api/v1/label/node/values",
    ]


def test_what_it_refuses_is_told_in_its_words(stub: Stub) -> None:
    client = ask(stub, {"status": "error", "error": "parse error"})
    with pytest.raises(errors.KproxyError, match="parse error") as told:
        client.values("(")
    assert told.value.__cause__ is None


@pytest.mark.parametrize("answer", [b"<html>", b"[1]"])
def test_another_program_is_no_prometheus(stub: Stub, answer: bytes) -> None:
    with pytest.raises(errors.KproxyError, match="does not answer"):
        ask(stub, answer).values("up")


def test_nobody_there_has_its_cause() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = Prometheus("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(errors.KproxyError) as told:
            client.values("up")
    assert isinstance(told.value.__cause__, OSError)


def test_what_is_no_number() -> None:
    assert [number(text) for text in ("1e3", "NaN", "+Inf", "-Inf")] == [1000.0, None, None, None]
