"""How far a build is: what make prints, turned into numbers."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

COMPILING = "compiling"
# "  CC      net/core/dev.o"; what is not an object (GEN, SYNC, UPD …) is not counted.
_STEP = re.compile(r"\s+(?:\[M\]\s+)?([A-Z][A-Z_]*)\s+(?:\[M\]\s+)?(\S+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a build is. ``total`` is an estimate, 0 in steps that are not counted.

    ``seconds`` are since this run began, ``current`` is the file that is made.
    """

    step: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    current: str = ""


class Meter:
    """Follows a build and reports."""

    def __init__(
        self, report: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._begun = clock()
        self._step = ""
        self._done = 0
        self._total = 0
        self._current = ""

    def step(self, name: str) -> None:
        """A step begins which is not counted."""
        self._step, self._done, self._total, self._current = name, 0, 0, ""
        self.tick()

    def compiling(self, *, objects: int, estimate: int) -> None:
        """Compilation begins; so many objects are there, and so many will be, about."""
        self._step, self._current = COMPILING, ""
        self._done, self._total = objects, max(objects, estimate)
        self.tick()

    def line(self, text: str) -> None:
        """Something was printed."""
        found = _STEP.match(text)
        if found is None:
            return
        self._current = found[2]
        if self._total and found[2].endswith(".o"):
            self._done += 1
            # An estimate that was too low is no reason to show more than all.
            self._total = max(self._total, self._done)

    def tick(self) -> None:
        """Report as it is now."""
        self._report(
            Progress(
                step=self._step,
                done=self._done,
                total=self._total,
                seconds=self._clock() - self._begun,
                current=self._current,
            )
        )
