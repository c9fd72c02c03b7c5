"""When a virtual clock stands still for too long.

A program that spins, in virtual time, never lets the clock move, and all others wait for ever.
What counts is the CPU time that the guest has used meanwhile, so a loaded machine, on which
everything takes longer, changes nothing.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Reading the clock moves it by a quarter of a microsecond, so that it is never quite still. It
# stands still if it moves by less than this for each second of CPU time.
CREEP = 0.001
STALLED = "its clock has stood still"


@dataclass(frozen=True, slots=True)
class Sample:
    """The CPU time that a guest has used and its virtual time, both in seconds."""

    cpu: float
    virtual: float


class Stall:
    """Follows a guest through samples."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: Sample | None = None
        self._declared = 0.0

    @property
    def interval(self) -> float:
        """Seconds of real time to let pass between samples: a tenth of the limit."""
        return min(5.0, max(0.1, self.limit / 10))

    def stalled(self, sample: Sample, declared: float = 0.0) -> bool:
        """Tell whether the clock stands still for too long.

        ``declared`` is the CPU time for which somebody has announced to compute; beginning and
        end of it are progress.
        """
        since = self._since
        changed = declared != self._declared
        self._declared = declared
        if (
            since is None
            or changed
            or sample.virtual - since.virtual > CREEP * (sample.cpu - since.cpu)
        ):
            self._since = sample
            return False
        return sample.cpu - since.cpu >= max(self.limit, declared)


class Guest(Protocol):
    """A running guest, seen from outside."""

    def sample(self) -> Sample | None:
        """Return its times; None if they cannot be read now."""

    def running(self) -> str:
        """Return which process runs in it, for the user; empty if that cannot be found out."""


class StallWatch:
    """Looks at a guest now and then: ``deadline`` (monotonic seconds) is when to ask it."""

    def __init__(self, guest: Guest, limit: float, declarations: Path, now: float) -> None:
        self._guest = guest
        self._stall = Stall(limit)
        self._declarations = declarations
        self.deadline = now + self._stall.interval

    def check(self, now: float) -> str:
        """Return what is wrong, for the user: who spins, and since when; empty if nothing is."""
        if now < self.deadline:
            return ""
        self.deadline = now + self._stall.interval
        sample = self._guest.sample()
        if sample is None or not self._stall.stalled(sample, declared(self._declarations)):
            return ""
        who = self._guest.running() or "a process"
        return (
            f"{STALLED} at {sample.virtual:.6f} s for {self._stall.limit:g} s of"
            f" CPU time or more, while {who} ran without ever waiting"
        )


def declared(directory: Path) -> float:
    """Return the longest CPU time, in seconds, for which a process has announced to compute."""
    longest = 0.0
    for note in directory.glob("computing-*"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or not yet written
            longest = max(longest, float(note.read_text()))
    return longest
