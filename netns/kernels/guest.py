"""The first process inside an embedded kernel (its "init"): runs one command, ends the kernel.

What to run is in a file of the host. From then on it speaks ``frames`` with the host on the first
serial line, or, in virtual time, where it must never wait for the host, through a file to which
it appends. What it prints itself goes to the console, which the host shows when the kernel dies.
When it ends, so does the kernel.
"""

import json
import os
import select
import signal
import termios
from pathlib import Path
from typing import Any

from netns.kernels import frames, guest_setup
from netns.kernels.guest_child import Child

LINE = "/dev/ttyS0"
CHANNEL_VARIABLE = "GUEST_CHANNEL"  # the host's directory that becomes guest_setup.CHANNEL
START_NAME = "start.json"
ENOUGH = 256 * 1024  # bytes waiting for the host from which on the command has to wait


class Line:
    """The serial line to the host; what is sent goes into the file ``output`` if that is given."""

    def __init__(self, output: Path | None) -> None:
        self.descriptor = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(self.descriptor)
        settings[0] = settings[1] = settings[3] = 0
        settings[2] = termios.CS8 | termios.CREAD | termios.CLOCAL | termios.B38400
        termios.tcsetattr(self.descriptor, termios.TCSANOW, settings)
        self._output = os.open(output, os.O_WRONLY | os.O_APPEND) if output else self.descriptor
        self._decoder = frames.Decoder()
        self.pending = bytearray()

    def receive(self) -> list[tuple[int, bytes]]:
        """Return the frames that have come; waits for bytes, not for a whole frame."""
        data = os.read(self.descriptor, frames.LARGEST)
        self.send(frames.pack_number(frames.READ, len(data)))
        return list(self._decoder.feed(data))

    def send(self, frame: bytes) -> None:
        """Queue a frame."""
        self.pending += frame

    def write(self) -> None:
        """Write once; blocks only if the line is not ready."""
        del self.pending[: os.write(self._output, self.pending[: frames.LARGEST])]

    def flush(self) -> None:
        """Write everything and wait until the host has it."""
        while self.pending:
            self.write()
        if self._output == self.descriptor:
            termios.tcdrain(self.descriptor)

    @property
    def wants_to_write(self) -> bool:
        """Whether there is something to be written as soon as the line is ready."""
        if self._output != self.descriptor:  # a file always is
            self.flush()
        return bool(self.pending)


class Init:
    """Runs one command, and is the mother of all processes meanwhile."""

    def __init__(self, line: Line, child: Child) -> None:
        self.line = line
        self.child = child
        self.exit_code: int | None = None
        self._died, wakeup = os.pipe()
        os.set_blocking(self._died, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def run(self) -> int:
        """Pass everything to and fro until the command ends; return its exit code."""
        self._reap()  # the command may have ended before the handler was there
        while self.exit_code is None:
            self._step(None)
        # What it has printed before its end is still to be read; do not wait for other processes
        # that have inherited its output.
        while self._step(0):
            pass
        return self.exit_code

    def _step(self, timeout: int | None) -> bool:
        """Wait, deal with what has happened, and tell whether output of the command came."""
        poller = select.poll()
        poller.register(self._died, select.POLLIN)
        waiting = select.POLLOUT if self.line.wants_to_write else 0
        poller.register(self.line.descriptor, select.POLLIN | waiting)
        if len(self.line.pending) < ENOUGH:
            for descriptor in self.child.outputs:
                poller.register(descriptor, select.POLLIN)
        wants_input = self.child.wants_input
        if wants_input is not None:
            both = select.POLLOUT | (select.POLLIN if wants_input in self.child.outputs else 0)
            poller.register(wants_input, both)
        ready = dict(poller.poll(timeout))
        if self._died in ready:
            os.read(self._died, 4096)
            self._reap()
        if ready.get(self.line.descriptor, 0) & select.POLLOUT:
            self.line.write()
        if ready.get(self.line.descriptor, 0) & select.POLLIN:
            for kind, payload in self.line.receive():
                self._obey(kind, payload)
        if wants_input is not None and ready.get(wants_input, 0) & ~select.POLLIN:
            self.line.send(frames.pack_number(frames.TAKEN, self.child.write_input()))
        came = False
        for descriptor in list(self.child.outputs):
            if ready.get(descriptor, 0) & (select.POLLIN | select.POLLHUP | select.POLLERR):
                came |= self._pass_on(descriptor)
        return came

    def _pass_on(self, descriptor: int) -> bool:
        """Pass output of the command to the host, or note its end."""
        try:
            data = os.read(descriptor, frames.LARGEST)
        except OSError:  # EIO: no process has the terminal open any more
            data = b""
        kind = self.child.outputs[descriptor]
        if data:
            self.line.send(frames.pack(kind, data))
        elif kind == frames.TTY:
            del self.child.outputs[descriptor]  # stays open: it is the input as well
        else:
            self.child.close_output(kind)
        return bool(data)

    def _obey(self, kind: int, payload: bytes) -> None:
        if kind == frames.STDIN:
            interrupts = self.child.add_input(payload)
            if interrupts is not None:
                self.line.send(frames.pack_number(frames.INTERRUPTED, interrupts))
        elif kind == frames.SIGNAL:
            self.child.signal(*frames.numbers(payload))
        elif kind == frames.RESIZED:
            self.child.set_window(*frames.numbers(payload))
        elif kind == frames.CLOSED:
            self.child.close_output(*frames.numbers(payload))

    def _reap(self) -> None:
        """Take notice of every process that has ended: orphans are ours too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child.pid:
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if code >= 0 else 128 - code


def read_start() -> dict[str, Any]:
    """Return what the host wants to be run."""
    start = json.loads((guest_setup.CHANNEL / START_NAME).read_text())
    assert isinstance(start, dict)
    return start


def prepare(start: dict[str, Any]) -> None:
    """Make this kernel fit for the lab."""
    guest_setup.write("/proc/self/oom_score_adj", "-1000")
    guest_setup.mount_host_directories(start["writable"], start["cwd"])
    if start["modules"]:
        start["environment"] |= guest_setup.load_modules(
            start["modules"], start["load"], start["modprobe"]
        )
    guest_setup.set_loopback_up()
    for name, value in start["sysctl"].items():
        guest_setup.write("/proc/sys/" + name.replace(".", "/"), value)
    guest_setup.write("/proc/sys/kernel/hostname", start["hostname"])
    if start["seeded"]:
        guest_setup.draw_random_numbers_anew()


def main() -> None:
    """Run the command that the host names, tell how it ended, and end this kernel."""
    try:
        guest_setup.mount_kernel_file_systems()
        guest_setup.mount_temporary_file_systems()
        guest_setup.mount_channel(os.environ[CHANNEL_VARIABLE])
        start = read_start()
        line = Line(guest_setup.CHANNEL / start["output"] if start["output"] else None)
        line.send(frames.pack(frames.HELLO))
        line.flush()
        prepare(start)
        code = Init(line, Child(start)).run()
        os.sync()
        line.send(frames.pack_number(frames.EXITED, code))
        line.flush()
    except Exception as error:
        print(f"guest: {type(error).__name__}: {error}", flush=True)
        raise
    finally:
        guest_setup.power_off()
