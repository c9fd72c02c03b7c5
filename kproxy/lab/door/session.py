"""One command that runs in a lab, as the door sees it."""

import os
import signal
from collections.abc import Mapping
from typing import Any

from kproxy.lab.door import messages
from netns.kernels.guest_child import Child


class Session:
    """A command, its streams, and what its client has allowed to be sent.

    ``outputs`` are the descriptors from which may be read now. The calling thread must be in the
    network namespace in which the command is to run. Raises OSError.
    """

    def __init__(self, number: int, start: messages.Start, env: Mapping[str, str]) -> None:
        self.number = number
        self._room = messages.CREDIT
        self._child = Child(_told(start, env))
        self.pid = self._child.pid
        self.code: int | None = None
        """The exit code; None: it runs."""

    @property
    def outputs(self) -> list[int]:
        """Return what to poll for output: nothing while the client is behind."""
        return list(self._child.outputs) if self._room > 0 else []

    @property
    def has_room(self) -> bool:
        """Return whether output may be sent now, so that none is left behind at the end."""
        return self._room > 0

    @property
    def wants_input(self) -> int | None:
        """Return the descriptor to which input waits to be written."""
        return self._child.wants_input

    def read(self, descriptor: int) -> bytes:
        """Read output that is there; return the frame, nothing at its end."""
        kind = self._child.outputs[descriptor]
        try:
            data = os.read(descriptor, min(messages.LARGEST, self._room))
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if not data:
            if kind == messages.TTY:
                del self._child.outputs[descriptor]
            else:
                self._child.close_output(kind)
            return b""
        self._room -= len(data)
        return messages.pack_for(self.number, kind, data)

    def write(self) -> bytes:
        """Give the command input that waits; return the frame that says how much."""
        taken = self._child.write_input()
        return messages.pack_for(self.number, messages.TAKEN, taken.to_bytes(4, "big"))

    def obey(self, kind: int, payload: bytes) -> None:
        """Deal with a frame of the client."""
        if kind == messages.STDIN:
            self._child.add_input(payload)
        elif kind == messages.TAKEN:
            self._room += sum(messages.numbers(payload))
        elif kind == messages.SIGNAL:
            self._child.signal(*messages.numbers(payload))
        elif kind == messages.RESIZED:
            self._child.set_window(*messages.numbers(payload))
        elif kind == messages.CLOSED:
            self._child.close_output(*messages.numbers(payload))
        elif kind == messages.GONE:
            self.hang_up()

    def hang_up(self) -> None:
        """Tell the command that nobody is there any more, and end it."""
        self._child.signal(signal.SIGHUP)
        for kind in (messages.STDOUT, messages.STDERR):
            self._child.close_output(kind)
        self._child.add_input(b"")

    def close(self) -> None:
        """Let go of the streams of a command that has ended."""
        self._child.close()

    def kill(self) -> None:
        """End the command and what it started, at once."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _told(start: messages.Start, env: Mapping[str, str]) -> dict[str, Any]:
    return {
        "argv": start.argv,
        "tty": list(start.tty),
        "window": start.window,
        "keys": start.keys,
        "stdin": None,
        "umask": 0o022,
        "cwd": start.cwd,
        "environment": {**env, **start.env},
    }
