"""How a generator is told what to do: one JSON object a line on standard input, answers likewise.

=================================  ==========================================================
command                            answer on standard output
=================================  ==========================================================
(the process has started)          ``{"event": "ready", "pid": …, "mono_ns": …}``
``{"do": "start", "profile": P}``  ``{"event": "started", "trial": …, "mono_ns": t0}``
``{"do": "mark", "name": N}``      ``{"event": "mark", "name": N, "mono_ns": …, "sent": …}``
``{"do": "stop"}``                 ``{"event": "stopped", "report": {…}}``
(the profile's duration is over)   ``{"event": "stopped", "report": {…}}``
``{"do": "quit"}``, end of input   (stops; the process ends with code 0)
anything wrong                     ``{"event": "error", "message": "…"}``; the process goes on
=================================  ==========================================================

After ``stopped`` the same process takes the next ``start``: a start costs no new process. The end
of input ends the process, so no generator outlives the lab that holds the pipe's other end.
"""

import json
import os
import sys
import time
from typing import Any


class Commands:
    """Commands from standard input, without blocking. Wait for ``fd`` to be readable."""

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Read once and return the commands that are complete; end of input is a ``quit``."""
        data = os.read(self.fd, 65536)
        if not data:
            return [{"do": "quit"}]
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [self._parse(line) for line in lines if line.strip()]

    @staticmethod
    def _parse(line: bytes) -> dict[str, Any]:
        try:
            command = json.loads(line)
        except ValueError:
            command = None
        if not isinstance(command, dict) or not isinstance(command.get("do"), str):
            return {"do": "?", "text": line.decode(errors="replace")}
        return command


def answer(event: str, **fields: Any) -> None:
    """Write one answer. A reader that is gone is no error: end of input will follow."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def ready() -> None:
    """Say that the process now reads commands."""
    answer("ready", pid=os.getpid(), mono_ns=time.monotonic_ns())
