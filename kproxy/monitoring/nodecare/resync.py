"""A full sync, now: a running proxy is asked to read the kernel anew and put it right.

That repairs what somebody has done to its rules without waiting for its sync period. It repairs
nothing that the proxy does not know of: whose watch of the API server is stuck syncs an old world.
"""

import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kproxy.backends.base import Difference

from . import asking, drift, process
from .process import Process, State
from .seen import RESYNC, Ask, Care, Differ, Place

WITHIN_S = 20.0
SETTLE_S = 2.0
_LOOK_AGAIN_S = 0.1
TOLD = 20
"""So many differences are told; there may be thousands."""

SYNCED = "synced"
INSTEAD = "restart it instead (restart-proxy)"


def resync(
    place: Place,
    ask: Ask,
    differ: Differ,
    *,
    number: int,
    dry_run: bool = False,
    within_s: float = WITHIN_S,
    find: Callable[[str], Process | None] = process.find,
    send: Callable[[Process, int], bool] = process.send,
    lives: Callable[[Process], bool] = process.lives,
) -> Care:
    """Ask for it, wait until it is done, and look again. ``number``: the signal that asks.

    Who takes the place of the one that was asked is waited for: that begins with a full sync.
    Raises KproxyError where the API server or the kernel does not answer.
    """
    wanted = ask()
    found = _told(drift.lasting(ask, differ, wanted))
    one = find(place.lock)
    refused = why_not(one, number) if found else ""
    if refused or dry_run or not found or one is None:
        return Care(
            care=RESYNC,
            node=wanted.node,
            dry_run=dry_run,
            found=found,
            done=_planned(one, number) if found and not refused else (),
            left=() if dry_run else found,
            refused=refused,
        )
    before, _ = asking.metrics(place.metrics)
    asked = _Asked(one, before.total(asking.FULL), time.time())
    answer = _Answer(False, "it has ended just now")
    if send(one, number):
        answer = _await(place, asked, within_s, find, lives)
    left = _settle(differ, ask, within_s)
    return Care(
        care=RESYNC,
        node=wanted.node,
        found=found,
        done=(f"asked process {one.pid} for a full sync: {answer.told}",),
        left=left,
        refused=_still_wrong(left, answer),
    )


def why_not(one: Process | None, number: int) -> str:
    """Return why a proxy cannot be asked, and what to do instead; empty: it can."""
    if one is None:
        return f"no proxy runs on this node: {INSTEAD}"
    if one.kind == process.KUBE_PROXY:
        return f"kube-proxy (process {one.pid}) cannot be asked for a sync: {INSTEAD}"
    if one.state in (State.STOPPED, State.ZOMBIE):
        return f"the proxy (process {one.pid}) is {one.state}: {INSTEAD}"
    if number not in one.catches:
        # It has not synced yet, or is a version that cannot be asked, which the signal would end.
        return f"the proxy (process {one.pid}) does not listen to the request yet: {INSTEAD}"
    return ""


class _Asked(NamedTuple):
    """Whom, how many full syncs it told of before (None: unknown), and when in s since 1970."""

    one: Process
    full_syncs: float | None
    at: float

    def is_done(self, now: asking.Metrics, *, by_another: bool) -> bool:
        """Return whether there was a full sync since.

        Where the proxy did not answer before, because it is slow, any sync since then has to do:
        how many full ones there were by then is not known. Another one counts from 0, and its
        first sync is a full one.
        """
        count = now.total(asking.FULL)
        is_later = (now.newest(asking.LAST) or 0.0) >= self.at
        if by_another:
            return is_later and bool(count)
        return is_later if self.full_syncs is None else (count or 0.0) > self.full_syncs


class _Answer(NamedTuple):
    """Whether a full sync was seen, and what is known of it."""

    synced: bool
    told: str


def _await(
    place: Place,
    asked: _Asked,
    within_s: float,
    find: Callable[[str], Process | None],
    lives: Callable[[Process], bool],
) -> _Answer:
    """Wait until a full sync has ended, of who was asked or of who has taken its place."""
    until = time.monotonic() + within_s
    gone = False
    while True:
        time.sleep(_LOOK_AGAIN_S)
        gone = gone or not lives(asked.one)
        now, why = asking.metrics(place.metrics)
        if asked.is_done(now, by_another=gone):
            return _Answer(True, f"{_in_its_place(find(place.lock))}{SYNCED}" if gone else SYNCED)
        if why.endswith(asking.NOT_SERVED):
            return _Answer(
                False, "whether it has synced is not known, because it serves no metrics"
            )
        if time.monotonic() >= until:
            told = f"no full sync within {within_s:g} s" + (f" ({why})" if why else "")
            return _Answer(False, f"{_in_its_place(find(place.lock))}{told}" if gone else told)


def _in_its_place(other: Process | None) -> str:
    found = f"process {other.pid} is in its place" if other else "no proxy is in its place"
    return f"it has ended meanwhile, {found}: "


def _settle(differ: Differ, ask: Ask, within_s: float) -> tuple[str, ...]:
    """Look again, for a moment: what the proxy has just heard of is not in the kernel yet."""
    until = time.monotonic() + min(within_s, SETTLE_S)
    while True:
        left = drift.lasting(ask, differ, ask())
        if not left or time.monotonic() >= until:
            return _told(left)


def _still_wrong(left: tuple[str, ...], answer: _Answer) -> str:
    if not left:
        return ""
    if not answer.synced:
        return f"{answer.told}: {INSTEAD}"
    return (
        "it has synced and the kernel still differs from the API server: it has not heard of the "
        f"changes, its watch is stale: {INSTEAD}"
    )


def _told(found: Sequence[Difference]) -> tuple[str, ...]:
    more = len(found) - TOLD
    return (*drift.texts(found[:TOLD]), *([f"… and {more} more"] if more > 0 else []))


def _planned(one: Process | None, number: int) -> tuple[str, ...]:
    return (f"{signal.Signals(number).name} to process {one.pid}",) if one is not None else ()
