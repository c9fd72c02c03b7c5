"""HTTP/1.1 over one socket, as much as a Kubernetes API needs.

``http.client`` would do, but importing it also imports ``email`` and ``ssl``: that would take as
long as all other imports of a restarting proxy together. ``ssl`` is imported here for https only.

:meth:`Connection.abort` may be called from another thread and ends a blocked connect or read at
once, which ``http.client`` cannot do either.
"""

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from kproxy.api.addresses import with_port

if TYPE_CHECKING:
    import ssl

CONNECT_S = 1.5
"""So long a connection may take to be made. A server whose machine has vanished answers nothing
at all; when it comes back it must be asked anew soon, and the kernel alone asks less and less
often."""

MAX_LINE = 65536
MAX_HEADERS = 256


class HttpError(ConnectionError):
    """The other side does not speak HTTP/1.1, or stopped in the middle of an answer."""


class Exchange(NamedTuple):
    """One request and what came of it, for those who count."""

    method: str
    code: str
    """The status, or ``<error>`` if there was no answer, as Kubernetes' own clients say it."""
    seconds: float | None = None
    """Until the whole answer was read; None for a watch, which is not over then."""
    sent: int = 0
    received: int | None = None
    """Bytes of the bodies; None: it was not read."""
    resolved_s: float | None = None
    """How long it took to find the server's address, where a name had to be asked for."""


class Exchanges:
    """Tells of exchanges, by any thread. The first ones are kept until somebody listens."""

    KEPT = 10_000
    """Of more, which an API server that is away for hours may cause, the oldest are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[Exchange] = deque(maxlen=self.KEPT)
        self._listener: Callable[[Exchange], None] = self._kept.append

    def tell(self, one: Exchange) -> None:
        """Tell who listens."""
        with self._lock:
            self._listener(one)

    def listen(self, listener: Callable[[Exchange], None]) -> None:
        """Be told of all so far, and of all to come. It may not ask the API server itself."""
        with self._lock:
            for one in self._kept:
                listener(one)
            self._kept.clear()
            self._listener = listener


class Response:
    """Status and headers of an answer, whose body is still to be read."""

    def __init__(self, connection: "Connection", stream: BinaryIO, method: str) -> None:
        self._connection = connection
        self._stream = stream
        self.status, self.headers = _read_head(stream)
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        empty = method == "HEAD" or self.status in (204, 304)
        self._length = 0 if empty else number(length)
        closes = self.headers.get("connection", "").lower() == "close"
        self.reusable = not closes and (self._chunked or self._length is not None)

    def read(self) -> bytes:
        """Return the whole body."""
        if self._chunked:
            return b"".join(self._chunks())
        if self._length is None:
            return self._stream.read()
        return _read_exactly(self._stream, self._length)

    def lines(self) -> Iterator[bytes]:
        """Return the lines of the body as they come; an unfinished last line is dropped."""
        rest = b""
        for chunk in self._chunks() if self._chunked else self._pieces():
            *complete, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
            for line in complete:
                if line:
                    yield line

    def _pieces(self) -> Iterator[bytes]:
        while piece := self._stream.readline():
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            head = _read_line(self._stream)
            try:
                size = int(head.partition(b";")[0], 16)
            except ValueError:
                size = -1
            if size < 0:
                raise HttpError(f"bad chunk size {head[:20]!r}")
            if size == 0:
                while _read_line(self._stream):
                    pass
                return
            yield _read_exactly(self._stream, size)
            if _read_line(self._stream):
                raise HttpError("chunk longer than its size")


class Connection:
    """A connection to one server, made when first needed. Not for several threads at once."""

    def __init__(
        self, host: str, port: int, *, tls: "ssl.SSLContext | None", name: str, timeout: float
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._name = name
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None
        self._aborted = False
        self._resolved_s: float | None = None

    def take_resolved_s(self) -> float | None:
        """Return, once, how long the server's name took to resolve; None: it is an address."""
        taken, self._resolved_s = self._resolved_s, None
        return taken

    @property
    def fresh(self) -> bool:
        """Return whether it has not been connected yet."""
        return self._socket is None

    def usable(self) -> bool:
        """Return whether an idle connection is still open (or has never been)."""
        if self._socket is None:
            return not self._aborted
        # Nobody has asked anything, so anything to read can only be the end.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        timeout: float | None = None,
    ) -> Response:
        """Send a request and return the answer's head. Raises OSError.

        ``timeout`` in seconds is for this request, and for each wait rather than in all.
        """
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        self._socket.settimeout(timeout or self._timeout)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._host_header()}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        assert self._stream is not None
        return Response(self, self._stream, method)

    def dial(self) -> socket.socket:
        """Connect, and return the socket for another protocol; :meth:`close` ends it.

        Raises OSError.
        """
        self._connect()
        assert self._socket is not None
        return self._socket

    def abort(self) -> None:
        """End whatever another thread does with this connection; it cannot be used again."""
        self._aborted = True
        if self._socket is not None:
            # Not connected yet (then the shutdown still ends the connect), or gone already.
            # SSLSocket's own shutdown() would take the TLS state from under the reading thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it. Only by the thread that uses it."""
        self._aborted = True
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()

    def _host_header(self) -> str:
        return with_port(*self._address)

    def _connect(self) -> None:
        failure: OSError = HttpError(f"no address for {self._address[0]}")
        began = time.monotonic()
        try:
            found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise HttpError(f"no address for {self._address[0]}: {error}") from None
        if all(address[0] != self._address[0] for *_, address in found):
            self._resolved_s = time.monotonic() - began
        for family, kind, protocol, _, address in found:
            try:
                self._open(socket.socket(family, kind, protocol), address)
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    def _open(self, raw: socket.socket, address: Any) -> None:
        # It must be known before it connects: abort() looks for it.
        self._socket = raw
        try:
            if self._aborted:
                raise ConnectionAbortedError("aborted")
            raw.settimeout(min(CONNECT_S, self._timeout))
            _watch_for_dead_peer(raw)
            raw.connect(address)
            raw.settimeout(self._timeout)
            if self._tls is not None:
                # Known before it shakes hands, for abort() again.
                secure = self._tls.wrap_socket(
                    raw, server_hostname=self._name, do_handshake_on_connect=False
                )
                self._socket = secure
                if self._aborted:
                    raise ConnectionAbortedError("aborted")
                secure.do_handshake()
            self._stream = self._socket.makefile("rb")
        except OSError:
            self._socket.close()
            self._socket = None
            raise
        if self._aborted:
            raise ConnectionAbortedError("aborted")


def _watch_for_dead_peer(raw: socket.socket) -> None:
    """Let the kernel end a watch whose server's machine is gone: after 30 seconds of silence."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)


def _read_head(stream: BinaryIO) -> tuple[int, dict[str, str]]:
    status = _read_line(stream).split(None, 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise HttpError("the answer is not HTTP")
    headers: dict[str, str] = {}
    while line := _read_line(stream):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
        if len(headers) > MAX_HEADERS:
            raise HttpError("too many headers")
    return int(status[1]), headers


def number(text: str | None) -> int | None:
    """Return the whole number in a header; None if there is none."""
    return int(text) if text and text.isascii() and text.isdigit() else None


def _read_line(stream: BinaryIO) -> bytes:
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        raise HttpError("connection closed" if len(line) < MAX_LINE else "line too long")
    return line.rstrip(b"\r\n")


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise HttpError("connection closed in the middle of an answer")
    return data
