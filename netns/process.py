"""Processes that cannot be mistaken for others.

A pid alone is not an identity: it is reused. Here a process is its pid *and* its start time
(field 22 of ``/proc/PID/stat``), which can be written down and compared after a crash; a live one
is held by a pidfd, so that a signal never reaches a stranger and its end is an event to wait for.
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import select
import signal
import subprocess
import time
import weakref
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import psutil

from netns import wait
from netns.errors import NetnsError

_KILL_DEADLINE = 10.0
_ENDED = ("Z", "X")  # states of proc_pid_stat(5)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, once and for all (until the next boot). ``start_time`` is in clock ticks."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """Whoever has this pid now; None if nobody has."""
        ticks = start_time(pid)
        return None if ticks is None else cls(pid, ticks)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet (a zombie has, even if nobody ever waits for it)."""
        fields = stat_fields(self.pid)
        return bool(fields) and int(fields[19]) == self.start_time and fields[0] not in _ENDED


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none of this pid."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from the state on (field 3); empty if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The second field, the command in parentheses, may contain anything: count from its end.
    return text.rpartition(")")[2].split()


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have this process sent a signal when its parent ends (until it becomes another user).

    No signal comes for a parent that has ended before: who can have lost it looks afterwards. To
    the kernel the parent is the thread that forked.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def boot_id() -> str:
    """The identity of this boot: start times of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Process:
    """A running (or ended) process, held by a pidfd.

    Made by :meth:`netns.host.LiveHost.spawn`, or for any process by ``Process(ProcessId)``; that
    one need not be a child. Raises :class:`NetnsError` if there is no such process (any more).
    """

    def __init__(
        self, identity: ProcessId, *, popen: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.identity = identity
        self._popen = popen
        gone = f"there is no process {identity.pid} that started at tick {identity.start_time}"
        try:
            self._pidfd = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            raise NetnsError(gone) from None
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            # The number lives on as that of a group whose leader has ended.
            raise NetnsError(gone) from None
        self._close = weakref.finalize(self, os.close, self._pidfd)
        # Looked up after the pidfd was opened: if it agrees, the pidfd is of the same process.
        if start_time(identity.pid) != identity.start_time:
            self._close()
            raise NetnsError(gone)

    @property
    def pid(self) -> int:
        """Its pid; after its end another process may have it."""
        return self.identity.pid

    @property
    def popen(self) -> subprocess.Popen[bytes] | None:
        """The standard library's handle with its pipes, if this program started the process."""
        return self._popen

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet (a zombie has)."""
        if self._popen is not None and self._popen.poll() is not None:
            return False
        return not wait.readable(self._pidfd, 0)

    @property
    def waited_for(self) -> bool:
        """Whether this program has been told of its end already; asks nobody."""
        return self._popen is not None and self._popen.returncode is not None

    @property
    def returncode(self) -> int | None:
        """Exit status, -N after signal N; None while it runs, or if it is nobody's child here."""
        return None if self._popen is None else self._popen.poll()

    @property
    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system, in seconds. Raises NetnsError after its end."""
        with self._observed() as process:
            times = process.cpu_times()
        return float(times.user + times.system)

    @property
    def rss_bytes(self) -> int:
        """Resident memory in bytes. Raises NetnsError after its end."""
        with self._observed() as process:
            return int(process.memory_info().rss)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[psutil.Process]:
        ended = NetnsError(f"process {self.pid} has ended")
        if not self.alive:
            raise ended
        try:
            yield psutil.Process(self.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            raise ended from None

    def signal(self, number: int, *, group: bool = False) -> bool:
        """Send a signal; whether there was still somebody to receive it.

        ``group``: to the whole process group, for a process that leads one (each spawned does).
        """
        if not self.alive:
            return False
        try:
            if group:
                os.killpg(self.pid, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def terminate(self) -> bool:
        """SIGTERM."""
        return self.signal(signal.SIGTERM)

    def kill(self, *, group: bool = False) -> bool:
        """SIGKILL; does not wait."""
        return self.signal(signal.SIGKILL, group=group)

    def wait(self, timeout: float) -> int | None:
        """Wait for the end; the exit status (see :attr:`returncode`).

        Raises :class:`netns.errors.WaitTimeout` if it still runs after ``timeout`` seconds.
        """
        wait.wait_readable(self._pidfd, timeout, f"end of process {self.pid}")
        return None if self._popen is None else self._popen.wait()

    def fileno(self) -> int:
        """The pidfd, readable at the end of the process: for selectors and event loops."""
        return self._pidfd

    def __repr__(self) -> str:
        return f"Process(pid={self.pid}, start_time={self.identity.start_time})"


def members(namespaces: Collection[tuple[int, int]]) -> list[ProcessId]:
    """The processes whose main thread is in one of these namespaces (device and inode)."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            status = Path(entry.path, "ns/net").stat()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile, a zombie, or somebody else's
        if (status.st_dev, status.st_ino) in namespaces:
            identity = ProcessId.of(int(entry.name))
            if identity is not None:
                found.append(identity)
    return found


def kill_all(identities: Iterable[ProcessId]) -> None:
    """SIGKILL to all, and wait for their ends; those that are gone already are fine.

    Raises :class:`NetnsError` naming those that did not end (stuck in the kernel).
    """
    left: dict[int, Process] = {}
    for identity in identities:
        with contextlib.suppress(NetnsError):
            process = Process(identity)
            process.kill()
            left[process.fileno()] = process
    poll = select.poll()
    for fd in left:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + _KILL_DEADLINE
    while left:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            pids = ", ".join(str(process.pid) for process in left.values())
            raise NetnsError(f"processes {pids} do not end", remedy="look at their kernel stacks")
        for fd, _ in poll.poll(remaining * 1000):
            poll.unregister(fd)
            del left[fd]
