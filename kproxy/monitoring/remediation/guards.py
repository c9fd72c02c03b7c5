"""Is a repair allowed now? Rate, one at a time, rest after repairs, circuit breaker, sick cluster.

A state machine that is told the time (seconds); it never waits and never looks at a clock.
"""

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

from .records import Breaker, Bucket, GuardState, Rest
from .settings import Guards as GuardSettings
from .targets import Limits

COOL_DOWN_MOST = 64
"""A cool-down is not longer than so many times its first length."""
RESTS_MOST = 4096
"""Targets whose cool-down is remembered; those whose is over are forgotten first."""


class Reason(StrEnum):
    """Why an action is not run now."""

    BUSY = "one-at-a-time"
    COOL_DOWN = "cool-down"
    RATE = "rate-limit"
    CIRCUIT = "circuit-open"
    UNWELL = "too-many-unwell"
    CHECK = "would-not-help"
    BLIND = "check-failed"


class Hold(NamedTuple):
    """An action must wait until ``until``; where that is now, nobody knows how long."""

    reason: Reason
    why: str
    until: float


class Health(NamedTuple):
    """How the cluster is. ``nodes`` 0: it is not known how many there are."""

    nodes: int
    unwell: frozenset[str]


class Circuit(StrEnum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


class Guards:
    """What limits repairs. ``limits`` returns those of an action by its name."""

    def __init__(self, settings: GuardSettings, limits: Callable[[str], Limits]) -> None:
        self._settings = settings
        self._limits = limits
        self._buckets: dict[str, Bucket] = {}
        self._rests: dict[str, Rest] = {}
        self._breakers: dict[str, Breaker] = {}
        self.lease = ""
        """The instance whose action runs or is being verified; empty: none."""

    def hold(self, action: str, target: str, now: float, health: Health) -> Hold | None:
        """Return why an action may not run on a target now; None: it may."""
        if self.lease:
            return Hold(Reason.BUSY, f"{self.lease} is being repaired", now)
        rest = self._rests.get(target)
        if rest is not None and now < rest.until:
            return Hold(Reason.COOL_DOWN, f"{target} was repaired shortly ago", rest.until)
        if self.circuit(action, now) is Circuit.OPEN:
            breaker = self._breakers[action]
            why = f"{action} did not help {breaker.failures} times in a row"
            return Hold(Reason.CIRCUIT, why, breaker.open_until)
        limits, tokens = self._limits(action), self._tokens(action, now)
        if tokens < 1 - 1e-9:
            wait = (1 - tokens) * limits.period / limits.runs
            why = f"{action} may run {limits.runs} times in {limits.period:g} s"
            return Hold(Reason.RATE, why, now + wait)
        return self._sick(now, health)

    def began(self, instance: str, action: str, at: float) -> None:
        """Tell that an action begins."""
        self._buckets[action] = Bucket(self._tokens(action, at) - 1, at)
        self.lease = instance

    def ended(self, action: str, target: str, at: float, *, helped: bool) -> None:
        """Tell how the action ended that had begun."""
        self.lease = ""
        before, cool_down = self._rests.get(target), self._limits(action).cool_down
        if before is not None and at - before.until > COOL_DOWN_MOST * cool_down:
            before = None  # That is history.
        failures = 0 if helped else (before.failures if before else 0) + 1
        # 300, 600, 1200 s … after the first, second, third time that it did not help.
        factor = min(2 ** min(max(failures - 1, 0), 30), COOL_DOWN_MOST)
        self._rests[target] = Rest(at + cool_down * factor, failures)
        self._forget(at)
        self._count(action, at, helped)

    def circuit(self, action: str, now: float) -> Circuit:
        """Return the state of an action's circuit breaker."""
        breaker = self._breakers.get(action)
        if breaker is None or breaker.failures < self._settings.breaker.failures:
            return Circuit.CLOSED
        return Circuit.OPEN if now < breaker.open_until else Circuit.HALF_OPEN

    def state(self) -> GuardState:
        """Return everything it remembers."""
        return GuardState(
            buckets=dict(self._buckets),
            rests=dict(self._rests),
            breakers=dict(self._breakers),
            lease=self.lease,
        )

    def restore(self, state: GuardState) -> None:
        """Remember this instead."""
        self._buckets = dict(state.buckets)
        self._rests = dict(state.rests)
        self._breakers = dict(state.breakers)
        self.lease = state.lease

    def _tokens(self, action: str, now: float) -> float:
        limits, bucket = self._limits(action), self._buckets.get(action)
        if bucket is None:
            return float(limits.runs)
        gained = max(now - bucket.at, 0.0) * limits.runs / limits.period
        return min(float(limits.runs), bucket.tokens + gained)

    def _sick(self, now: float, health: Health) -> Hold | None:
        allowed = max(1, math.floor(self._settings.unwell_share * health.nodes + 1e-9))
        if len(health.unwell) <= allowed:
            return None
        of = f" of {health.nodes}" if health.nodes else ""
        why = f"{len(health.unwell)}{of} nodes are not well: that is no fault of one node"
        return Hold(Reason.UNWELL, why, now)

    def _count(self, action: str, at: float, helped: bool) -> None:
        before = self._breakers.get(action)
        failures = 0 if helped else (before.failures if before else 0) + 1
        is_open = failures >= self._settings.breaker.failures
        open_until = at + self._settings.breaker.open_for if is_open else 0.0
        self._breakers[action] = Breaker(failures, open_until)

    def _forget(self, at: float) -> None:
        if len(self._rests) > RESTS_MOST:
            self._rests = {key: rest for key, rest in self._rests.items() if rest.until > at}


def recheck(settings: GuardSettings, tries: int) -> float:
    """Return how long to wait before what was held ``tries`` times is looked at again."""
    return min(settings.recheck * 2.0 ** min(tries, 30), float(settings.recheck_most))


def unwell(not_ready: Mapping[str, bool], alerted: frozenset[str]) -> Health:
    """Return the cluster's health: nodes and whether they are not ready, and alerts on nodes."""
    sick = {name for name, is_sick in not_ready.items() if is_sick}
    known = alerted & set(not_ready) if not_ready else alerted
    return Health(len(not_ready), frozenset(sick | known))
