"""A full sync, now: a running proxy is asked to read the kernel anew and put it right.

That repairs what somebody has done to its rules without waiting for its sync period. It repairs
nothing that the proxy does not know of: whose watch of the API server is stuck syncs an old world.
"""

import signal
import time
from collections.abc import Callable, Sequence

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
) -> Care:
    """Ask for it, wait until it is done, and look again. ``number``: the signal that asks.

    Raises KproxyError where the API server or the kernel does not answer.
    """
    wanted = ask()
    found = _told(drift.lasting(ask, differ, wanted))
    one = find(place.lock)
    refused = why_not(one, number) if found else ""
    if refused or dry_run or not found or one is None:
        planned = not refused and bool(found)
        return Care(
            care=RESYNC,
            node=wanted.node,
            dry_run=dry_run,
            found=found,
            done=_planned(one, number) if planned else (),
            left=() if dry_run else found,
            refused=refused,
        )
    before, _ = asking.metrics(place.metrics)
    asked_at = time.time()
    told = "it has ended just now"
    if send(one, number):
        told = _await(place, before, asked_at, within_s)
    left = _settle(differ, ask, within_s)
    return Care(
        care=RESYNC,
        node=wanted.node,
        found=found,
        done=(f"asked process {one.pid} for a full sync: {told}",),
        left=left,
        refused=_still_wrong(left, told),
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


def _await(place: Place, before: asking.Metrics, asked_at: float, within_s: float) -> str:
    """Wait until a full sync has ended after ``before``; return what is known of it.

    Where the proxy did not answer before, because it is slow, any sync since ``asked_at`` (seconds
    since 1970) has to do: how many full ones there were by then is not known.
    """
    known = before.total(asking.FULL)
    until = time.monotonic() + within_s
    while True:
        time.sleep(_LOOK_AGAIN_S)
        now, why = asking.metrics(place.metrics)
        count = now.total(asking.FULL)
        is_later = (now.newest(asking.LAST) or 0.0) >= asked_at
        if is_later if known is None else count is not None and count > known:
            return SYNCED
        if why.endswith(asking.NOT_SERVED):
            return "whether it has synced is not known, because it serves no metrics"
        if time.monotonic() >= until:
            return f"no full sync within {within_s:g} s" + (f" ({why})" if why else "")


def _settle(differ: Differ, ask: Ask, within_s: float) -> tuple[str, ...]:
    """Look again, for a moment: what the proxy has just heard of is not in the kernel yet."""
    until = time.monotonic() + min(within_s, SETTLE_S)
    while True:
        left = drift.lasting(ask, differ, ask())
        if not left or time.monotonic() >= until:
            return _told(left)


def _still_wrong(left: tuple[str, ...], told: str) -> str:
    if not left:
        return ""
    if told != SYNCED:
        return f"{told}: {INSTEAD}"
    return (
        "it has synced and the kernel still differs from the API server: it has not heard of the "
        f"changes, its watch is stale: {INSTEAD}"
    )


def _told(found: Sequence[Difference]) -> tuple[str, ...]:
    more = len(found) - TOLD
    return (*drift.texts(found[:TOLD]), *([f"… and {more} more"] if more > 0 else []))


def _planned(one: Process | None, number: int) -> tuple[str, ...]:
    return (f"{signal.Signals(number).name} to process {one.pid}",) if one is not None else ()
