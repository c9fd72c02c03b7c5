"""Keeps watch over an embedded kernel: whatever happens to its user, nothing of it stays.

A kernel in User-Mode Linux is many processes on the host, and killing the first leaves others.
So it lives in a PID namespace of its own, which the host's kernel empties as soon as its first
process is gone::

    kproxy ── warden ── keeper (PID 1 in the namespace) ── linux.uml ── its helpers and stubs

The warden holds the reading end of a pipe. When kproxy closes the other end, by choice or by
dying of anything, the warden kills the keeper and removes the run directory. When the warden is
killed, the keeper is killed by the kernel (PR_SET_PDEATHSIG). When both are, the run directory
stays; its name says whose it was, and the next start removes it (:func:`repair`). Where there can
be no PID namespace, the processes are found by their session, which the run directory notes.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netns import errors
from netns.process import ProcessId, end_with_parent, start_time, stat_fields

CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
PR_SET_NAME = 15
ADDR_NO_RANDOMIZE = 0x0040000
SESSION_NOTE = "session"
CPU_NOTE = "cpu"
KILL_ROUNDS = 10
KILL_DEADLINE = 5.0  # seconds; who does not end meanwhile is stuck in the host's kernel
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start the kernel's first process: all of it is decided before the fork.

    ``descriptors`` are passed on, ``console`` gets what it prints, ``cpu`` is where it runs.
    With ``fixed_layout`` its memory lies at the same addresses every time.
    """

    argv: Sequence[str]
    environment: dict[str, str]
    descriptors: Sequence[int]
    console: int
    cpu: int
    run_directory: Path
    fixed_layout: bool = False


@dataclass(frozen=True, slots=True)
class Warden:
    """The running warden: its PID, a pidfd that tells its end, and the pipe that keeps it."""

    pid: int
    pidfd: int
    lifeline: int

    def dismiss(self) -> int:
        """End the kernel if it still runs, wait until nothing is left, return its exit code."""
        os.close(self.lifeline)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)


def start(
    launch: Launch, *, on_loss: Callable[[], None] = lambda: None, isolate: bool = True
) -> Warden:
    """Start a kernel under a warden.

    ``on_loss`` is called in the warden when the lifeline breaks (the user's process is gone).
    Without ``isolate`` no PID namespace is tried (for tests of machines that have none).
    """
    watched, lifeline = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 125
        try:
            os.close(lifeline)
            code = _watch(launch, watched, on_loss, isolate)
        finally:
            os._exit(code)
    os.close(watched)
    return Warden(pid, os.pidfd_open(pid), lifeline)


def _watch(launch: Launch, watched: int, on_loss: Callable[[], None], isolate: bool) -> int:
    """Be the warden: return the kernel's exit code when it is over."""
    os.setsid()  # no signals from the terminal
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    _libc.prctl(PR_SET_NAME, b"warden", 0, 0, 0)
    isolated = isolate and _unshare_pids()
    warden = os.pidfd_open(os.getpid())
    keeper = os.fork()
    if keeper == 0:
        os.close(watched)
        os._exit(_keep(launch, warden, isolated))
    for descriptor in (*launch.descriptors, launch.console):
        os.close(descriptor)
    ended = os.pidfd_open(keeper)
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    poller.register(ended, select.POLLIN)
    ready = [descriptor for descriptor, _ in poller.poll()]
    if ended not in ready:
        on_loss()
        os.kill(keeper, signal.SIGKILL)
    _, status = os.waitpid(keeper, 0)
    remove(launch.run_directory)
    return os.waitstatus_to_exitcode(status) % 256


