"""As much of HTTP as health checks and metrics need.

Written on sockets: ``http.server`` takes longer to import than the proxy takes to sync.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping

import msgspec

from kproxy.agent.listeners import Listeners

JSON = "application/json"
PATIENCE_S = 5.0
"""So long a client may take to send its request, and again to take the answer."""
_REQUEST_MAX = 8192
_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer(msgspec.Struct, frozen=True):
    """Status code, body and headers of a response."""

    code: int
    body: str
    content_type: str = JSON
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


Handler = Callable[[], Answer]
Find = Callable[[str], Handler | None]
"""Returns what answers requests for a path, or None."""


def respond(request: bytes, find: Find) -> bytes:
    """Return the whole response to a request, whatever it is."""
    words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    method, path = (words[0], words[1].partition("?")[0]) if len(words) > 1 else ("", "")
    handler = find(path)
    if handler is None:
        answer = Answer(404, "404 page not found\n")
    elif method not in ("GET", "HEAD"):
        answer = Answer(405, "method not allowed\n")
    else:
        answer = handler()
    body = answer.body.encode()
    lines = [
        f"HTTP/1.1 {answer.code} {_REASONS[answer.code]}",
        f"Content-Type: {answer.content_type}",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body)


def serve(connection: socket.socket, find: Find, listeners: Listeners) -> None:
    """Answer one request of a client, in a thread of its own.

    A client that sends nothing must not keep the others waiting.
    """
    arguments = (connection, find, listeners)
    try:
        threading.Thread(target=_answer, args=arguments, name="http", daemon=True).start()
    except RuntimeError:  # No more threads: it will ask again.
        connection.close()
        listeners.served()


def _answer(connection: socket.socket, find: Find, listeners: Listeners) -> None:
    with connection:
        try:
            if request := _read(connection):
                connection.settimeout(PATIENCE_S)
                connection.sendall(respond(request, find))
        except OSError:
            return  # The client has gone; it will ask again.
        finally:
            listeners.served()


def _read(connection: socket.socket) -> bytes:
    """Return a request up to the end of its headers; nothing if it ends before. Raises OSError."""
    request, until = b"", time.monotonic() + PATIENCE_S
    while b"\r\n\r\n" not in request and len(request) < _REQUEST_MAX:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(_REQUEST_MAX)
        if not part:
            return b""
        request += part
    return request
