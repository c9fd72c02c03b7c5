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
import select
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from kproxy.errors import KproxyError, UsageError

SECOND = 1_000_000_000


class Run(Protocol):
    """One run of a profile, as the process that serves it sees it."""

    @property
    def trial(self) -> int:
        """The trial's number, as in the profile."""

    @property
    def t0(self) -> int:
        """When the run began."""

    @property
    def fds(self) -> Sequence[int]:
        """What to wait for besides commands and the deadline."""

    @property
    def sent(self) -> int:
        """How much has been sent so far: packets, or finished requests."""

    @property
    def finished(self) -> bool:
        """Whether the profile's duration is over (never, without one)."""

    @property
    def endless(self) -> bool:
        """Whether the profile has no duration."""

    def deadline(self) -> int:
        """Return when :meth:`step` has something to do next."""

    def step(self) -> None:
        """Do what has become due; called at the deadline or when one of ``fds`` is readable."""

    def close(self) -> dict[str, Any]:
        """End the run; return its report."""


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


class Process:
    """A generator: commands in, runs out. ``open_run`` reads a profile and begins its run."""

    def __init__(self, open_run: Callable[[Path], Run]) -> None:
        self._open = open_run
        self._run: Run | None = None
        self._over = False

    def serve(self, fd: int = 0) -> None:
        """Serve commands until told to quit."""
        commands = Commands(fd)
        answer("ready", pid=os.getpid(), mono_ns=time.monotonic_ns())
        while not self._over:
            if self._wait([fd]):
                for command in commands.read():
                    self._obey(command)

    def once(self, path: Path) -> None:
        """Run one profile to the end of its duration and report."""
        self._start(path)
        if self._run is not None and self._run.endless:
            raise UsageError(f"{path}: duration_s: must be given with --once")
        while self._run is not None:
            self._wait([])

    def _wait(self, fds: list[int]) -> bool:
        """Sleep until something is due or readable, serve the run; whether ``fds`` are."""
        timeout, watched = None, list(fds)
        if self._run is not None:
            timeout = max(0, self._run.deadline() - time.monotonic_ns()) / SECOND
            watched += self._run.fds
        # select, because it takes microseconds; poll and epoll take milliseconds.
        readable, _, _ = select.select(watched, [], [], timeout)
        if self._run is not None:
            self._run.step()
            if self._run.finished:
                self._stop()
        return any(fd in readable for fd in fds)

    def _obey(self, command: dict[str, Any]) -> None:
        """Do one command; what is wrong with it is answered, not raised."""
        what = command["do"]
        try:
            if what == "start":
                self._start(Path(str(command.get("profile"))))
            elif what == "mark":
                now = time.monotonic_ns()
                sent = self._run.sent if self._run is not None else 0
                answer("mark", name=command.get("name"), mono_ns=now, sent=sent)
            elif what == "stop":
                self._stop()
            elif what == "quit":
                if self._run is not None:
                    self._stop()
                self._over = True
            else:
                answer("error", message=f"unknown command: {command}")
        except (KproxyError, OSError) as err:
            answer("error", message=str(err))

    def _start(self, path: Path) -> None:
        if self._run is not None:
            raise UsageError("start: a run is going on", remedy="stop it first")
        self._run = self._open(path)
        answer("started", trial=self._run.trial, mono_ns=self._run.t0)

    def _stop(self) -> None:
        """End the run and report; without a run the report is null."""
        report = None if self._run is None else self._run.close()
        self._run = None
        answer("stopped", report=report)


def main(program: str, open_run: Callable[[Path], Run], arguments: list[str]) -> int:
    """Run a generator as a process; returns its exit code."""
    try:
        process = Process(open_run)
        if not arguments:
            process.serve()
        elif len(arguments) == 2 and arguments[0] == "--once":
            process.once(Path(arguments[1]))
        else:
            raise UsageError(f"usage: python -m kproxy.traffic.{program} [--once PROFILE]")
    except KproxyError as err:
        print(f"{program}: {err}", file=sys.stderr)
        return 2
    return 0
