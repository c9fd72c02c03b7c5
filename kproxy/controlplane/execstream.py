"""A program in a pod with its streams over a WebSocket: ``kubectl exec``.

Protocols ``v5.channel.k8s.io`` and ``v4.channel.k8s.io``: the first byte of a message names its
channel (0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 the terminal's size); in v5 a message
``255, N`` closes channel N, so that a program can be told the end of its input.
"""

import contextlib
import fcntl
import os
import pty
import select
import socket
import ssl
import struct
import subprocess
import termios
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from wsproto import ConnectionType, WSConnection, events
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from kproxy import errors

from .podaccess import Running
from .runtime import Execution, PodRuntime, Streams

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PIECE = 32 * 1024
INPUT_MOST = 1024 * 1024
MESSAGE_MOST = 4 * 1024 * 1024
SEND_SECONDS = 30.0
DRAIN_SECONDS = 1.0
"""After a program's end its output is awaited so long: its children may keep it open for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be run, with which streams."""

    command: tuple[str, ...]
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    @classmethod
    def parse(cls, query: Iterable[tuple[str, str]]) -> "Request":
        """Read the parameters (as kubectl and as the API server write them). Raises ApiError."""
        pairs = list(query)
        flags = {name for name, value in pairs if value.lower() in ("true", "1")}
        command = tuple(value for name, value in pairs if name == "command")
        if not command:
            raise errors.ApiError(400, "BadRequest", "you must specify at least one command")
        given = {name: name in flags or short in flags for name, short in _FLAGS.items()}
        if not any(given[name] for name in ("stdin", "stdout", "stderr")):
            message = "you must specify at least one of stdin, stdout, stderr"
            raise errors.ApiError(400, "BadRequest", message)
        return cls(command=command, **given)


_FLAGS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}


def serve(
    connection: socket.socket,
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    runtime: PodRuntime,
    where: Running,
    request: Request,
) -> None:
    """Answer the upgrade, run the program, and end with its Status. Raises OSError."""
    socketed = WSConnection(ConnectionType.SERVER)
    try:
        socketed.initiate_upgrade_connection(list(headers), path)
        asked = next(socketed.events())
    except (ProtocolError, StopIteration) as error:
        raise errors.ApiError(400, "BadRequest", f"not a WebSocket handshake: {error}") from None
    assert isinstance(asked, events.Request)
    protocol = next((one for one in PROTOCOLS if one in asked.subprotocols), None)
    if protocol is None:
        raise errors.ApiError(
            400, "BadRequest", f"unknown subprotocol; known are {', '.join(PROTOCOLS)}"
        )
    session = _Session(connection, socketed)
    session.send(events.AcceptConnection(subprotocol=protocol))
    with _Program(request) as program:
        try:
            program.start(runtime, where)
            code = session.relay(program)
        except errors.KproxyError as error:
            session.finish(_status(message=str(error), reason="InternalError", code=500))
            return
    if code is not None:
        session.finish(_of_code(code))


def _of_code(code: int) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    shown = code if code > 0 else 128 - code
    causes = [{"reason": "ExitCode", "message": str(shown)}]
    message = f"command terminated with non-zero exit code: {shown}"
    return {**_status(message=message, reason="NonZeroExitCode"), "details": {"causes": causes}}


def _status(**fields: Any) -> dict[str, Any]:
    return {"metadata": {}, "status": "Failure", **fields}


@dataclass(slots=True)
class _Program:
    """The program and our ends of its streams; a context that leaves nothing open or running."""

    request: Request
    execution: Execution | None = None
    outputs: dict[int, int] = field(default_factory=dict)
    """descriptor → channel"""
    stdin: int = -1
    input: bytes = b""
    input_ended: bool = False
    master: int = -1

    def __enter__(self) -> "_Program":
        return self

    def __exit__(self, *_: object) -> None:
        if self.execution is not None:
            self.execution.kill()
            self.execution.close()
        for fd in {*self.outputs, self.stdin, self.master} - {-1}:
            os.close(fd)

    def start(self, runtime: PodRuntime, where: Running) -> None:
        theirs, streams = self._terminal() if self.request.tty else self._pipes()
        try:
            self.execution = runtime.exec(where.sandbox, where.spec, self.request.command, streams)
        finally:
            for fd in theirs:
                os.close(fd)

    def take_input(self, data: bytes) -> None:
        """Take what the client has typed; after its end nothing more comes."""
        if self.stdin >= 0 and not self.input_ended:
            self.input += data
            self.write_input()

    def end_input(self) -> None:
        """Close the program's input when all of it is written."""
        self.input_ended = True
        self.write_input()

    def write_input(self) -> None:
        """Write as much as there is room for."""
        try:
            while self.input:
                self.input = self.input[os.write(self.stdin, self.input) :]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self.input, self.input_ended = b"", True
        if not self.input_ended or self.stdin < 0:
            return
        if self.stdin != self.master:
            os.close(self.stdin)
        else:
            with contextlib.suppress(OSError):
                os.write(self.master, b"\x04")  # how a terminal says that input has ended
        self.stdin = -1

    def resize(self, data: bytes) -> None:
        """Set the terminal's size as the client's is."""
        try:
            size = msgspec.json.decode(data, type=dict[str, int])
            packed = struct.pack("HHHH", size.get("Height", 0), size.get("Width", 0), 0, 0)
        except (msgspec.DecodeError, struct.error):
            return
        if self.master >= 0:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, packed)

    def _pipes(self) -> tuple[list[int], Streams]:
        theirs, given = [], {}
        for name, channel in (("stdout", STDOUT), ("stderr", STDERR)):
            if getattr(self.request, name):
                ours, end = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(ours, False)
                self.outputs[ours] = channel
                theirs.append(end)
                given[name] = end
        if self.request.stdin:
            end, self.stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.stdin, False)
            theirs.append(end)
            given["stdin"] = end
        null = subprocess.DEVNULL
        return theirs, Streams(
            stdin=given.get("stdin", null),
            stdout=given.get("stdout", null),
            stderr=given.get("stderr", null),
        )

    def _terminal(self) -> tuple[list[int], Streams]:
        self.master, slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.outputs[self.master] = STDOUT
        self.stdin = self.master if self.request.stdin else -1
        return [slave], Streams(stdin=slave, stdout=slave, stderr=slave, terminal=True)


