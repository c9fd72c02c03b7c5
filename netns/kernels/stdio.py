"""The standard streams of this process, as the far ends of those of a command in a guest."""

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator


class Stdio:
    """What the three standard streams are, and the terminal among them if there is one.

    ``is_tty`` holds for each of them; ``keys`` tells whether keys may be read from the terminal
    (it is standard input, and this process is not in the background).
    """

    def __init__(self) -> None:
        self.is_tty = tuple(os.isatty(number) for number in range(3))
        self.keys = self.is_tty[0] and _in_foreground(0)
        self._terminal = next((number for number in (1, 2, 0) if self.is_tty[number]), None)
        self._settings = termios.tcgetattr(0) if self.keys else None

    @property
    def terminal(self) -> int:
        """The stream to which output for the terminal goes."""
        return 1 if self._terminal is None else self._terminal

    def window(self) -> tuple[int, int]:
        """Return rows and columns of the terminal; zeros if there is none or it does not know."""
        if self._terminal is None:
            return 0, 0
        size = os.get_terminal_size(self._terminal)
        return size.lines, size.columns

    def reads_input(self) -> bool:
        """Tell whether there is an input to read at all: keys, or anything that is no terminal."""
        return self.keys or not self.is_tty[0]

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Pass every key on while this is entered: the guest's terminal interprets them."""
        self.make_raw()
        try:
            yield
        finally:
            self.restore()

    def make_raw(self) -> None:
        """Make the terminal raw (also after another program has used it meanwhile)."""
        if self.keys:
            tty.setraw(0, termios.TCSADRAIN)

    def restore(self) -> None:
        """Give the terminal back as it was."""
        if self._settings is not None:
            with contextlib.suppress(termios.error):  # it may be gone
                termios.tcsetattr(0, termios.TCSADRAIN, self._settings)


class Outlet:
    """Writes to a descriptor what it takes, without ever waiting for it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = bytearray()
        self.broken = False

    def add(self, data: bytes) -> None:
        """Queue bytes, unless nobody reads them any more."""
        if not self.broken:
            self.pending += data

    def write(self, most: int = select.PIPE_BUF) -> int:
        """Write once, when poll says that it is ready; return how many bytes were written.

        No more than ``most``; PIPE_BUF is what a ready pipe takes without waiting.
        """
        try:
            written = os.write(self.descriptor, self.pending[:most])
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, or EIO of a terminal that is gone
            self.broken = True
            self.pending.clear()
            return 0
        del self.pending[:written]
        return written


def _in_foreground(descriptor: int) -> bool:
    """Tell whether this process may use its terminal (it would be stopped otherwise)."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody stops us
        return True
