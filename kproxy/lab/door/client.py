"""Runs one command in a lab that somebody else keeps alive, as if it ran here.

Bytes, keys, signals, the size of the terminal and the exit code go to and fro.
"""

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from kproxy import errors
from kproxy.lab.door import messages, wakeup
from kproxy.lab.door.directory import LabDirectory
from netns.kernels.stdio import Outlet, Stdio

_PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LOCAL = (signal.SIGWINCH, signal.SIGCONT)


class Lost(errors.KproxyError):
    """The lab has ended while a command ran in it."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed, and its exit code."""

    code: int
    stdout: bytes
    stderr: bytes


class Wire:
    """The connection of one command."""

    def __init__(self, directory: LabDirectory, start: messages.Start) -> None:
        self._directory = directory
        self.socket = directory.connect()
        self.socket.setblocking(False)
        self.outlet = Outlet(self.socket.fileno())
        self._decoder = messages.Decoder()
        self.credit = messages.CREDIT
        self.code: int | None = None
        self.send(messages.OPEN, msgspec.json.encode(start))

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame, as soon as the other side takes it."""
        self.outlet.add(messages.pack(kind, payload))

    def send_numbers(self, kind: int, *numbers: int) -> None:
        """Send a frame of numbers."""
        self.outlet.add(messages.pack_number(kind, *numbers))

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """Yield the frames that are there. Raises UsageError if refused, Lost at the end."""
        try:
            data = self.socket.recv(messages.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for kind, payload in self._decoder.feed(data):
            if kind == messages.REFUSED:
                raise errors.UsageError(payload.decode())
            if kind == messages.EXITED:
                (self.code,) = messages.numbers(payload)
            elif kind == messages.TAKEN:
                self.credit += sum(messages.numbers(payload))
            else:
                yield kind, payload
        if not data and self.code is None:
            raise Lost(
                f"lab {self._directory.name} has ended meanwhile",
                remedy=f"see {self._directory.log}",
            )


def capture(directory: LabDirectory, start: messages.Start, data: bytes = b"") -> Output:
    """Run a command to its end, with ``data`` as its input; return what it printed.

    Raises UsageError if there is no such lab or host, :class:`Lost`.
    """
    wire = Wire(directory, start)
    found: dict[int, bytearray] = {messages.STDOUT: bytearray(), messages.STDERR: bytearray()}
    ended = False
    with wire.socket:
        while wire.code is None:
            while data and wire.credit > 0:
                piece = data[: min(wire.credit, messages.LARGEST)]
                data = data[len(piece) :]
                wire.credit -= len(piece)
                wire.send(messages.STDIN, piece)
            if not data and not ended:
                ended = True
                wire.send(messages.STDIN)
            poller = select.poll()
            writes = select.POLLOUT * bool(wire.outlet.pending)
            poller.register(wire.socket, select.POLLIN | writes)
            for _, events in poller.poll():
                if events & select.POLLOUT:
                    wire.outlet.write()
            for kind, payload in wire.receive():
                found[kind] += payload
                wire.send_numbers(messages.TAKEN, len(payload))
    return Output(wire.code, bytes(found[messages.STDOUT]), bytes(found[messages.STDERR]))


def attach(directory: LabDirectory, start: messages.Start, stdio: Stdio | None = None) -> int:
    """Run a command with this process's streams; return its exit code. Raises as above."""
    stdio = stdio or Stdio()
    start = msgspec.structs.replace(
        start, tty=stdio.is_tty, window=stdio.window(), keys=stdio.keys
    )
    return _Attached(Wire(directory, start), stdio).run()


class _Attached:
    """A command whose streams are ours."""

    def __init__(self, wire: Wire, stdio: Stdio) -> None:
        self._wire = wire
        self._stdio = stdio
        self._outlets = {
            messages.STDOUT: Outlet(1),
            messages.STDERR: Outlet(2),
            messages.TTY: Outlet(stdio.terminal),
        }
        self._input_ended = False
        self._told_broken: set[int] = set()

    def run(self) -> int:
        with self._wire.socket, wakeup.readable(_caught()) as signals, self._stdio.raw():
            while self._wire.code is None or any(one.pending for one in self._outlets.values()):
                self._step(signals)
        return self._wire.code

    def _step(self, signals: int) -> None:
        ready = self._wait(signals)
        if signals in ready:
            for number in os.read(signals, 4096):
                self._signalled(number)
        for kind, outlet in self._outlets.items():
            if outlet.pending and ready.get(outlet.descriptor, 0) & ~select.POLLIN:
                self._write(kind, outlet)
        if ready.get(0, 0) & ~select.POLLOUT and self._reads_input():
            self._read_input()
        own = self._wire.socket.fileno()
        if ready.get(own, 0) & select.POLLOUT:
            self._wire.outlet.write()
        if ready.get(own, 0) & ~select.POLLOUT:
            for kind, payload in self._wire.receive():
                outlet = self._outlets[kind]
                outlet.add(payload)
                if outlet.broken:  # nobody takes it any more, and the command is not to wait
                    self._wire.send_numbers(messages.TAKEN, len(payload))

    def _wait(self, signals: int) -> dict[int, int]:
        wanted = {signals: select.POLLIN}
        if self._wire.code is None:
            writes = select.POLLOUT * bool(self._wire.outlet.pending)
            wanted[self._wire.socket.fileno()] = select.POLLIN | writes
        if self._reads_input():
            wanted[0] = select.POLLIN
        for outlet in self._outlets.values():
            if outlet.pending:
                wanted[outlet.descriptor] = wanted.get(outlet.descriptor, 0) | select.POLLOUT
        poller = select.poll()
        for descriptor, events in wanted.items():
            poller.register(descriptor, events)
        return dict(poller.poll())

    def _reads_input(self) -> bool:
        return (
            not self._input_ended
            and self._wire.code is None
            and self._wire.credit > 0
            and self._stdio.reads_input()
        )

    def _read_input(self) -> None:
        try:
            data = os.read(0, min(self._wire.credit, messages.LARGEST))
        except OSError:  # closed, or a terminal that is gone
            data = b""
        self._wire.credit -= len(data)
        self._input_ended = not data
        self._wire.send(messages.STDIN, data)

    def _write(self, kind: int, outlet: Outlet) -> None:
        before = len(outlet.pending)
        outlet.write()
        self._wire.send_numbers(messages.TAKEN, before - len(outlet.pending))
        if outlet.broken and kind not in self._told_broken:
            self._told_broken.add(kind)
            self._wire.send_numbers(messages.CLOSED, kind)

    def _signalled(self, number: int) -> None:
        if number in _LOCAL:
            if number == signal.SIGCONT:
                self._stdio.make_raw()
            self._wire.send_numbers(messages.RESIZED, *self._stdio.window())
        else:
            self._wire.send_numbers(messages.SIGNAL, number)


def _caught() -> list[signal.Signals]:
    """Return the signals to be heard of: those that our parent lets us ignore stay ignored."""
    return [n for n in (*_PASSED, *_LOCAL) if signal.getsignal(n) is not signal.SIG_IGN]
