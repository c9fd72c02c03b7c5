"""Runs the long programs of a build: with low priority, logged, and ended when we end.

A build is many processes. They are a session of their own, so an interrupt reaches us only, and
we end all of them. Should we be killed, the kernel sends SIGTERM to the first of them, and make
passes that on. They inherit a lock, too: who wants to go on with the same build waits until all
are gone.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns import errors
from netns.process import end_with_parent

NICE = 15
TICK = 1.0  # seconds after which progress is shown again although nothing was printed
GRACE = 10.0  # seconds between asking a program to end and killing it
KEPT_LINES = 4000
TOLD_LINES = 12
# What marks the line on which a build went wrong; with several jobs it is not among the last.
_WRONG = re.compile(
    r"\berror\b:|\bError \d+|\*\*\* |fatal error|undefined reference|[Nn]o space left|"
    r"[Cc]annot |[Cc]an't |not found|Killed|Permission denied"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all programs of a build have in common: environment, log, and the lock they hold.

    ``on_line`` gets each line that a program prints; ``on_tick`` is called at least every second.
    """

    environment: Mapping[str, str]
    log: Path
    lock: int
    on_line: Callable[[str], None]
    on_tick: Callable[[], None]


def run(argv: Sequence[str | Path], around: Surroundings) -> list[str]:
    """Run a program to its end and return the last lines that it printed.

    Raises BuildFailed with the lines that tell why, if it does not end well. Whatever is raised
    while it runs (KeyboardInterrupt, say), all its processes are gone afterwards.
    """
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    with around.log.open("ab", buffering=0) as log:
        log.write(f"$ {' '.join(map(str, argv))}\n".encode())
        with _start(argv, around) as process:
            try:
                _follow(process, around, log.write, lines)
                code = process.wait()
            except BaseException:
                _end(process)
                raise
    if code != 0:
        name = Path(argv[0]).name
        raise errors.BuildFailed(
            f"{name} failed with exit code {code}",
            remedy=f"the whole log: {around.log}",
            output=tuple(telling(list(lines))),
        )
    return list(lines)


def telling(lines: Sequence[str]) -> list[str]:
    """Return the lines that tell why a program failed: from the first error on, or the last."""
    for number, line in enumerate(lines):
        if _WRONG.search(line):
            begin = max(0, number - 2)
            return list(lines[begin : begin + TOLD_LINES])
    return list(lines[-TOLD_LINES:])


def _start(argv: Sequence[str | Path], around: Surroundings) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def prepare() -> None:
        os.nice(NICE)
        end_with_parent()
        if os.getppid() != parent:  # killed before that call: no signal will come
            os._exit(125)

    try:
        return subprocess.Popen(
            argv,
            env=around.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(around.lock,),
            preexec_fn=prepare,
        )
    except OSError as error:
        raise errors.BuildFailed(f"{argv[0]} does not start: {error.strerror}") from None


def _follow(
    process: subprocess.Popen[bytes],
    around: Surroundings,
    log: Callable[[bytes], object],
    lines: deque[str],
) -> None:
    """Take what the program prints until it has closed its output."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    rest = b""
    while True:
        if select.select([stream], [], [], TICK)[0]:
            data = os.read(stream, 65536)
            if not data:
                break
            log(data)
            *whole, rest = (rest + data).split(b"\n")
            for raw in whole:
                lines.append(raw.decode(errors="replace"))
                around.on_line(lines[-1])
        around.on_tick()
    if rest:
        lines.append(rest.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and its children, which are its session, and see them gone."""
    assert process.stdout is not None
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # none is left
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
    # The others are not our children; but when the last of them is gone, its output is closed.
    deadline = time.monotonic() + GRACE
    while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(process.stdout.fileno(), 65536):
            return
