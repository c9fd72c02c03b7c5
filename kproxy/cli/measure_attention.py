"""What the user does while packets are sent: marks a moment, ends the run, looks at the live line.

A mark is made by a signal (``--mark-on SIGUSR1``) or by any key but ``q`` on a terminal. The time
is taken where the signal arrives, not when somebody comes to read it.
"""

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from kproxy.errors import UsageError
from kproxy.traffic.remote.terms import Mark

MARKS = {"SIGUSR1": signal.SIGUSR1, "SIGUSR2": signal.SIGUSR2, "SIGHUP": signal.SIGHUP}
_ENDS = (signal.SIGINT, signal.SIGTERM)


def mark_signal(name: str) -> signal.Signals:
    """Return the signal of this name. UsageError."""
    found = MARKS.get(name.upper())
    if found is None:
        raise UsageError(f"--mark-on {name!r}", remedy=f"one of {', '.join(MARKS)}")
    return found


def keys_come() -> bool:
    """Return whether keys come to this process: whoever asks for them in the background stops."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False  # a terminal of others


class Attention:
    """Watches signals and keys; see :class:`kproxy.traffic.remote.terms.Attention`."""

    def __init__(self, marking: signal.Signals | None, *, keys: bool, live: bool) -> None:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        self._marking = marking
        self._keys = keys
        self._live = live
        self._marks: list[int] = []
        self._number = 0
        self._end = False

    @property
    def fds(self) -> Sequence[int]:
        """What becomes readable when the user wants something."""
        return [self._reader, sys.stdin.fileno()] if self._keys else [self._reader]

    def read(self) -> tuple[Sequence[Mark], bool]:
        """Return the marks that were made, and whether the run is to end."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        if self._keys:
            self._read_keys()
        found = []
        while self._marks:
            self._number += 1
            found.append(Mark(name=f"mark {self._number}", ns=self._marks.pop(0)))
        return found, self._end

    def _read_keys(self) -> None:
        now = time.monotonic_ns()
        fd = sys.stdin.fileno()
        if not select.select([fd], [], [], 0)[0]:
            return
        try:
            keys = os.read(fd, 64)
        except OSError:
            keys = b""
        if not keys:  # the terminal is gone
            self._keys = False
        self._end = self._end or b"q" in keys
        self._marks += [now for key in keys if key != ord("q")]

    def show(self, sent: int, received: int, seconds: float) -> None:
        """Show how far the run is."""
        if not self._live:
            return
        line = f"{seconds:6.1f} s  sent {sent:,}  received {received:,}  under way or lost "
        line += f"{max(0, sent - received):,}  marks {self._number}"
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if number in _ENDS:
            if self._end:  # who asks twice does not want the account
                raise KeyboardInterrupt
            self._end = True
        else:
            self._marks.append(time.monotonic_ns())
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    @contextlib.contextmanager
    def watching(self) -> Iterator["Attention"]:
        """Watch for the block; signals and terminal are then as they were."""
        numbers = [*_ENDS, *([self._marking] if self._marking else [])]
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        try:
            with _single_keys() if self._keys else contextlib.nullcontext():
                yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._reader)
            os.close(self._writer)
            if self._live:
                click.echo("\r\x1b[K", nl=False, err=True)


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Have keys come at once and not shown, while signals go on."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