class _Session:
    """One WebSocket; everything is done by one thread."""

    def __init__(self, connection: socket.socket, socketed: WSConnection) -> None:
        self._connection = connection
        self._socketed = socketed
        self._message = b""

    def send(self, event: events.Event) -> None:
        """Send, waiting for a slow client for a while. Raises OSError."""
        self._connection.settimeout(SEND_SECONDS)
        self._connection.sendall(self._socketed.send(event))

    def finish(self, status: dict[str, Any]) -> None:
        """Send the final Status and close."""
        self.send(events.BytesMessage(data=bytes([ERROR]) + msgspec.json.encode(status)))
        self.send(events.CloseConnection(code=1000))

    def relay(self, program: _Program) -> int | None:
        """Pass streams on until the program has ended; None: the client has gone."""
        assert program.execution is not None
        end = program.execution.fileno()
        ended = False
        while not ended or program.outputs:
            full = len(program.input) >= INPUT_MOST
            poll = select.poll()
            for fd, event in self._interests(program, full=full).items():
                poll.register(fd, event)
            if not ended:
                poll.register(end, select.POLLIN)
            ready = poll.poll(DRAIN_SECONDS * 1000 if ended else None)
            if ended and not ready:
                break
            for fd, event in ready:
                if fd == end:
                    ended = True
                    program.execution.poll()  # what it has left ends, too, and writes no more
                elif fd == self._connection.fileno():
                    if not self._receive(program):
                        return None
                elif event & select.POLLOUT and fd == program.stdin:
                    program.write_input()
                if fd in program.outputs and event & ~select.POLLOUT:
                    self._pass_on(program, fd)
            # What TLS has read already no poll tells of.
            if full and len(program.input) < INPUT_MOST and not self._receive(program):
                return None
        return program.execution.poll()

    def _interests(self, program: _Program, *, full: bool) -> dict[int, int]:
        """Return which descriptors are awaited for what."""
        wanted = dict.fromkeys(program.outputs, select.POLLIN)
        if program.input and program.stdin >= 0:
            wanted[program.stdin] = wanted.get(program.stdin, 0) | select.POLLOUT
        if not full:
            wanted[self._connection.fileno()] = select.POLLIN
        return wanted

    def _pass_on(self, program: _Program, fd: int) -> None:
        try:
            data = os.read(fd, PIECE)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose last user has gone
            data = b""
        if data:
            self.send(events.BytesMessage(data=bytes([program.outputs[fd]]) + data))
            return
        del program.outputs[fd]
        if fd != program.master:
            os.close(fd)

    def _receive(self, program: _Program) -> bool:
        """Take what the client has sent; return whether it is still there."""
        self._connection.settimeout(0.0)
        while len(program.input) < INPUT_MOST:
            try:
                data = self._connection.recv(65536)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            except OSError:
                return False
            if not data:
                return False
            try:
                self._socketed.receive_data(data)
                for event in self._socketed.events():
                    if not self._take(event, program):
                        return False
            except ProtocolError:
                return False
            self._connection.settimeout(0.0)
        return True

    def _take(self, event: events.Event, program: _Program) -> bool:
        match event:
            case events.Ping():
                self.send(event.response())
            case events.CloseConnection():
                with contextlib.suppress(OSError):
                    self.send(event.response())
                return False
            case events.Message():
                data = event.data
                self._message += data.encode() if isinstance(data, str) else bytes(data)
                if len(self._message) > MESSAGE_MOST:
                    words = f"a message is longer than {MESSAGE_MOST} bytes"
                    code = CloseReason.MESSAGE_TOO_BIG
                    with contextlib.suppress(OSError):
                        self.send(events.CloseConnection(code=code, reason=words))
                    return False
                if event.message_finished:
                    message, self._message = self._message, b""
                    self._act(message, program)
        return True

    def _act(self, message: bytes, program: _Program) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel == STDIN:
            program.take_input(data)
        elif channel == RESIZE:
            program.resize(data)
        elif channel == CLOSE and data == bytes([STDIN]):
            program.end_input()
