"""The command inside an embedded kernel, with each of its three streams as it is outside.

A stream that is a terminal outside is one inside (so colours and progress bars behave), and any
other is a pipe, so that bytes pass unchanged and standard output and error stay apart.
"""

import fcntl
import os
import resource
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

from netns.kernels import frames


class Child:
    """A running command. ``outputs`` maps a descriptor to read from to the kind of its frames."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.outputs: dict[int, int] = {}
        self._input: int | None = None
        self._pending = bytearray()
        self._input_ended = False
        self._master: int | None = None
        slave = None
        if any(start["tty"]):
            self._master, slave = os.openpty()
            self.set_window(*start["window"])
            if not start["keys"]:
                make_transparent(slave)
            self.outputs[self._master] = frames.TTY
        ends = [
            self._stream(number, is_tty, slave, start["stdin"])
            for number, is_tty in enumerate(start["tty"])
        ]
        self.pid = os.fork()
        if self.pid == 0:
            become(start, ends, slave)
        for end in {*ends, *([] if slave is None else [slave])}:
            os.close(end)

    def _stream(
        self, number: int, is_tty: bool, slave: int | None, stdin: dict[str, Any] | None
    ) -> int:
        """Return the command's end of one stream, and keep ours."""
        if is_tty:
            assert slave is not None
            if number == 0:
                self._input = self._master
            return slave
        if number == 0 and stdin:
            return open_input(**stdin)
        reader, writer = os.pipe()
        if number == 0:
            os.set_blocking(writer, False)
            self._input = writer
            return reader
        self.outputs[reader] = frames.STDOUT if number == 1 else frames.STDERR
        return writer

    @property
    def wants_input(self) -> int | None:
        """Return the descriptor to which input waits to be written, if any."""
        return self._input if self._pending else None

    def set_window(self, rows: int, columns: int) -> None:
        """Set the size of the terminal; the kernel tells the command with SIGWINCH."""
        if self._master is not None:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def add_input(self, data: bytes) -> int | None:
        """Queue input, none being its end.

        If it has the interrupt key, tell whether it will be a signal (1) or a mere key (0).
        """
        self._pending += data
        if not data:
            self._input_ended = True
            self._end_input()
        if self._master is None or frames.INTERRUPT_KEY not in data:
            return None
        return int(bool(termios.tcgetattr(self._master)[3] & termios.ISIG))

    def write_input(self) -> int:
        """Write as much queued input as the command takes now; return the number of bytes."""
        assert self._input is not None
        try:
            taken = os.write(self._input, self._pending[: frames.LARGEST])
        except BlockingIOError:
            return 0
        except OSError:  # the command has closed its input: nobody will read the rest
            taken = len(self._pending)
            self._input_ended = True
        del self._pending[:taken]
        self._end_input()
        return taken

    def _end_input(self) -> None:
        if self._input_ended and not self._pending and self._input not in (None, self._master):
            assert self._input is not None
            os.close(self._input)
            self._input = None

    def close_output(self, kind: int) -> None:
        """Stop reading an output, so that writing to it fails for the command."""
        for descriptor, its_kind in list(self.outputs.items()):
            if its_kind == kind:
                os.close(descriptor)
                del self.outputs[descriptor]

    def close(self) -> None:
        """Let go of all streams; for those who run several commands, one after the other."""
        for descriptor in {*self.outputs, self._input, self._master} - {None}:
            assert descriptor is not None
            os.close(descriptor)
        self.outputs.clear()
        self._input = self._master = None

    def signal(self, number: int) -> None:
        """Send a signal to where a terminal or kill(1) would send it."""
        from_terminal = number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        try:
            if from_terminal:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return


def open_input(path: str, offset: int) -> int:
    """Open a file of the host that is the command's standard input, and go where it is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    if offset:
        os.lseek(descriptor, offset, os.SEEK_SET)
    return descriptor


def make_transparent(slave: int) -> None:
    """Take all processing out of a terminal: the one outside does it already."""
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(slave, termios.TCSANOW, settings)


def become(start: dict[str, Any], streams: list[int], slave: int | None) -> None:
    """Turn this (just forked) process into the command. Does not return."""
    code = 126
    try:
        os.setsid()
        if slave is not None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        # First out of the way of 0, 1 and 2, which may be among the numbers.
        safe = [fcntl.fcntl(stream, fcntl.F_DUPFD, 10) for stream in streams]
        for number, stream in enumerate(safe):
            os.dup2(stream, number)
        os.closerange(3, 256)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, most), most))
        Path("/proc/self/oom_score_adj").write_text("0")  # only the first process is spared
        os.umask(start["umask"])
        os.chdir(start["cwd"])
        environment = start["environment"]
        os.environ["PATH"] = environment.get("PATH", os.defpath)
        code = 127
        os.execvpe(start["argv"][0], start["argv"], environment)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.stderr = os.fdopen(2, "w", closefd=False)
        print(f"{start['argv'][0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)
