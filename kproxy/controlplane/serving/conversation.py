"""One connection of a client: its requests, one after the other, in a thread of its own."""

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from kproxy import errors, logs
from kproxy.api import kinds
from kproxy.exposition import Value

from .. import status
from ..requests import JSON, Answer
from . import http1, kubelets
from .dispatch import Call, Dispatcher, Outcome, Stream, Tunnel
from .http1 import Channel, ClientGone, Request
from .limits import Limits
from .metrics import Metrics, Stopwatch

IDLE_SECONDS = 120.0
"""So long a connection is kept without any request."""
HANDSHAKE_SECONDS = 10.0
_MOST_WARNINGS, _LONGEST_WARNING = 20, 256

_encode = msgspec.json.Encoder().encode


class Conversation:
    """Speaks with one client until either has had enough."""

    def __init__(
        self, dispatcher: Dispatcher, metrics: Metrics, limits: Limits, log: logs.Log
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._limits = limits
        self._log = log

    def run(
        self,
        connection: socket.socket,
        tls: ssl.SSLContext | None,
        note: Callable[[socket.socket], None],
    ) -> None:
        """Answer until the connection ends; ``note`` is told the socket that TLS has made of it.

        A client that goes away, or does not come to the point, is no error.
        """
        try:
            if tls is not None:
                connection.settimeout(HANDSHAKE_SECONDS)
                secured = tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                connection = secured
                note(connection)
                secured.do_handshake()
            self._talk(Channel(connection), _certificate(connection))
        except (ClientGone, OSError):
            pass
        finally:
            connection.close()

    def _talk(self, channel: Channel, certificate: Mapping[str, Any] | None) -> None:
        while True:
            try:
                request = channel.read_request(IDLE_SECONDS)
            except errors.ApiError as error:
                self._send(channel, None, _failure(error), keep=False)
                channel.linger()
                return
            if request is None or not self._serve(channel, request, certificate):
                return

    def _serve(
        self, channel: Channel, request: Request, certificate: Mapping[str, Any] | None
    ) -> bool:
        """Answer one request; return whether there may be another."""
        watch = Stopwatch()
        is_read = not _has_body(request)

        def read_body() -> bytes:
            nonlocal is_read
            body = channel.read_body(request)
            is_read = True
            return body

        call = Call(request=request, certificate=certificate, read_body=read_body)
        outcome = self._outcome(call, watch)
        match outcome:
            case Answer():
                keep = request.keep and is_read and not self._dispatcher.api.store.closed
                self._send(channel, request, outcome, keep=keep)
                if not is_read:
                    channel.linger()
                return keep
            case Stream():
                self._count(call, 200, watch)
                return self._stream(channel, request, call, outcome)
            case Tunnel():
                self._count(call, 200 if outcome.first else 101, watch)
                with self._open(call):
                    kubelets.tunnel(channel, outcome.other, outcome.first, listens=outcome.listens)
                return False

    def _outcome(self, call: Call, watch: Stopwatch) -> Outcome:
        """Return the answer to a request, be it that something is wrong with it, or with us."""
        try:
            with self._limits.request():
                outcome = self._dispatcher.answer(call)
        except (errors.KproxyError, ExceptionGroup) as error:
            outcome = _failure(error)
        except ClientGone:
            raise
        except Exception as error:
            self._log.error("request failed", path=call.request.path, error=repr(error))
            outcome = _failure(error)
        if isinstance(outcome, Answer):
            self._count(call, outcome.code, watch)
        return outcome

    def _count(self, call: Call, code: int, watch: Stopwatch) -> None:
        asked = call.asked
        verb = asked.verb.upper() or call.request.method
        labels = (asked.group, call.version, asked.resource, asked.subresource)
        self._metrics.requests.add(verb, *labels, str(code))
        if asked.verb != "watch":
            self._metrics.durations.observe(watch.seconds(), verb, asked.resource)

    def _open(self, call: Call) -> "_Counted":
        return _Counted(self._metrics, call)

    def _send(
        self, channel: Channel, request: Request | None, answer: Answer, *, keep: bool
    ) -> None:
        headers = [("Content-Type", answer.content_type)]
        headers.append(("Content-Length", str(len(answer.body))))
        headers.append(("Cache-Control", "no-cache, private"))
        headers += [("Warning", text) for text in _warnings(answer.warnings)]
        headers += list(answer.headers.items())
        if not keep:
            headers.append(("Connection", "close"))
        body = b"" if request is not None and request.method == "HEAD" else answer.body
        # Head and body leave in one segment.
        channel.send(http1.head(answer.code, headers) + body)

    def _stream(self, channel: Channel, request: Request, call: Call, stream: Stream) -> bool:
        """Send a stream until it or the client ends; return whether the connection goes on."""
        headers = [("Content-Type", JSON), ("Transfer-Encoding", "chunked")]
        channel.send(http1.head(200, [*headers, ("Cache-Control", "no-cache, private")]))
        with self._open(call):
            for piece in stream.pieces:
                if piece:
                    channel.send(http1.chunk(piece))
                elif not self._dispatcher.api.store.closed and channel.is_gone():
                    return False
        channel.send(b"0\r\n\r\n")
        return request.keep


class _Counted:
    """Counts something that lasts, while it lasts."""

    def __init__(self, metrics: Metrics, call: Call) -> None:
        asked = call.asked
        self._counted: list[tuple[Value, tuple[str, ...]]] = [
            (metrics.watches, (asked.verb.upper(), asked.resource))
        ]
        version = f"{asked.group}/{call.version}" if asked.group else call.version
        kind = kinds.by_plural(version, asked.resource)
        if asked.verb == "watch" and kind is not None:
            self._counted.append((metrics.watchers, (asked.group, call.version, kind.name)))

    def __enter__(self) -> None:
        for gauge, labels in self._counted:
            gauge.add(*labels)

    def __exit__(self, *exc: object) -> None:
        for gauge, labels in self._counted:
            gauge.add(*labels, by=-1)


def _certificate(connection: socket.socket) -> Mapping[str, Any] | None:
    if isinstance(connection, ssl.SSLSocket):
        return connection.getpeercert()
    return None


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return length != "0" or "transfer-encoding" in request.headers


def _failure(error: Exception) -> Answer:
    answer = status.failure(error)
    headers = {}
    after = getattr(error, "retry_after", 0.0)
    if after:
        headers["Retry-After"] = str(int(after))
    if answer["code"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Answer(answer["code"], _encode(answer), JSON, headers=headers)


def _warnings(texts: Sequence[str]) -> Iterator[str]:
    """Yield warnings as headers hold them; clients refuse heads that are too large."""
    for text in texts[:_MOST_WARNINGS]:
        yield f"299 - {_quoted(text[:_LONGEST_WARNING])}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{"".join(letter for letter in escaped if letter.isprintable())}"'
