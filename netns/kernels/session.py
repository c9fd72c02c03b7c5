"""Plays the host's part while a command runs in an embedded kernel.

Output, input, signals, the size of the terminal and the exit code go to and fro; time limits are
watched. One thread, one poll(2): nothing here ever waits for anything else.
"""

import contextlib
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator

from netns import errors
from netns.kernels import frames
from netns.kernels.channel import MOST_BEHIND, READ_AT_ONCE, Intake
from netns.kernels.stall import StallWatch
from netns.kernels.stdio import Outlet, Stdio
from netns.kernels.warden import Warden
from netns.kernels.watch import Action, Watch

FORWARDED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
)
ENOUGH = 256 * 1024  # bytes waiting for a reader from which on the guest has to wait
CONSOLE_LINES = 400


class Session:
    """One command in one embedded kernel. ``console`` keeps the last lines the kernel printed.

    A session that ``keeps_away`` does nothing that the guest could notice unless it must.
    ``doing`` tells what the guest does, if the time limit ends it.
    """

    def __init__(
        self,
        *,
        warden: Warden,
        intake: Intake,
        to_guest: int,
        console: int,
        stdio: Stdio,
        watch: Watch,
        passes_input: bool,
        keeps_away: bool,
        stall: StallWatch | None = None,
        doing: Callable[[], str] | None = None,
    ) -> None:
        self._warden = warden
        self._intake = intake
        self._stall = stall
        self._doing = doing
        self._passes_input = passes_input
        self._console = console
        self._stdio = stdio
        self._watch = watch
        self._to_guest = Outlet(to_guest)
        self._outlets = {
            frames.STDOUT: Outlet(1),
            frames.STDERR: Outlet(2),
            frames.TTY: Outlet(stdio.terminal),
        }
        self._decoder = frames.Decoder()
        self._broken: set[int] = set()
        # Bytes of input that may be sent, and bytes of anything; none before the guest is up.
        self._credit = self._window = 0
        self._exit_code: int | None = None
        self._killed = False
        self.console: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._console_rest = b""
        # Reading from its console makes a pipe writable, and that interrupts the guest.
        self._console_ended = keeps_away
        for descriptor in (to_guest, console):
            os.set_blocking(descriptor, False)

    def run(self) -> int:
        """Stay until the command has ended; return its exit code.

        Raises GuestFailed if the kernel did not live to tell it.
        """
        with _wakeup() as wakeup, self._stdio.raw():
            alive = True
            while alive and self._exit_code is None and not self._killed:
                alive = self._step(wakeup)
            while any(outlet.pending for outlet in self._outlets.values()) and not self._killed:
                self._step(wakeup)
            while self._read_console():
                pass
        if self._exit_code is None:
            raise errors.GuestFailed(
                self._watch.failure, console=tuple(self.console), exit_code=self._watch.exit_code
            )
        if self._watch.out_of_time:
            raise errors.GuestFailed(self._watch.failure, exit_code=self._watch.exit_code)
        return self._exit_code

    def _step(self, wakeup: int) -> bool:
        """Wait for something to happen and deal with it. False once the kernel is gone."""
        ready = self._wait(wakeup)
        if wakeup in ready:
            for number in os.read(wakeup, 4096):
                self._signalled(number)
        if self._console in ready:
            self._read_console()
        if self._intake.descriptor in ready:
            self._read_guest()
        if self._to_guest.descriptor in ready:
            self._window -= self._to_guest.write(self._window)
            self._watch.sent(time.monotonic())
        for kind, outlet in self._outlets.items():
            writable = ready.get(outlet.descriptor, 0) & ~select.POLLIN
            if writable and outlet.pending:
                outlet.write()
            if outlet.broken and kind not in self._broken:
                self._broken.add(kind)
                self._to_guest.add(frames.pack_number(frames.CLOSED, kind))
        if ready.get(0, 0) & ~select.POLLOUT and self._credit > 0:
            self._read_input()
        now = time.monotonic()
        self._act(self._tick(now), signal.SIGTERM)
        self._act(self._check(now), 0)
        if self._warden.pidfd not in ready:
            return True
        while self._read_guest():
            pass
        return False

    def _wait(self, wakeup: int) -> dict[int, int]:
        """Return the descriptors with which something can be done, and what."""
        wanted = {wakeup: select.POLLIN}
        if not self._console_ended:
            wanted[self._console] = select.POLLIN
        if self._exit_code is None:
            wanted[self._warden.pidfd] = select.POLLIN
            if all(len(outlet.pending) < ENOUGH for outlet in self._outlets.values()):
                wanted[self._intake.descriptor] = select.POLLIN
        if self._to_guest.pending and self._window > 0:
            wanted[self._to_guest.descriptor] = select.POLLOUT
        for outlet in self._outlets.values():
            if outlet.pending:
                wanted[outlet.descriptor] = select.POLLOUT
        if self._credit > 0 and self._stdio.reads_input():
            wanted[0] = wanted.get(0, 0) | select.POLLIN
        poller = select.poll()
        for descriptor, events in wanted.items():
            poller.register(descriptor, events)
        deadline = self._watch.deadline
        if self._stall is not None:
            deadline = min(deadline, self._stall.deadline)
        left = max(0.0, deadline - time.monotonic())
        return dict(poller.poll(left * 1000 + 1))

    def _tick(self, now: float) -> Action:
        """Tell what the passing of time demands, and what the guest does when its time is over."""
        action = self._watch.tick(now)
        if action is Action.ASK and self._doing and (doing := self._doing()):
            self._watch.saw(doing)
        return action

    def _check(self, now: float) -> Action:
        """Tell what the state of the guest demands."""
        if self._intake.overflowing():
            return self._watch.fail(
                f"more than {MOST_BEHIND >> 20} MiB of output wait for a reader"
            )
        culprit = self._stall.check(now) if self._stall is not None else ""
        return self._watch.fail(culprit) if culprit else Action.NOTHING

    def _act(self, action: Action, number: int) -> None:
        """Do what the watch has decided; ``number`` is the signal that it is about."""
        if action is Action.KILL:
            self._killed = True
        elif action is not Action.NOTHING:
            self._to_guest.add(frames.pack_number(frames.SIGNAL, number))

    def _signalled(self, number: int) -> None:
        """Pass on a signal that this process got."""
        if number == signal.SIGINT:
            self._act(self._watch.interrupt(), number)
        elif number in (signal.SIGWINCH, signal.SIGCONT):
            if number == signal.SIGCONT:
                self._stdio.make_raw()
            self._to_guest.add(frames.pack_number(frames.RESIZED, *self._stdio.window()))
        elif number in FORWARDED:
            self._act(Action.FORWARD if self._watch.booted else Action.KILL, number)

    def _read_console(self) -> bool:
        """Keep what the kernel prints. False if there is nothing more now."""
        data = _read(self._console)
        if data is None:
            return False
        self._console_ended = not data
        *lines, self._console_rest = (self._console_rest + data).split(b"\n")
        for line in lines:
            self.console.append(line.decode(errors="replace").strip())
        return bool(data)

    def _read_guest(self) -> bool:
        """Deal with what the guest says. False if there is nothing more now."""
        data = self._intake.read()
        if not data:
            return False
        for kind, payload in self._decoder.feed(data):
            if kind in self._outlets:
                self._outlets[kind].add(payload)
            elif kind == frames.HELLO:
                self._watch.hello()
                self._window = frames.WINDOW
                self._credit = frames.CREDIT if self._passes_input else 0
            elif kind == frames.READ:
                self._window += sum(frames.numbers(payload))
                if self._window == frames.WINDOW:
                    self._watch.taken()
            elif kind == frames.TAKEN:
                self._credit += sum(frames.numbers(payload))
            elif kind == frames.INTERRUPTED and frames.numbers(payload) == (0,):
                self._watch.was_mere_key()
            elif kind == frames.EXITED:
                (self._exit_code,) = frames.numbers(payload)
        return True

    def _read_input(self) -> None:
        """Pass on input or keys."""
        try:
            data = os.read(0, min(self._credit, frames.LARGEST))
        except OSError:  # closed, or a terminal that is gone
            data = b""
        self._credit = self._credit - len(data) if data else 0
        if self._stdio.keys and frames.INTERRUPT_KEY in data:
            action = self._watch.interrupt()
            if action is Action.KILL:
                self._killed = True
        self._to_guest.add(frames.pack(frames.STDIN, data))


@contextlib.contextmanager
def _wakeup() -> Iterator[int]:
    """Turn signals into bytes (their numbers) to read from the yielded descriptor."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = [*FORWARDED, signal.SIGWINCH, signal.SIGCONT]
    # A signal that our parent lets us ignore (nohup) is ignored by the command as well.
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: None) for number in caught}
    wakeup_before = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _read(descriptor: int) -> bytes | None:
    """Read what is there: no bytes at the end, None if there is nothing now."""
    try:
        return os.read(descriptor, READ_AT_ONCE)
    except BlockingIOError:
        return None
