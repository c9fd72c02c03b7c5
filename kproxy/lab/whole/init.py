"""The init of one host: starts the host's programs, and starts again who has ended.

    python -m kproxy.lab.whole.init --host control1 --directory DIR

On real machines systemd does this for the kubelet, and the kubelet for the programs of the control
plane, which are static pods. In the directory:

``units.json``
    the programs (:class:`Unit`);
``running.json``
    who runs (:class:`State` by name): an init that was killed goes on with those that live;
``init.json``
    the state of the init itself;
``down.json``
    the programs that are to stay down. It is read again at SIGHUP, and who is not in it is
    started at once, without waiting for the end of a back-off.

The host gets a name of its own, in a namespace of names that ends with its processes.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from kproxy import logs
from kproxy.controlplane.backoff import CrashBackoff
from netns.errors import NetnsError
from netns.process import Process, ProcessId

MODULE = "kproxy.lab.whole.init"
UNITS, RUNNING, DOWN, SELF = "units.json", "running.json", "down.json", "init.json"
_CLONE_NEWUTS = 0x04000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")
U = TypeVar("U")


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A program. ``restart_s``: seconds from its end to its new start; None: as a kubelet does.

    That is at once, then after 10 s, 20 s … 300 s. Both streams are appended to ``log``.
    """

    name: str
    command: list[str]
    log: str
    restart_s: float | None = None
    env: dict[str, str] = {}


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A start of a unit that has not ended, as far as its init knows."""

    pid: int
    start_time: int
    starts: int


def write(path: Path, value: object) -> None:
    """Replace a file by a value as JSON; who reads it never sees half of it."""
    partial = path.with_suffix(".new")
    partial.write_bytes(msgspec.json.encode(value))
    partial.replace(path)


def read_units(directory: Path) -> list[Unit]:
    """Return the units of a host's directory."""
    return _read(directory / UNITS, list[Unit], [])


def read_running(directory: Path) -> dict[str, State]:
    """Return the state of the units that run, by name."""
    return _read(directory / RUNNING, dict[str, State], {})


def read_own(directory: Path) -> State | None:
    """Return the state of the init that was started last; None: there was none."""
    return _read(directory / SELF, State, None)


def read_down(directory: Path) -> set[str]:
    """Return the names of the units that are to stay down."""
    return set(_read(directory / DOWN, list[str], []))


def _read(path: Path, type_: type[T], otherwise: U) -> T | U:
    """Return the value in a file; ``otherwise`` if there is no such file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except FileNotFoundError:
        return otherwise


def command(host: str, directory: Path) -> list[str]:
    """Return the command that is a host's init."""
    return [sys.executable, "-m", MODULE, "--host", host, "--directory", str(directory)]


@dataclass(slots=True)
class _Watched:
    """A unit, and what its init knows of it. Times are those of the monotonic clock."""

    unit: Unit
    backoff: CrashBackoff = field(default_factory=CrashBackoff)
    process: Process | None = None
    starts: int = 0
    started: float = 0.0
    due: float = 0.0
    down: bool = False

    def ended(self, now: float) -> None:
        """Note that it has ended: say when it is due again."""
        self.process = None
        again = self.backoff.exited(started=self.started, now=now)
        self.due = again if self.unit.restart_s is None else now + self.unit.restart_s

    def wakes(self) -> bool:
        """Return whether it is to be started at its time."""
        return self.process is None and not self.down


class Init:
    """Keeps the units of a host running; see the module."""

    def __init__(self, host: str, directory: Path, log: logs.Log) -> None:
        self._directory = directory
        self._log = log
        self._host = host
        units = read_units(directory)
        self._watched = [_Watched(unit) for unit in units]
        self._wakeup, writer = os.pipe()
        for end in (self._wakeup, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def run(self) -> None:
        """Never returns."""
        own, before = ProcessId.of(os.getpid()), read_own(self._directory)
        assert own is not None
        starts = before.starts + 1 if before else 1
        state = State(pid=own.pid, start_time=own.start_time, starts=starts)
        write(self._directory / SELF, state)
        self._adopt()
        self._log.info("init started", host=self._host, units=len(self._watched))
        self._read_down()
        while True:
            self._start_due()
            self._wait()

    def _adopt(self) -> None:
        """Go on with what a former init has started and what still runs."""
        known = read_running(self._directory)
        for one in self._watched:
            state = known.get(one.unit.name)
            if state is None:
                continue
            one.starts = state.starts
            with contextlib.suppress(NetnsError):  # it has ended
                one.process = Process(ProcessId(state.pid, state.start_time))
                one.started = time.monotonic()

    def _read_down(self) -> None:
        """Bring those down that are to be, and those up that are no longer to be down."""
        names = read_down(self._directory)
        for one in self._watched:
            one.down = one.unit.name in names
            if one.down and one.process is not None:
                one.process.terminate()
            elif not one.down and one.process is None:
                one.due = 0.0

    def _start_due(self) -> None:
        now = time.monotonic()
        for one in self._watched:
            if one.wakes() and one.due <= now:
                self._start(one, now)

    def _start(self, one: _Watched, now: float) -> None:
        unit = one.unit
        one.starts += 1
        one.started = now
        try:
            with Path(unit.log).open("ab") as log:
                popen = subprocess.Popen(
                    unit.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **unit.env},
                    process_group=0,
                )
        except OSError as error:
            self._log.error("unit cannot start", unit=unit.name, error=str(error))
            one.ended(now)
            return
        identity = ProcessId.of(popen.pid)
        assert identity is not None  # a child stays at least a zombie until it is waited for
        one.process = Process(identity, popen=popen)
        self._note()
        start = {"pid": identity.pid, "start_time": identity.start_time, "starts": one.starts}
        self._log.info("unit started", unit=unit.name, host=self._host, **start)

    def _note(self) -> None:
        running = {
            one.unit.name: State(
                pid=one.process.pid,
                start_time=one.process.identity.start_time,
                starts=one.starts,
            )
            for one in self._watched
            if one.process is not None
        }
        write(self._directory / RUNNING, running)

    def _wait(self) -> None:
        """Sleep until a program has ended, one is due, or a signal has come."""
        poller = select.poll()
        poller.register(self._wakeup, select.POLLIN)
        alive = {one.process.fileno(): one for one in self._watched if one.process is not None}
        for descriptor in alive:
            poller.register(descriptor, select.POLLIN)
        due = [one.due for one in self._watched if one.wakes()]
        left = max(0.0, min(due) - time.monotonic()) if due else None
        # A millisecond more: poll rounds down, and would be asked again and again before its time.
        ready = [fd for fd, _ in poller.poll(None if left is None else left * 1000 + 1)]
        for descriptor in ready:
            if descriptor in alive:
                self._ended(alive[descriptor])
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
            self._read_down()

    def _ended(self, one: _Watched) -> None:
        assert one.process is not None
        code, now = one.process.wait(0), time.monotonic()
        pid = one.process.pid
        one.ended(now)
        wait = None if one.down else round(one.due - now, 3)
        self._log.info(
            "unit ended", unit=one.unit.name, host=self._host, pid=pid, code=code, again_s=wait
        )
        self._note()


def main(arguments: Sequence[str]) -> int:
    """Run as a process; ends by a signal only."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.lab.whole.init", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args(arguments)
    if _libc.unshare(_CLONE_NEWUTS) == 0:
        socket.sethostname(options.host)
    Init(options.host, options.directory, logs.Log("init")).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
