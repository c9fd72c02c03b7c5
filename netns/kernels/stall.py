"""When a virtual clock stands still for too long.

A program that spins, in virtual time, never lets the clock move, and all others wait for ever.
One that asks for the time in a loop, without sleeping, is hardly better: every reading moves the
clock a little. What counts is the CPU time that the guest has used meanwhile, so a loaded machine,
on which everything takes longer, changes nothing.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

# Reading the clock moves it by a quarter of a microsecond, so that it is never quite still. It
# stands still if it moves by less than this for each second of CPU time.
STILL = 0.001
# A loop that reads the clock without sleeping moves it by some 0.02 s per second of CPU time.
# Honest work can be as slow: programs that start move it by 0.002 s. So three things have to come
# together: the clock is that slow, it is always the same process that runs, and when looked at
# closely, a millisecond apart, the clock moves in more than this part of the moments instead of
# leaping now and then, as with work that sleeps.
CREEP = 0.05
READINGS = 100
MOST_MOVING = 0.25
STALLED = "its clock has stood still"
CREPT = "its clock has only crept"


@dataclass(frozen=True, slots=True)
class Sample:
    """The CPU time that a guest has used and its virtual time, both in seconds.

    ``process`` is the one that runs in it: equal numbers are the same process.
    """

    cpu: float
    virtual: float
    process: int = 0


class Stall:
    """Follows a guest through samples; ``pace`` is what the clock has to move per CPU second.

    With ``one_process``, another process that runs is progress, too.
    """

    def __init__(self, limit: float, pace: float = STILL, *, one_process: bool = False) -> None:
        self.limit = limit
        self._pace = pace
        self._one_process = one_process
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
            or (self._one_process and sample.process != since.process)
            or sample.virtual - since.virtual > self._pace * (sample.cpu - since.cpu)
        ):
            self._since = sample
            return False
        return sample.cpu - since.cpu >= max(self.limit, declared)


def creeping(readings: Sequence[float]) -> bool:
    """Tell whether a clock that was read again and again moves all the time instead of leaping.

    A loaded machine lets the guest run only part of that time, so not every reading has to differ.
    """
    moves = sum(one != other for one, other in itertools.pairwise(readings))
    return moves > MOST_MOVING * len(readings)


class Guest(Protocol):
    """A running guest, seen from outside."""

    def sample(self) -> Sample | None:
        """Return its times; None if they cannot be read now."""

    def readings(self, number: int) -> Sequence[float]:
        """Return its virtual time, read so many times, a millisecond apart; fewer if it ends."""

    def running(self) -> str:
        """Return which process runs in it, for the user; empty if that cannot be found out."""


class StallWatch:
    """Looks at a guest now and then: ``deadline`` (monotonic seconds) is when to ask it."""

    def __init__(self, guest: Guest, limit: float, declarations: Path, now: float) -> None:
        self._guest = guest
        self._stall = Stall(limit)
        self._creep = Stall(limit, CREEP, one_process=True)
        self._declarations = declarations
        self.deadline = now + self._stall.interval

    def check(self, now: float) -> str:
        """Return what is wrong, for the user: who spins, and since when; empty if nothing is."""
        if now < self.deadline:
            return ""
        self.deadline = now + self._stall.interval
        sample = self._guest.sample()
        if sample is None:
            return ""
        computing = declared(self._declarations)
        stalled = self._stall.stalled(sample, computing)
        slow = self._creep.stalled(sample, computing)
        if stalled:
            what, how = f"{STALLED} at {sample.virtual:.6f} s", "without ever waiting"
        elif slow and creeping(self._guest.readings(READINGS)):
            what = f"{CREPT} on to {sample.virtual:.6f} s"
            how = "and asked for the time again and again instead of sleeping"
        else:
            return ""
        who = self._guest.running() or "a process"
        return f"{what} for {self._stall.limit:g} s of CPU time or more, while {who} ran {how}"


def declared(directory: Path) -> float:
    """Return the longest CPU time, in seconds, for which a process has announced to compute."""
    longest = 0.0
    for note in directory.glob("computing-*"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or not yet written
            longest = max(longest, float(note.read_text()))
    return longest
