"""An HTTP server on loopback that answers as a test wants, byte by byte if need be."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

DROP = object()
"""Yielded by an answer: close the connection now."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int


class ScriptedServer:
    """``answer(request)`` gives the bytes to send, as they come; it runs in its own thread."""

    def __init__(self, answer: Callable[[Request], Iterable[object]], port: int = 0) -> None:
        self.requests: list[Request] = []
        self.closed = threading.Semaphore(0)
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self._count = 0
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "ScriptedServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                self._count += 1
                threading.Thread(
                    target=self._serve, args=(connection, self._count), daemon=True
                ).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as stream:
            while line := stream.readline():
                request = _read_request(line, stream, number)
                self.requests.append(request)
                for part in self._answer(request):
                    if part is DROP:
                        connection.shutdown(socket.SHUT_RDWR)
                        self.closed.release()
                        return
                    connection.sendall(part)


def _read_request(line, stream, number):
    method, target, _ = line.decode().split()
    headers = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    return Request(method, url.path, query, headers, body, number)


def answer(obj, status=200, extra=""):
    body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def status(code, reason="", message=""):
    return answer({"kind": "Status", "code": code, "reason": reason, "message": message}, code)


def event(kind, obj):
    return chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
