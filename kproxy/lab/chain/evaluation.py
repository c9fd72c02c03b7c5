"""What did not go on during a fault: changes, writes and pods. Pure.

All three are things that somebody does steadily. What is usual is what was seen before the fault,
in the same trial; a pause is judged against that. All times are nanoseconds of one clock.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kproxy.traffic.chainset import Pause

Interval = tuple[int, int]

LATE = 2
"""What has taken so many times as long as usual when the watch ends, has not gone on again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """An attempt to change something. ``version`` is what the answer said; None: it failed."""

    begun_ns: int
    ended_ns: int
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """Since when a kernel has everything up to a version."""

    ns: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """From when to when somebody watched, and when the fault was; None: there was none."""

    since_ns: int
    until_ns: int
    fault_ns: int | None


def changes(writes: Iterable[Write], syncs: Iterable[Sync], watch: Watch) -> Pause:
    """Return how long acknowledged changes waited for a kernel.

    A change waits from its acknowledgement to the first sync that has it.
    """
    acknowledged = [
        one for one in writes if one.version is not None and one.ended_ns >= watch.since_ns
    ]
    ordered = sorted(syncs, key=lambda sync: sync.ns)
    waits: list[Interval] = []
    open_since: int | None = None
    place = 0
    for write in sorted(acknowledged, key=lambda one: one.ended_ns):
        assert write.version is not None
        while place < len(ordered) and ordered[place].version < write.version:
            place += 1
        if place == len(ordered):
            open_since = write.ended_ns
            break
        # A kernel may have it before the writer has the answer.
        waits.append((write.ended_ns, max(write.ended_ns, ordered[place].ns)))
    return _pause(waits, open_since, watch, len(acknowledged))


def stalls(writes: Sequence[Write], watch: Watch) -> Pause:
    """Return how long no write was acknowledged that somebody had begun.

    An attempt that fails is repeated: that counts from the first one's beginning to the answer of
    the next one that succeeds.
    """
    attempts = sorted(
        (one for one in writes if one.begun_ns >= watch.since_ns), key=lambda one: one.begun_ns
    )
    found: list[Interval] = []
    since: int | None = None
    for write in attempts:
        since = write.begun_ns if since is None else since
        if write.version is not None:
            found.append((since, write.ended_ns))
            since = None
    failed = sum(1 for one in attempts if one.version is None)
    return _pause(found, since, watch, len(attempts), failed=failed)


def gaps(times: Iterable[int], watch: Watch) -> Pause:
    """Return how far apart things were that happen again and again, up to the end of the watch."""
    seen = sorted(ns for ns in times if watch.since_ns <= ns <= watch.until_ns)
    found = list(itertools.pairwise(seen))
    usual = _usual(found, watch)
    last = seen[-1] if seen else watch.since_ns
    # The last one's successor may not be due yet.
    overdue = last if watch.until_ns - last > LATE * usual else None
    return _pause(found, overdue, watch, len(seen))


def _usual(found: Iterable[Interval], watch: Watch) -> int:
    """Return the longest interval that had ended before the fault; without one, of all."""
    end = watch.until_ns if watch.fault_ns is None else watch.fault_ns
    return max((until - since for since, until in found if until <= end), default=0)


def _pause(
    found: Sequence[Interval],
    open_since: int | None,
    watch: Watch,
    count: int,
    *,
    failed: int = 0,
) -> Pause:
    usual = _usual(found, watch)
    after = [one for one in found if watch.fault_ns is not None and one[1] > watch.fault_ns]
    longest: int | None = max((until - since for since, until in after), default=0)
    overdue = [(since + usual, until) for since, until in after if until - since > usual]
    if open_since is not None:
        longest = None
    return Pause(
        usual_ms=_ms(usual),
        longest_ms=None if longest is None else _ms(longest),
        over_ms=None if longest is None else _ms(max(0, longest - usual)),
        total_ms=None if longest is None else _ms(_covered(overdue)),
        count=count,
        failed=failed,
    )


def _covered(intervals: Iterable[Interval]) -> int:
    """Return how much time the intervals cover together."""
    total, reached = 0, 0
    for since, until in sorted(intervals):
        total += max(0, until - max(since, reached))
        reached = max(reached, until)
    return total


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
