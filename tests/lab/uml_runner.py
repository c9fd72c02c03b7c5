"""Starts commands in an embedded kernel, and looks for what they leave on the host."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEADLINE = 300.0  # for anything that is waited for; a loaded machine may boot slowly
START = (sys.executable, "-m", "netns.kernels", "--kernel", "uml", "--memory", "256M")


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs commands with a state directory of its own, by which its processes are known."""

    state: Path
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        return [*self.prefix, *START, *options, "--", *command]

    def variables(self) -> dict[str, str]:
        return os.environ | {"KPROXY_STATE_DIR": str(self.state)} | self.environment

    def run(
        self, *command: str, options: Sequence[str] = (), **how: Any
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run to the end; standard input is empty unless given."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if "input" not in how else {}
        return subprocess.run(
            self.argv(command, options),
            env=self.variables(),
            capture_output=True,
            timeout=DEADLINE,
            check=False,
            **{**given, **how},
        )

    def start(self, *command: str, options: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start with pipes for all three streams."""
        return subprocess.Popen(
            self.argv(command, options),
            env=self.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def processes(self) -> list[int]:
        """Return the PIDs of all live processes of our kernels (helpers and stubs as well)."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                directory = (entry / "cwd").readlink()
            except OSError:
                continue
            if directory.is_relative_to(self.state):
                found.append(int(entry.name))
        return found

    def leftovers(self) -> list[str]:
        """Return what is left on the host: processes and run directories."""
        directories = [str(path) for path in (self.state / "guests").glob("*")]
        return [*map(str, self.processes()), *directories]


def wait_until_clean(runner: Runner) -> list[str]:
    """Wait until nothing is left, or the deadline; return what is left."""
    return _wait_until_empty(runner.leftovers)


def wait_until_dead(runner: Runner) -> list[str]:
    """Wait until no process is left, or the deadline; return what is left (maybe directories)."""
    _wait_until_empty(runner.processes)
    return runner.leftovers()


def _wait_until_empty(look: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + DEADLINE
    while look() and time.monotonic() < deadline:
        time.sleep(0.05)  # there is no event for "somebody else's grandchildren are gone"
    return look()


def read_until(descriptor: int, wanted: bytes) -> bytes:
    """Read until ``wanted`` has come. Fails with what has come instead at the end or deadline."""
    seen = b""
    deadline = time.monotonic() + DEADLINE
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no {wanted!r} in time, but {seen!r}"
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # EIO: the terminal was closed
            data = b""
        assert data, f"the end instead of {wanted!r}: {seen!r}"
        seen += data
    return seen


def start_in_terminal(runner: Runner, *command: str) -> tuple[int, int]:
    """Start a command in a terminal of its own; return its PID and our end of the terminal."""
    argv, variables = runner.argv(command), runner.variables()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, variables)
    return pid, terminal
