"""Calls to an etcd cluster over its JSON gateway (``/v3/…``): whom to ask, and when again.

A call goes to the member that answered last. If it does not answer, or knows no leader, the next
one is asked, round and round until ``patience`` is over. Members are told to refuse at once when
they have no leader (``hasleader``), so that a lost majority is an answer and not a silence.
"""

import base64
import contextlib
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors
from kproxy.client import http1

from . import base

ATTEMPT_SECONDS = 2.5
"""So long one member may take for an answer before another one is asked."""

PAUSE_SECONDS = 0.1
"""How long to wait after all members have refused."""

_FOREVER = 1e7
"""Seconds, for a stream: its connection is watched by the kernel (keep-alive)."""

_NOT_DONE = ("no leader", "too many requests", "database space exceeded", "not capable")
"""Answers after which a write has surely not happened."""

_HEADERS = {"Content-Type": "application/json", "Grpc-Metadata-Hasleader": "true"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Message = dict[str, Any]


class Refusal(Exception):
    """A member's answer that is an error: in its words, and whether a write may have happened."""

    def __init__(self, words: str, unknown: bool) -> None:
        super().__init__(words)
        self.words = words
        self.unknown = unknown


class Rejected(base.Unavailable):
    """All members would say the same: the question itself is wrong, or too late."""


class Gateway:
    """The members of a cluster. May be used by any number of threads.

    ``endpoints`` are URLs (``http://192.0.2.1:2379``); with https the members must have
    certificates of ``authority``, and are shown ``certificate`` and ``key`` (PEM files).
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        authority: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        patience: float,
    ) -> None:
        self._endpoints = [_parse(text) for text in endpoints]
        self._patience = patience
        self._tls = None
        if any(endpoint.scheme == "https" for endpoint in self._endpoints):
            self._tls = ssl.create_default_context(cafile=authority)
            if certificate is not None:
                self._tls.load_cert_chain(certificate, key)
        self._lock = threading.Lock()
        self._current = 0
        self._idle: list[tuple[int, http1.Connection]] = []
        self._closed = threading.Event()

    def call(
        self, path: str, message: Message, *, idempotent: bool = True
    ) -> tuple[Message, bool]:
        """Return the answer, and whether an earlier try may have done the same already.

        Raises Unavailable; ``unknown`` only if not ``idempotent``. Raises ApiError 413.
        """
        deadline = time.monotonic() + self._patience
        body, doubt, trouble = _encode(message), False, ""
        while not self._closed.is_set():
            for _ in self._endpoints:
                index = self._current
                try:
                    return self._ask(index, path, body), doubt
                except Refusal as error:
                    doubt = doubt or (error.unknown and not idempotent)
                    trouble = f"{self._endpoints[index].netloc}: {error.words}"
                    self.skip(index)
                if time.monotonic() >= deadline:
                    raise base.Unavailable(f"etcd: {trouble}", unknown=doubt)
            self._closed.wait(PAUSE_SECONDS)
        raise base.Unavailable(f"etcd: closed {trouble}", unknown=doubt)

    def stream(self, path: str, message: Message) -> tuple[int, http1.Connection, Iterator[bytes]]:
        """Return an answer without end: the member's number, its connection, and lines to come.

        The lines end, or raise OSError, when the connection does. Raises Unavailable.
        """
        body, trouble = _encode(message), "closed"
        for _ in self._endpoints:
            index = self._current
            connection = self._connect(index, _FOREVER)
            late = threading.Timer(ATTEMPT_SECONDS, connection.abort)
            late.start()
            try:
                response = connection.request("POST", path, _HEADERS, body)
                if response.status == 200:
                    return index, connection, response.lines()
                trouble = _words(response.read())
            except OSError as error:
                trouble = str(error)
            finally:
                late.cancel()
            connection.close()
            self.skip(index)
        raise base.Unavailable(f"etcd: {self._endpoints[index].netloc}: {trouble}")

    def skip(self, index: int) -> None:
        """Prefer the member after this one, unless another is preferred already."""
        with self._lock:
            if self._current == index:
                self._current = (index + 1) % len(self._endpoints)

    def close(self) -> None:
        """End calls that wait; close what is idle."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _ask(self, index: int, path: str, body: bytes) -> Message:
        connection = self._take(index)
        sent = False
        try:
            response = connection.request("POST", path, _HEADERS, body)
            sent = True
            answer = response.read()
        except OSError as error:
            connected = sent or not connection.fresh
            connection.close()
            raise Refusal(str(error) or type(error).__name__, connected) from None
        if response.reusable:
            self._give_back(index, connection)
        else:
            connection.close()
        if response.status != 200:
            words = _words(answer)
            if "too large" in words:
                raise errors.ApiError(413, "RequestEntityTooLarge", f"etcd: {words}")
            if response.status == 400:
                raise Rejected(f"etcd: {words}")
            raise Refusal(words, not any(part in words for part in _NOT_DONE))
        return _message(answer)

    def _take(self, index: int) -> http1.Connection:
        with self._lock:
            idle, self._idle = self._idle, []
            for one in idle:
                if one[0] == index:
                    self._idle += [other for other in idle if other is not one]
                    if one[1].usable():
                        return one[1]
                    one[1].close()
                    break
            else:
                self._idle += idle
        return self._connect(index, ATTEMPT_SECONDS)

    def _give_back(self, index: int, connection: http1.Connection) -> None:
        with self._lock:
            if not self._closed.is_set():
                self._idle.append((index, connection))
                return
        connection.close()

    def _connect(self, index: int, timeout: float) -> http1.Connection:
        endpoint = self._endpoints[index]
        host = endpoint.hostname or ""
        tls = self._tls if endpoint.scheme == "https" else None
        return http1.Connection(host, endpoint.port or 2379, tls=tls, name=host, timeout=timeout)


def b64(text: str | bytes) -> str:
    """Return bytes, or ASCII text, as the gateway's JSON has them."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def _parse(text: str) -> urllib.parse.SplitResult:
    endpoint = urllib.parse.urlsplit(text)
    with contextlib.suppress(ValueError):
        if endpoint.scheme in ("http", "https") and endpoint.hostname and endpoint.port != 0:
            return endpoint
    raise errors.UsageError(f"etcd endpoint {text!r}", remedy="give it as http://HOST:PORT")


def _message(answer: bytes) -> Message:
    try:
        found = _decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise Refusal("the answer is not a JSON object", True)
    return found


def _words(answer: bytes) -> str:
    with contextlib.suppress(Refusal):
        found = _message(answer)
        return str(found.get("message") or found.get("error") or found)
    return answer[:200].decode("utf-8", "replace")
