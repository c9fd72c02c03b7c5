"""What a kernel provider is: something that runs a command on a kernel fit for the lab.

Code of the lab never knows on which kernel it runs; only what starts a command chooses one.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

# Set, to the provider's name, in the environment of all that runs inside an embedded kernel.
GUEST_VARIABLE = "KPROXY_GUEST"
STATE_VARIABLE = "KPROXY_STATE_DIR"
# Likewise: the clock that it sees, and the seed of all that is random there (unset: none).
CLOCK_VARIABLE = "KPROXY_CLOCK"
SEED_VARIABLE = "KPROXY_SEED"
# Likewise, in virtual time: the directory in which programs declare that they compute for long.
COMPUTING_VARIABLE = "KPROXY_COMPUTING"

# Exit codes of what happens to the kernel rather than to the command (as timeout(1) has them).
EXIT_TIME_LIMIT = 124
EXIT_GUEST_FAILED = 125
EXIT_INTERRUPTED = 130

MIB = 1024 * 1024


class Clock(StrEnum):
    """What moves the time that programs see. docs/clocks.md tells when to use which."""

    REAL = "real"  # the world's time
    TRAVEL = "travel"  # waiting takes no time of the world's, computing takes what it takes
    VIRTUAL = "virtual"  # computing takes no time at all: only timers move the clock


class Feature(StrEnum):
    """What an embedded kernel may have or lack."""

    IPVS = "ipvs"
    IPTABLES_LEGACY = "iptables-legacy"
    IPTABLES_NFT = "iptables-nft"
    NFTABLES = "nftables"
    NETEM = "netem"
    TIME_TRAVEL = "time-travel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an embedded kernel may use: ``memory`` in bytes, ``time`` in seconds of real time.

    ``stall`` is how many seconds of CPU time it may use while its virtual time stands still.
    """

    memory: int = 1024 * MIB
    time: float = 3600.0
    stall: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line to run on some kernel, in the environment and directory of this process.

    ``writable`` are the directories (made if absent) in which it may leave files; everything else
    of the host is read-only to it where the kernel is an embedded one, and its temporary
    directory vanishes with the kernel. ``packages`` are directories of Python code to be compiled
    beforehand: on a read-only root nothing is cached, and every start would compile again.
    ``clock`` is what the command sees as time; with a ``seed`` the same things are random in the
    same way in every run, as far as the provider can see to it.
    """

    argv: tuple[str, ...]
    writable: tuple[Path, ...] = ()
    packages: tuple[Path, ...] = ()
    clock: Clock = Clock.REAL
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a kernel cannot be used (``reason``, to follow "because"), and what to do about it."""

    reason: str
    remedy: str


class Provider(Protocol):
    """A kernel on which commands can run."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def kernel_name(self) -> str | None:
        """What ``kproxy kernel list`` calls this very kernel; None: it is the machine's own."""

    def describe(self) -> str:
        """Return what it is, for the user: ``User-Mode Linux 6.1.176``."""

    @property
    def clocks(self) -> Collection[Clock]:
        """The clocks that it has; the real one is always among them."""

    def obstacle(self) -> Obstacle | None:
        """Return what keeps the lab from running on it, or None."""

    def run(self, command: Command, limits: Limits) -> int:
        """Run a command on it and return its exit code (128 + n if signal n ended it).

        Raises GuestFailed if the kernel does not live to tell.
        """


def find_program(name: str) -> str | None:
    """Return the path of a program, also if it is one that ordinary users do not have on PATH."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(name, path=path)


def inside_guest() -> bool:
    """Tell whether this process runs inside an embedded kernel that was booted for it."""
    return bool(os.environ.get(GUEST_VARIABLE))


def clock() -> Clock:
    """Return the clock that this process sees."""
    return Clock(os.environ.get(CLOCK_VARIABLE, Clock.REAL)) if inside_guest() else Clock.REAL


def seed() -> int | None:
    """Return the seed of what is random in this run, or None if chance is left to itself."""
    text = os.environ.get(SEED_VARIABLE)
    return int(text) if text else None


def seed_variables(seed: int | None) -> dict[str, str]:
    """Return the variables that tell programs the seed."""
    if seed is None:
        return {}
    return {SEED_VARIABLE: str(seed), "PYTHONHASHSEED": str(seed % 2**32)}


@contextlib.contextmanager
def computing(seconds: float) -> Iterator[None]:
    """Declare that this process computes for up to ``seconds`` of CPU time without waiting.

    Under the virtual clock a command that computes for longer than ``--stall`` without ever
    waiting is taken for one that spins, unless it says so. Under other clocks this does nothing.
    """
    directory = os.environ.get(COMPUTING_VARIABLE)
    if clock() is not Clock.VIRTUAL or not directory:
        yield
        return
    with tempfile.NamedTemporaryFile("w", dir=directory, prefix="computing-") as note:
        note.write(f"{seconds:g}")
        note.flush()
        yield


def state_directory(name: str = "kproxy") -> Path:
    """Return where things that live only for a while are noted, so that a next start can tidy up.

    ``$KPROXY_STATE_DIR``; for root ``/run/NAME``; otherwise ``$XDG_RUNTIME_DIR/NAME`` or
    ``~/.local/state/NAME``. It is not made here.
    """
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run") / name
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / name
    return Path.home() / ".local" / "state" / name
