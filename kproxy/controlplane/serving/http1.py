"""HTTP/1.1 from the server's side, on one socket, with a deadline and a limit for everything.

``http.server`` would do, but knows neither: a client that sends a byte a minute would hold a
thread for ever, and one that sends headers without end would fill the memory.
"""

import contextlib
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from kproxy import errors

LARGEST_HEAD = 64 * 1024
MOST_HEADERS = 100
LARGEST_BODY = 3 * 1024 * 1024
"""As kube-apiserver has it."""
HEAD_SECONDS = 30.0
"""So long the head of a request may take from its first byte on."""
BODY_SECONDS = 60.0
SEND_SECONDS = 60.0
"""So long a client may take to accept one piece of an answer."""
_CHUNK = 64 * 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_NO_TEXT = re.compile(rb"[\0\r\n]")
"""What may not be within a line: whom we hand it on to might see two."""
ABSENT_SECONDS = 120
_ABSENCE = (
    (socket.TCP_KEEPIDLE, ABSENT_SECONDS // 2),
    (socket.TCP_KEEPINTVL, ABSENT_SECONDS // 8),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, ABSENT_SECONDS * 1000),
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 8 * 1024 * 1024


class ClientGone(ConnectionError):
    """The client has closed the connection, or was too slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The head of a request; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    keep: bool
    """Whether the client goes on using the connection."""

    @property
    def target(self) -> str:
        """Return path and query as they were sent."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def upgrade(self) -> str:
        """Return the protocol to which the client wants to change, in lower case."""
        wants = "upgrade" in self.headers.get("connection", "").lower()
        return self.headers.get("upgrade", "").lower() if wants else ""


class Channel:
    """A socket with what has been read from it and not been used yet. For one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray()

    def read_request(self, idle_seconds: float) -> Request | None:
        """Return the head of the next request; None if the client has nothing more to say.

        Raises ApiError for what is no request, :class:`ClientGone` for half of one.
        """
        if not self._buffer:
            try:
                self._receive(time.monotonic() + idle_seconds)
            except ClientGone:
                return None
        deadline = time.monotonic() + HEAD_SECONDS
        # Empty lines before a request are allowed to be there (RFC 9112, section 2.2).
        while self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > LARGEST_HEAD:
                raise _bad(431, "the head of the request is too large")
            if not _plausible(self._buffer):
                raise _bad(400, "this is no HTTP request")
            self._receive(deadline)
        head = bytes(self._buffer[:end])
        if len(head) > LARGEST_HEAD:
            raise _bad(431, "the head of the request is too large")
        del self._buffer[: end + 4]
        return parse_head(head)

    def read_body(self, request: Request, largest: int = LARGEST_BODY) -> bytes:
        """Return the body of a request. Raises ApiError 411, 413; ClientGone for half of one."""
        coding = request.headers.get("transfer-encoding", "").lower()
        length = request.headers.get("content-length", "")
        if not coding and not length:
            return b""
        if coding not in ("", "chunked") or (coding and length):
            raise _bad(411, "send a body with Content-Length, or chunked")
        if not coding and not (length.isascii() and length.isdigit() and len(length) < 20):
            raise _bad(411, "send a body with Content-Length, or chunked")
        if length and int(length) > largest:
            raise _too_large(largest)
        if request.headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        deadline = time.monotonic() + BODY_SECONDS
        if coding:
            return self._read_chunks(largest, deadline)
        return self._read_exactly(int(length), deadline)

    def send(self, data: bytes) -> None:
        """Send all of it. Raises ClientGone, also if that takes longer than SEND_SECONDS."""
        deadline = time.monotonic() + SEND_SECONDS
        left = memoryview(data)
        try:
            # Over TLS, sendall would begin to wait anew for each record.
            while left:
                self.connection.settimeout(_remaining(deadline))
                left = left[self.connection.send(left) :]
        except OSError as error:
            raise ClientGone(str(error)) from None

    def is_gone(self) -> bool:
        """Return whether the client has hung up; what it sends meanwhile is kept."""
        try:
            self.connection.settimeout(0.0)
            data = self.connection.recv(_CHUNK)
        except (BlockingIOError, TimeoutError):
            return False
        except OSError as error:  # TLS: "no data yet" is an error of its own
            return type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError")
        self._buffer += data
        return not data or len(self._buffer) > LARGEST_HEAD

    def take(self) -> bytes:
        """Return and forget what has been read and not been used."""
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def linger(self) -> None:
        """Let a client that is still sending hear why it is refused, then hang up."""
        deadline = time.monotonic() + _LINGER_SECONDS
        taken = 0
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while taken < _LINGER_BYTES and (left := deadline - time.monotonic()) > 0:
                self.connection.settimeout(left)
                data = self.connection.recv(_CHUNK)
                if not data:
                    break
                taken += len(data)

    def _read_exactly(self, size: int, deadline: float) -> bytes:
        while len(self._buffer) < size:
            self._receive(deadline)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _read_line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LARGEST_HEAD:
                raise _bad(400, "a line of a chunked body is too long")
            self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunks(self, largest: int, deadline: float) -> bytes:
        body = bytearray()  # of a million small pieces a list would take much more
        while True:
            digits = self._read_line(deadline).partition(b";")[0].strip(b" \t")
            if not _CHUNK_SIZE.fullmatch(digits):
                raise _bad(400, "the size of a chunk is no number")
            size = int(digits, 16)
            if len(body) + size > largest:
                raise _too_large(largest)
            if size == 0:
                while self._read_line(deadline):
                    pass
                return bytes(body)
            body += self._read_exactly(size, deadline)
            if self._read_line(deadline):
                raise _bad(400, "a chunk is longer than its size")

    def _receive(self, deadline: float) -> None:
        try:
            self.connection.settimeout(_remaining(deadline))
            data = self.connection.recv(_CHUNK)
        except OSError as error:
            raise ClientGone(str(error)) from None
        if not data:
            raise ClientGone("the client has hung up")
        self._buffer += data


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise ClientGone("the client is too slow")
    return left


def notice_absence(connection: socket.socket) -> None:
    """Have the kernel end a connection whose other side has vanished without a word.

    Nobody else would: an idle watch is told nothing, and sends nothing.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _ABSENCE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _plausible(head: bytearray) -> bool:
    """Return whether this may still become a request: nonsense is not waited for."""
    line, found, _ = bytes(head[:LARGEST_HEAD]).partition(b"\r\n")
    if found:
        return line.count(b" ") == 2
    return line[:1].isalpha()


def parse_head(head: bytes) -> Request:
    """Return the request that a head stands for. Raises ApiError 400, 431, 501, 505."""
    if _NO_TEXT.search(head.replace(b"\r\n", b"")):
        raise _bad(400, "a line with a control character in it")
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise _bad(400, "this is no HTTP request") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise _bad(505, f"{version[:20]!r}: HTTP/1.1 is spoken here")
    if method not in _METHODS:
        raise _bad(501, f"the method {method[:20]!r} is not known")
    if len(lines) > MOST_HEADERS:
        raise _bad(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, found, value = line.partition(":")
        name = name.lower()
        if not found or not name or name != name.strip():
            raise _bad(400, f"no header: {line[:40]!r}")
        if name in headers and name in ("content-length", "transfer-encoding", "host"):
            raise _bad(400, f"the header {name} is there twice")
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if target.startswith(("http://", "https://")):
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    connection = headers.get("connection", "").lower()
    keep = "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection
    return Request(method=method, path=path, query=query, headers=headers, keep=keep)


def head(code: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of an answer."""
    try:
        words = HTTPStatus(code).phrase
    except ValueError:
        words = "Unknown"
    lines = [f"HTTP/1.1 {code} {words}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def chunk(data: bytes) -> bytes:
    """Return a piece of a body whose length is not known; nothing ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _bad(code: int, message: str) -> errors.ApiError:
    return errors.ApiError(code, "BadRequest", message)


def _too_large(largest: int) -> errors.ApiError:
    message = f"Request entity too large: limit is {largest}"
    return errors.ApiError(413, "RequestEntityTooLarge", message)
