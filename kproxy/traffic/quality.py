"""What disturbs a tester besides itself: time that the machine took away, packets its kernel left.

Counters of the whole machine, read at the beginning and at the end of a run.
"""

import os
from dataclasses import dataclass
from pathlib import Path

#: A sender that woke so late has not tested anything meanwhile: the trial is not valid.
STALL_MS = 250.0
_STEAL_FIELD = 8
_DROPPED_FIELD, _SQUEEZED_FIELD = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Counters since boot; a kernel that does not have one says 0.

    ``steal_ms``: CPU time that a hypervisor gave to others. ``backlog_drops``: packets dropped
    because a CPU's receive backlog was full; ``squeezed``: how often receiving was interrupted
    with work left.
    """

    steal_ms: float
    backlog_drops: int
    squeezed: int

    @classmethod
    def now(cls) -> "Machine":
        """Read the counters."""
        lines = [line.split() for line in _text("/proc/net/softnet_stat").splitlines()]
        return cls(
            steal_ms=_steal_ms(_text("/proc/stat")),
            backlog_drops=sum(int(line[_DROPPED_FIELD], 16) for line in lines),
            squeezed=sum(int(line[_SQUEEZED_FIELD], 16) for line in lines),
        )

    def since(self) -> dict[str, float | int]:
        """Return what has been added to each since then."""
        now = Machine.now()
        return {
            "steal_ms": round(now.steal_ms - self.steal_ms, 3),
            "backlog_drops": now.backlog_drops - self.backlog_drops,
            "squeezed": now.squeezed - self.squeezed,
        }


def _steal_ms(stat: str) -> float:
    line = stat.partition("\n")[0].split()
    if len(line) <= _STEAL_FIELD:
        return 0.0
    return int(line[_STEAL_FIELD]) * 1000 / os.sysconf("SC_CLK_TCK")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
