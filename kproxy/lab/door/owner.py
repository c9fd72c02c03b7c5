"""Keeps a lab alive, and lets commands in: the process behind ``kproxy lab up``.

It passes frames between any number of clients at a unix socket and the one door, which may be in
an embedded kernel. It waits for none of them: each has a buffer, which the other side's credit
keeps small.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from kproxy import errors
from kproxy.exhaustion import wait_if_exhausted
from kproxy.lab.door import messages, wakeup
from kproxy.lab.door.directory import LabDirectory
from netns.kernels.stdio import Outlet

GRACE_SECONDS = 30.0
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Told = Callable[[str], None]


class Ended(errors.KproxyError):
    """The lab could not be started, or has ended by itself. ``code``: the exit code."""

    def __init__(self, message: str, remedy: str, code: int) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class _Client:
    """A connection, which is one session."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.decoder = messages.Decoder()
        self.outlet = Outlet(connection.fileno())
        self.leaving = False
        """Whether it is to be closed as soon as everything has been written."""


class Keeper:
    """One lab, as long as it lives; see the module."""

    def __init__(
        self, directory: LabDirectory, *, progress: Told, ready: Callable[[messages.Report], None]
    ) -> None:
        self._directory = directory
        self._progress = progress
        self._ready = ready
        self._is_ready = False
        self._failure: messages.Failure | None = None
        self._clients: dict[int, _Client] = {}
        self._last = 0
        self._decoder = messages.Decoder()
        self._stop_at: float | None = None

    def run(self, command: Sequence[str], job: messages.Job) -> None:
        """Start the door by a command, and stay until the lab has ended.

        A signal (SIGINT, SIGTERM, SIGHUP) takes the lab down, a second one at once. Raises
        :class:`Ended` if it was not asked to, or could not be started.
        """
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(wakeup.readable(_ENDS))
            listener = stack.enter_context(self._directory.listen())
            process = stack.enter_context(_started(command))
            assert process.stdin is not None
            assert process.stdout is not None
            self._process = process
            self._from_door = process.stdout.fileno()
            os.set_blocking(process.stdin.fileno(), False)
            self._to_door = Outlet(process.stdin.fileno())
            self._to_door.add(messages.pack_for(0, messages.JOB, msgspec.json.encode(job)))
            while self._step(signals, listener):
                pass
            for client in self._clients.values():
                client.socket.close()
            code = process.wait()
        if self._failure is not None:
            failure = self._failure
            raise Ended(failure.message, failure.remedy, failure.code)
        if self._stop_at is None:
            raise Ended(
                f"the lab has ended by itself (exit code {code})",
                f"see {self._directory.log}",
                code or 1,
            )

    def _step(self, signals: int, listener: socket.socket) -> bool:
        """Wait for something and deal with it; False once the door is closed."""
        poller = select.poll()
        for descriptor in (signals, listener.fileno()):
            poller.register(descriptor, select.POLLIN)
        poller.register(self._from_door, select.POLLIN)
        if self._to_door.pending:
            poller.register(self._to_door.descriptor, select.POLLOUT)
        by_descriptor = {one.socket.fileno(): number for number, one in self._clients.items()}
        for descriptor, number in by_descriptor.items():
            pending = bool(self._clients[number].outlet.pending)
            poller.register(descriptor, select.POLLIN | select.POLLOUT * pending)
        left = None if self._stop_at is None else max(0.0, self._stop_at - time.monotonic())
        ready = dict(poller.poll(None if left is None else left * 1000 + 1))
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._process.kill()
        if signals in ready and os.read(signals, 4096):
            self._stop()
        if listener.fileno() in ready:
            self._accept(listener)
        if ready.get(self._to_door.descriptor, 0) & ~select.POLLIN:
            self._to_door.write()
        for descriptor, number in by_descriptor.items():
            self._attend(number, ready.get(descriptor, 0))
        return self._from_door not in ready or self._read_door()

    def _stop(self) -> None:
        if self._stop_at is not None:
            self._process.kill()
            return
        self._progress("taking the lab down")
        self._stop_at = time.monotonic() + GRACE_SECONDS
        self._process.terminate()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            wait_if_exhausted(error)  # The lab must not end because one more cannot come in.
            return
        self._last += 1
        self._clients[self._last] = client = _Client(connection)
        if not self._is_ready:
            text = f"lab {self._directory.name} is still being started (see `kproxy lab list`)"
            client.outlet.add(messages.pack(messages.REFUSED, text.encode()))
            client.leaving = True

    def _attend(self, number: int, events: int) -> None:
        """Read from a client, and write to it."""
        client = self._clients[number]
        if events & select.POLLOUT:
            client.outlet.write()
        if events & ~select.POLLOUT and not client.leaving:
            try:
                data = client.socket.recv(messages.LARGEST)
            except OSError:
                data = b""
            for kind, payload in client.decoder.feed(data):
                self._to_door.add(messages.pack_for(number, kind, payload))
            if not data:
                self._to_door.add(messages.pack_for(number, messages.GONE))
                self._forget(number)
                return
        if client.outlet.broken or (client.leaving and not client.outlet.pending):
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._clients.pop(number).socket.close()

    def _read_door(self) -> bool:
        data = os.read(self._from_door, messages.LARGEST)
        for kind, payload in self._decoder.feed(data):
            number, rest = messages.split(payload)
            if number == 0:
                self._heed(kind, rest)
            elif number in self._clients:
                client = self._clients[number]
                client.outlet.add(messages.pack(kind, rest))
                client.outlet.write()
                client.leaving = kind in (messages.EXITED, messages.REFUSED)
        return bool(data)

    def _heed(self, kind: int, payload: bytes) -> None:
        if kind == messages.PROGRESS:
            self._progress(payload.decode())
        elif kind == messages.READY:
            self._is_ready = True
            self._ready(msgspec.json.decode(payload, type=messages.Report))
        elif kind == messages.FAILED:
            self._failure = msgspec.json.decode(payload, type=messages.Failure)


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the door in a session of its own; it has ended at the end of the block."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