def _keep(launch: Launch, warden: int, isolated: bool) -> int:
    """Be the keeper: return the exit code of the kernel. ``warden`` is a pidfd."""
    end_with_parent(signal.SIGKILL)
    if select.select([warden], [], [], 0)[0]:
        return 125  # the warden was killed before that call: no signal will come
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {launch.cpu})
    if launch.fixed_layout:
        _libc.personality(ADDR_NO_RANDOMIZE)
    kernel = subprocess.Popen(
        launch.argv,
        env=launch.environment,
        stdin=subprocess.DEVNULL,
        stdout=launch.console,
        stderr=launch.console,
        pass_fds=launch.descriptors,
        cwd=launch.run_directory,
        preexec_fn=lambda: end_with_parent(signal.SIGKILL),
    )
    if not isolated:
        note = f"{kernel.pid} {start_time(kernel.pid)}"
        (launch.run_directory / SESSION_NOTE).write_text(note)
    # Whoever waits for the end of these must not wait for this process too.
    for descriptor in (*launch.descriptors, launch.console):
        os.close(descriptor)
    code = kernel.wait()
    return code if code >= 0 else 128 - code


def _unshare_pids() -> bool:
    """Let further children live in a new PID namespace; False if this machine has none for us."""
    if _libc.unshare(CLONE_NEWPID) == 0:
        return True
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0:
        return False
    # Each remains who they are, so the rights to files remain as well.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return True


def kill_session(run_directory: Path) -> None:
    """Kill what is left of the kernel that the run directory notes, if anything; wait for it."""
    try:
        session, started = (run_directory / SESSION_NOTE).read_text().split()
    except (FileNotFoundError, ValueError):
        return
    # The kernel may start a process while we look: only a look after its own end shows all.
    for _ in range(KILL_ROUNDS):
        left = list(_session_members(session, int(started), run_directory))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                _kill_and_wait(pid)


def _session_members(session: str, started: int, run_directory: Path) -> Iterator[int]:
    """Yield the processes of a kernel's session: those that work in its run directory.

    Not those that run its program: when a kernel is killed while one of its processes enters a
    system call, the host executes that call, be it ``execve``.
    """
    place = run_directory.resolve()
    for entry in Path("/proc").iterdir():
        fields = stat_fields(int(entry.name)) if entry.name.isdigit() else []
        if not fields or fields[3] != session or int(fields[19]) < started:
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or a zombie
            if (entry / "cwd").readlink() == place:
                yield int(entry.name)


def _kill_and_wait(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        select.select([descriptor], [], [], KILL_DEADLINE)
    finally:
        os.close(descriptor)


def make_run_directory(state: Path) -> Path:
    """Make a directory for one kernel. Its name says who made it (PID and start time).

    Raises KernelUnusable if the state directory cannot be written.
    """
    guests = state / "guests"
    me = f"{os.getpid()}-{start_time(os.getpid())}"
    try:
        guests.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = guests / f"{me}-{sum(1 for _ in guests.glob(f'{me}-*'))}"
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise errors.KernelUnusable(
            f"cannot note in {guests} what runs: {error.strerror}",
            remedy="let KPROXY_STATE_DIR name a directory of yours",
        ) from None
    return directory


def remove(run_directory: Path) -> None:
    """Remove a run directory and the processes it notes; it may be gone already."""
    kill_session(run_directory)
    shutil.rmtree(run_directory, ignore_errors=True)


def choose_cpu(run_directory: Path, allowed: Iterable[int]) -> int:
    """Return, and note, the CPU on which the fewest other kernels run; the last of equals.

    A kernel that stays on one CPU is several times faster, but not if all stay on the same.
    """
    taken: Counter[str] = Counter()
    for note in run_directory.parent.glob(f"*/{CPU_NOTE}"):
        with contextlib.suppress(OSError):
            taken[note.read_text()] += 1
    chosen = min(allowed, key=lambda cpu: (taken[str(cpu)], -cpu))
    (run_directory / CPU_NOTE).write_text(str(chosen))
    return chosen


def repair(state: Path) -> list[Path]:
    """Remove what kernels whose user and warden were killed have left; return what it was."""
    removed = []
    for directory in sorted((state / "guests").glob("*-*-*")):
        pid, started, _ = directory.name.split("-")
        if ProcessId(int(pid), int(started)).alive:
            continue
        remove(directory)
        removed.append(directory)
    return removed
