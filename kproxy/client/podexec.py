"""Running a program in a container of a pod, over the API: what ``kubectl exec`` does.

A WebSocket with the protocol ``v5.channel.k8s.io`` or ``v4…``: the first byte of a message names
its channel (1 stdout, 2 stderr, 3 the final Status). The program gets no input and no terminal. Of
a long output head and tail are returned, with a line between them (:mod:`.kept`).
"""

import contextlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import urlencode

import msgspec
from wsproto import ConnectionType, WSConnection, events
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from kproxy.api import catalog, codec
from kproxy.errors import KproxyError

from .kept import Kept
from .rest import Dialled, Rest, Unreachable

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, STATUS = 1, 2, 3
MESSAGE_MOST = 4 * 1024 * 1024
"""Longest message, and longest refusal, in bytes. Kubelets send 32 KiB at once, runtimes less."""
_PIECE = 64 * 1024


class ExecTimeout(KproxyError):
    """The program did not end in time. Whether it still runs is up to the container runtime."""


class ExecLost(KproxyError):
    """The connection ended after the program was let in: whether it has run is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended, and what it said: of a long output, head and tail."""

    code: int
    stdout: str
    stderr: str


class _Status(msgspec.Struct):
    """The final Status, as far as it matters here."""

    class _Details(msgspec.Struct):
        class _Cause(msgspec.Struct):
            reason: str = ""
            message: str = ""

        causes: list[_Cause] = []

    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details | None = None


_status = msgspec.json.Decoder(_Status).decode  # here: threads may not (codec.prepare)


def run(
    rest: Rest,
    where: tuple[str, str, str],
    command: Sequence[str],
    timeout: float,
) -> Ran:
    """Run a command to its end. ``where``: namespace, pod, container; ``timeout`` in seconds.

    Raises ApiError if it is refused or cannot be started, Unreachable, ExecLost, ExecTimeout.
    """
    until = time.monotonic() + timeout
    namespace, pod, container = where
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in command]
    target = f"{catalog.POD.path(namespace, pod, 'exec')}?{urlencode(query)}"
    with rest.dialled() as dialled:
        conversation = _Conversation(dialled, until)
        begun = False
        try:
            conversation.begin(target)
            begun = True
            conversation.relay()
        except TimeoutError:
            what = " ".join(command)
            raise ExecTimeout(f"{pod}: {what}: no end within {timeout:g} s") from None
        except (OSError, ssl.SSLError, ProtocolError) as error:
            lost = ExecLost if begun else Unreachable
            raise lost(f"exec in {pod}: the connection ended: {error}") from None
    return conversation.result(pod)


@dataclass(slots=True)
class _Conversation:
    dialled: Dialled
    until: float
    output: dict[int, Kept] = field(default_factory=lambda: {STDOUT: Kept(), STDERR: Kept()})
    status: bytes | None = None
    _socketed: WSConnection = field(default_factory=lambda: WSConnection(ConnectionType.CLIENT))
    _message: bytearray = field(default_factory=bytearray)

    def begin(self, target: str) -> None:
        """Ask for it. Raises ApiError."""
        headers = [(name.encode(), text.encode()) for name, text in self.dialled.headers.items()]
        self._send(
            events.Request(
                host=self.dialled.host,
                target=self.dialled.prefix + target,
                subprotocols=list(PROTOCOLS),
                extra_headers=headers,
            )
        )
        code, body = 500, b""
        while True:
            found = self._receive()
            for at, event in enumerate(found):
                match event:
                    case events.AcceptConnection():
                        self._take_all(found[at + 1 :])
                        return
                    case events.RejectConnection():
                        code = event.status_code
                    case events.RejectData():
                        body += event.data
                        if event.body_finished or len(body) > MESSAGE_MOST:
                            raise codec.api_error(code, bytes(body))

    def relay(self) -> None:
        """Take what comes until the final Status."""
        while self.status is None:
            self._take_all(self._receive())

    def result(self, pod: str) -> Ran:
        """Return how it ended. Raises ApiError if it could not begin."""
        code = _code(self.status or b"{}", pod)
        return Ran(code=code, stdout=self.output[STDOUT].text(), stderr=self.output[STDERR].text())

    def _send(self, event: events.Event) -> None:
        self._wait_at_most()
        self.dialled.socket.sendall(self._socketed.send(event))

    def _receive(self) -> list[events.Event]:
        self._wait_at_most()
        data = self.dialled.socket.recv(_PIECE)
        if not data:
            raise ConnectionError("closed before the program's end was told")
        self._socketed.receive_data(data)
        return list(self._socketed.events())

    def _wait_at_most(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.dialled.socket.settimeout(left)

    def _take_all(self, found: Sequence[events.Event]) -> None:
        for event in found:
            match event:
                case events.Ping():
                    self._send(event.response())
                case events.CloseConnection():
                    if self.status is None:
                        raise ConnectionError("closed before the program's end was told")
                case events.Message():
                    data = event.data
                    self._message += data.encode() if isinstance(data, str) else bytes(data)
                    if len(self._message) > MESSAGE_MOST:
                        self._refuse()
                    if event.message_finished:
                        message, self._message = bytes(self._message), bytearray()
                        self._act(message)

    def _refuse(self) -> NoReturn:
        words = f"a message is longer than {MESSAGE_MOST} bytes"
        with contextlib.suppress(OSError):  # It is refused, whether that can be said or not.
            self._send(events.CloseConnection(code=CloseReason.MESSAGE_TOO_BIG, reason=words))
        raise ConnectionError(words)

    def _act(self, message: bytes) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel == STATUS:
            self.status = data
        elif channel in self.output:
            self.output[channel].add(data)


def _code(raw: bytes, pod: str) -> int:
    """Return the exit code that a Status tells."""
    try:
        status = _status(raw)
    except msgspec.DecodeError as error:
        raise Unreachable(f"exec in {pod}: the answer is no Status: {error}") from None
    if status.status == "Success":
        return 0
    causes = status.details.causes if status.details is not None else []
    for cause in causes:
        if cause.reason == "ExitCode" and cause.message.isdigit():
            return int(cause.message)
    raise codec.api_error(500, raw)
