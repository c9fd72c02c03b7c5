"""Faults that nobody below monitoring notices, each played in three variants.

*alone*: without monitoring, as long as somebody could still come; *remediated*: with the rules of
this project in profile lab, and remediation; *mixin*: with the intervals of production and the two
rules of kubernetes-mixin only, and somebody who comes a declared time after their alert.

A fault says how it comes about, how it is told to be over, and what a person would do. Who was
quicker than all of these, the cluster itself for one, is told too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from kproxy import errors
from kproxy.lab.chain import mixin
from kproxy.lab.chain.alarms import Alarms, Notice
from kproxy.lab.chain.recovery import Look
from kproxy.lab.chain.stage import NOTICED, REPAIRED, ChainStage
from kproxy.traffic.chainset import Watched

ALERT, ACTION, VERIFIED = "alert", "action", "verified"
BY_HAND, NOBODY = "by hand", "nobody: by hand"
ALONE_S = 150.0
"""So long it is waited where nobody watches: longer than what repairs itself takes here."""
REMEDIATED_S = 120.0
MIXIN_S = 1080.0
"""So long an alert of the mixin is waited for, which takes 15 minutes and some intervals."""
VERIFIED_S = 20.0
"""So long after the repair somebody may take to look whether it was one."""
HAND_S = 120.0
"""What repairing by hand takes at the most, once somebody is there."""
_AGAIN_S, _SELDOM_S = 0.1, 1.0
_SELDOM_AFTER_S = 60.0


class Variant(StrEnum):
    """Who watches."""

    ALONE = "alone"
    REMEDIATED = "remediated"
    MIXIN = "mixin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``cause`` marks when the fault was; ``over`` tells when it is not one any more.

    ``by_hand`` is what a person does. ``itself``: who repairs it where nobody is called.
    ``prepare`` is done before there is traffic, ``undo`` in the end. ``modes``: in which there is
    such a thing; empty: in all.
    """

    name: str
    title: str
    cause: Callable[[ChainStage], None]
    over: Callable[[ChainStage], Look]
    by_hand: Callable[[ChainStage], None]
    itself: str = ""
    prepare: Callable[[ChainStage], None] | None = None
    undo: Callable[[ChainStage], None] | None = None
    modes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return the first line of what causes it."""
        return (self.cause.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Play:
    """A fault in one variant, as a link of the chain runs it."""

    fault: Fault
    variant: Variant

    def __call__(self, stage: ChainStage) -> None:
        """Cause it, wait until it is over, and leave everything as it was."""
        stage.watched = Watched(
            fault=self.fault.name, title=self.fault.title, variant=self.variant
        )
        try:
            self.fault.cause(stage)
            self._see_through(stage, self.fault.over(stage))
        finally:
            if self.fault.undo is not None:
                self.fault.undo(stage)

    def _see_through(self, stage: ChainStage, over: Look) -> None:
        alarms = Alarms(stage.cluster, stage.fault_ns or 0)
        if self.variant is Variant.MIXIN:
            self._until_called(stage, over, alarms)
            return
        patience = ALONE_S if self.variant is Variant.ALONE else REMEDIATED_S
        repaired = _until(over, patience)
        if self.variant is Variant.REMEDIATED:
            _until(lambda: _ended(alarms, repaired), VERIFIED_S)
            _tell(stage, alarms, repaired)
        if repaired is None:
            self._in_vain(stage, over, patience)
        else:
            stage.mark(REPAIRED, repaired, _by(stage, repaired) or self.fault.itself)

    def _until_called(self, stage: ChainStage, over: Look, alarms: Alarms) -> None:
        """Wait until it is over, or until a person is called, who comes and repairs it."""

        def called() -> int | None:
            told = alarms.paged(mixin.ALERTS)
            return None if told is None else told.ns

        _until(lambda: over() or called(), MIXIN_S)
        repaired, told = over(), alarms.paged(mixin.ALERTS)
        if told is not None:
            _note(stage, alarms, told)
        if repaired is not None:
            stage.mark(REPAIRED, repaired, self.fault.itself)
        elif told is None:
            self._in_vain(stage, over, MIXIN_S)
        else:
            assert stage.watched is not None
            stage.watched = replace(stage.watched, hand_ms=stage.hand_s * 1000)
            stage.sleep(max(0.0, told.ns / 1e9 + stage.hand_s - time.monotonic()))
            self.fault.by_hand(stage)
            stage.mark(REPAIRED, _must(over), BY_HAND)

    def _in_vain(self, stage: ChainStage, over: Look, patience: float) -> None:
        """Note that nobody came, and have it repaired: for what is to be broken next."""
        assert stage.watched is not None
        stage.watched = replace(stage.watched, waited_ms=patience * 1000)
        self.fault.by_hand(stage)
        _must(over)


def _ended(alarms: Alarms, repaired: int | None) -> int | None:
    act = alarms.cure(repaired)
    return None if act is None else act.ended_ns


def _tell(stage: ChainStage, alarms: Alarms, repaired: int | None) -> None:
    """Note what monitoring and remediation did, by their own records."""
    act = alarms.cure(repaired)
    told = alarms.told() if act is None else act.told
    if told is not None:
        _note(stage, alarms, told)
    if act is None:
        return
    assert stage.watched is not None
    stage.mark(ACTION, act.ns, act.action)
    stage.watched = replace(stage.watched, action=act.action, action_ms=_after(stage, act.ns))
    if act.helped and act.ended_ns is not None:
        stage.mark(VERIFIED, act.ended_ns, act.action)
        stage.watched = replace(stage.watched, verified_ms=_after(stage, act.ended_ns))


def _note(stage: ChainStage, alarms: Alarms, told: Notice) -> None:
    """Note an alert: when its rule was found true, and when somebody was told."""
    assert stage.watched is not None
    seen = alarms.seen(told)
    stage.mark(ALERT, told.ns, told.alert)
    if seen is not None:
        stage.mark(NOTICED, seen, f"Prometheus, {told.alert}")
    stage.watched = replace(
        stage.watched,
        alert=told.alert,
        alert_ms=_after(stage, told.ns),
        seen_ms=None if seen is None else _after(stage, seen),
    )


def _by(stage: ChainStage, repaired: int) -> str:
    """Return what action was begun before the repair; empty: none, so it was none's doing."""
    for mark in stage.marks:
        if mark.name == ACTION and mark.ns <= repaired:
            return f"remediation, {mark.detail}"
    return ""


def _after(stage: ChainStage, ns: int) -> float:
    return round((ns - (stage.fault_ns or 0)) / 1e6, 3)


def _until(look: Look, patience: float) -> int | None:
    """Look until there is something to see; None: not in time.

    After a minute not as often: where nobody is waited for, nothing is going on.
    """
    begun = time.monotonic()
    while (found := _looked(look)) is None:
        waited = time.monotonic() - begun
        if waited >= patience:
            return None
        time.sleep(_AGAIN_S if waited < _SELDOM_AFTER_S else _SELDOM_S)
    return found


def _looked(look: Look) -> int | None:
    """While the API does not answer, nothing is seen there."""
    try:
        return look()
    except errors.KproxyError:
        return None


def _must(over: Look) -> int:
    found = _until(over, HAND_S)
    if found is None:
        raise errors.MeasurementError(f"not over {HAND_S:g} s after it was repaired by hand")
    return found
