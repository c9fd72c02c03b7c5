"""The process of a node's proxy: found by what it holds, and what the kernel says of it.

A kproxy that writes holds a listening Unix socket with a known name in the node's network
namespace. ``/proc/net/unix`` names its inode, and some process has a descriptor of it. Nobody is
connected to, so a proxy that hangs is found like any other. kube-proxy is known by its name.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

PROC = Path("/proc")
_ACCEPTING = 0x10000
_TICKS = os.sysconf("SC_CLK_TCK")
KUBE_PROXY = "kube-proxy"
KPROXY = "kproxy"


class State(StrEnum):
    """What the kernel says a process is doing."""

    RUNS = "runs"
    WAITS = "waits"
    BLOCKED = "blocked"
    """Uninterruptible: it waits for the kernel itself, mostly for a disk."""
    STOPPED = "stopped"
    """By SIGSTOP or a debugger: it does nothing until it is told to go on."""
    ZOMBIE = "zombie"
    """It has ended, and nobody has taken note of it."""


_STATES = {
    "R": State.RUNS,
    "S": State.WAITS,
    "I": State.WAITS,
    "D": State.BLOCKED,
    "T": State.STOPPED,
    "t": State.STOPPED,
    "Z": State.ZOMBIE,
    "X": State.ZOMBIE,
}


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a proxy. ``start_time``: in ticks since boot, tells it from a later one.

    ``age_s``: for how long it has existed, to a tick.
    """

    pid: int
    start_time: int
    age_s: float
    kind: str
    """``kproxy`` or ``kube-proxy``."""
    state: State
    command: tuple[str, ...]
    holds_lock: bool
    catches: frozenset[int]
    """The signals that it does not leave to the kernel."""


def find(lock: str, proc: Path = PROC) -> Process | None:
    """Return the proxy that writes on this node; else one that runs; None: there is none.

    A zombie holds nothing any more; it is found where this PID namespace is the container's.
    """
    holders = set(_holders(proc, lock))
    network = _network(proc / "self")
    found = []
    for directory in sorted(proc.glob("[0-9]*"), key=lambda one: int(one.name)):
        one = _read(directory, holders, _uptime(proc))
        if one is not None and _is_here(one, directory, network):
            found.append(one)
    return max(
        found,
        key=lambda one: (one.holds_lock, one.state is not State.ZOMBIE, one.start_time),
        default=None,
    )


def state_of(pid: int, proc: Path = PROC) -> State | None:
    """Return what any process is doing; None: there is none of this number."""
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    return _STATES.get(stat.rpartition(")")[2].split()[0], State.WAITS)


def lives(one: Process, proc: Path = PROC) -> bool:
    """Return whether exactly this process has not ended."""
    started = _start_time(proc / str(one.pid))
    return started == one.start_time and state_of(one.pid, proc) not in (None, State.ZOMBIE)


def send(one: Process, number: int, proc: Path = PROC) -> bool:
    """Send a signal to exactly this process; return False if it has ended.

    Raises PermissionError.
    """
    try:
        descriptor = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return False
    try:
        if _start_time(proc / str(one.pid)) != one.start_time:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def is_namespace_init(one: Process) -> bool:
    """Return whether it is the first process of our PID namespace, as in a pod of its own.

    The kernel lets nobody inside such a namespace kill that one, not even root.
    """
    return one.pid == 1


def _holders(proc: Path, lock: str) -> Iterator[str]:
    """Yield the inodes of the sockets that listen at a name, in this network namespace."""
    try:
        lines = (proc / "net" / "unix").read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        # Num RefCount Protocol Flags Type St Inode Path
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7] == f"@{lock}" and int(fields[3], 16) & _ACCEPTING:
            yield fields[6]


def _uptime(proc: Path) -> float:
    try:
        return float((proc / "uptime").read_text().split()[0])
    except (OSError, IndexError):
        return 0.0


def _read(directory: Path, holders: set[str], uptime: float) -> Process | None:
    """Return a process if it is a proxy's; None also if it has just ended."""
    try:
        stat = (directory / "stat").read_text()
        words = tuple((directory / "cmdline").read_bytes().decode(errors="replace").split("\0"))
        status = _status((directory / "status").read_text())
    except (OSError, ValueError):
        return None
    if _effective_user(status) != os.geteuid():
        return None  # anybody may take a name, and what he says in his words is not for root
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    command = words[:-1]
    holds = bool(holders) and _holds(directory, holders)
    kind = KPROXY if holds else _kind(name, command)
    if not kind:
        return None
    return Process(
        pid=int(directory.name),
        start_time=int(fields[19]),
        age_s=round(max(0.0, uptime - int(fields[19]) / _TICKS), 2),
        kind=kind,
        state=_STATES.get(fields[0], State.WAITS),
        command=command,
        holds_lock=holds,
        catches=_caught(status),
    )


def _kind(name: str, command: tuple[str, ...]) -> str:
    """Return whose process this is by its words; those of a zombie are gone, its name is not."""
    if not command:
        return name if name in (KUBE_PROXY, KPROXY) else ""
    if Path(command[0]).name == KUBE_PROXY:
        return KUBE_PROXY
    for at, word in enumerate(command[:-1]):
        is_program = at <= 1 and Path(word).name == KPROXY
        is_module = word == KPROXY and command[at - 1] == "-m"
        if (is_program or is_module) and command[at + 1] == "proxy":
            return KPROXY
    return ""


def _holds(directory: Path, holders: set[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in holders}
    try:
        return any(_link(one) in wanted for one in (directory / "fd").iterdir())
    except OSError:
        return False


def _is_here(one: Process, directory: Path, network: str) -> bool:
    """Return whether it is in our network namespace; a zombie is in none any more."""
    if one.state is State.ZOMBIE or one.holds_lock:
        return True
    return _network(directory) == network


def _network(directory: Path) -> str:
    return _link(directory / "ns" / "net")


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _start_time(directory: Path) -> int:
    try:
        return int((directory / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return -1


def _status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _effective_user(status: Mapping[str, str]) -> int:
    fields = status.get("Uid", "").split()  # real, effective, saved, of the file system
    return int(fields[1]) if len(fields) > 1 else -1


def _caught(status: Mapping[str, str]) -> frozenset[int]:
    mask = int(status.get("SigCgt", "0"), 16)
    return frozenset(at + 1 for at in range(64) if mask >> at & 1)
