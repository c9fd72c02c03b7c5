"""A command in a lab that is asked one thing after the other: a line in, a line out."""

import contextlib
import select
import threading
import time

from kproxy import errors
from kproxy.lab.door import messages
from kproxy.lab.door.client import Lost, Wire
from kproxy.lab.door.directory import LabDirectory


class Conversation:
    """Runs a command until :meth:`close`; any thread may ask, one at a time.

    The command reads a line and writes a line. What it writes to standard error is told when it
    ends by itself. Raises UsageError if there is no such lab.
    """

    def __init__(self, directory: LabDirectory, start: messages.Start) -> None:
        self._name = directory.name
        self._wire = Wire(directory, start)
        self._lock = threading.Lock()
        self._out = bytearray()
        self._said = bytearray()
        self._closed = False

    def ask(self, line: bytes, timeout: float) -> bytes:
        """Return the answer to a line (without its end). Raises KproxyError, :class:`Lost`.

        After an answer that did not come in ``timeout`` seconds nothing more can be asked: who
        knows to which question the next line would be the answer.
        """
        with self._lock:
            if self._closed:
                raise Lost(f"nobody in lab {self._name} answers any more")
            deadline = time.monotonic() + timeout
            rest = line + b"\n"
            while b"\n" not in self._out:
                while rest and self._wire.credit > 0:
                    piece = rest[: min(self._wire.credit, messages.LARGEST)]
                    rest = rest[len(piece) :]
                    self._wire.credit -= len(piece)
                    self._wire.send(messages.STDIN, piece)
                self._step(deadline)
            answer, _, self._out = self._out.partition(b"\n")
            return bytes(answer)

    def _step(self, deadline: float) -> None:
        poller = select.poll()
        poller.register(
            self._wire.socket, select.POLLIN | select.POLLOUT * bool(self._wire.outlet.pending)
        )
        left = deadline - time.monotonic()
        ready = poller.poll(left * 1000 + 1) if left > 0 else []
        if not ready:
            self._close()
            raise errors.KproxyError(f"lab {self._name} does not answer")
        if ready[0][1] & select.POLLOUT:
            self._wire.outlet.write()
        for kind, payload in self._wire.receive():
            self._wire.send_numbers(messages.TAKEN, len(payload))
            (self._out if kind == messages.STDOUT else self._said).extend(payload)
        if self._wire.code is not None and b"\n" not in self._out:
            self._close()
            last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
            raise Lost(last or f"who looked at lab {self._name} has ended ({self._wire.code})")

    def wait_end(self) -> None:
        """Wait until nobody is there any more, without asking: the lab is gone, or closed here.

        Raises nothing; who asks afterwards is told why.
        """
        poller = select.poll()
        try:
            poller.register(self._wire.socket, select.POLLRDHUP)
        except ValueError:  # closed before
            return
        poller.poll()

    def close(self) -> None:
        """End the command. Not while another thread waits for an answer: that ends it, too."""
        with contextlib.suppress(OSError):
            self._wire.socket.shutdown(2)  # wakes who waits
        with self._lock:
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._wire.socket.close()
