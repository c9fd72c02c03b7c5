"""What etcd's members write about who leads, on the lab's clock.

Members write the time of day; in a lab all clocks are one machine's, so the difference between it
and the monotonic clock is the same for all of them. To the millisecond, as etcd writes it.
"""

import datetime
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

_ELECTED = re.compile(r"became leader at term (\d+)")
_NOTICED = re.compile(r"starting a new election at term (\d+)|lost leader \w+ at term (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A member that has noticed that there is no leader, or has become one (``elected``)."""

    ns: int
    member: str
    elected: bool


def turns(logs: Path, members: tuple[str, ...], since_ns: int) -> list[Turn]:
    """Return what members wrote in the directory of logs since then, oldest first."""
    offset = time.time_ns() - time.monotonic_ns()
    found = [
        turn
        for member in members
        for turn in _read(logs / f"{member}-etcd.txt", member, offset)
        # A time that was cut to milliseconds is that of something later.
        if turn.ns >= since_ns - 1_000_000
    ]
    return sorted(found, key=lambda turn: turn.ns)


def _read(path: Path, member: str, offset: int) -> Iterator[Turn]:
    for line in path.read_bytes().splitlines():
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
            text = str(fields["msg"])
            if not (elected := bool(_ELECTED.search(text))) and not _NOTICED.search(text):
                continue
            stamp = datetime.datetime.fromisoformat(str(fields["ts"]))
        except (msgspec.DecodeError, KeyError, ValueError):  # a word of its own, or half a line
            continue
        ns = int(stamp.timestamp() * 1000) * 1_000_000 - offset
        yield Turn(ns=ns, member=member, elected=elected)
