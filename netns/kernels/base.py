"""What a kernel provider is: something that runs a command on a kernel fit for the lab.

Code of the lab never knows on which kernel it runs; only what starts a command chooses one.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Set, to the provider's name, in the environment of all that runs inside an embedded kernel.
GUEST_VARIABLE = "KPROXY_GUEST"
STATE_VARIABLE = "KPROXY_STATE_DIR"

# Exit codes of what happens to the kernel rather than to the command (as timeout(1) has them).
EXIT_TIME_LIMIT = 124
EXIT_GUEST_FAILED = 125
EXIT_INTERRUPTED = 130

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an embedded kernel may use: ``memory`` in bytes, ``time`` in seconds of real time."""

    memory: int = 1024 * MIB
    time: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line to run on some kernel, in the environment and directory of this process.

    ``writable`` are the directories (made if absent) in which it may leave files; everything else
    of the host is read-only to it where the kernel is an embedded one, and its temporary
    directory vanishes with the kernel. ``packages`` are directories of Python code to be compiled
    beforehand: on a read-only root nothing is cached, and every start would compile again.
    """

    argv: tuple[str, ...]
    writable: tuple[Path, ...] = ()
    packages: tuple[Path, ...] = ()


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

    def describe(self) -> str:
        """Return what it is, for the user: ``User-Mode Linux 6.1.176``."""

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
