"""The arithmetic of Deployments: how many pods each ReplicaSet should have next. Pure.

Works on :class:`Share` values, one for each ReplicaSet. Rounding is that of Kubernetes:
percentages of ``maxSurge`` up, of ``maxUnavailable`` down, shares of a proportional scaling to the
nearest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import owned

Object = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One ReplicaSet's part of a Deployment; the older has less ``age``."""

    key: str
    wanted: int
    """``spec.replicas``."""
    available: int = 0
    """Of the wanted ones: what is reported of pods that are about to go does not count."""
    present: int = 0
    """Pods that there are, or may be at any moment."""
    age: tuple[str, str] = ("", "")
    maximum: int = 0
    """How many pods the Deployment could have when it was scaled last; 0: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a rolling update must keep to, in pods."""

    wanted: int
    surge: int
    unavailable: int

    @property
    def most(self) -> int:
        """Return how many pods there may be; none if none are wanted."""
        return self.wanted + self.surge if self.wanted else 0

    @property
    def least(self) -> int:
        """Return how many must be available."""
        return self.wanted - self.unavailable


def limits(spec: Mapping[str, Any], wanted: int) -> Limits:
    """Return the limits of a Deployment's strategy for so many replicas."""
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Limits(wanted=wanted, surge=0, unavailable=0)
    given = strategy.get("rollingUpdate") or {}
    surge = owned.share(given.get("maxSurge", "25%"), wanted, up=True, default=0)
    unavailable = owned.share(given.get("maxUnavailable", "25%"), wanted, up=False, default=0)
    if not surge and not unavailable:
        # Rounded down to nothing; with both zero no step would ever be possible.
        unavailable = 1
    return Limits(wanted=wanted, surge=surge, unavailable=min(unavailable, wanted))


def grow_new(new: Share, everything: Sequence[Share], bounds: Limits) -> int:
    """Return how many pods the new ReplicaSet should have now."""
    if new.wanted >= bounds.wanted:
        return bounds.wanted
    # Where pods have still to go, theirs is no room yet. (Kubernetes counts what is wanted only,
    # and so has more pods than it may for a moment.)
    room = bounds.wanted + bounds.surge - sum(max(one.wanted, one.present) for one in everything)
    if room <= 0:
        return new.wanted
    return new.wanted + min(room, bounds.wanted - new.wanted)


def shrink_old(new: Share, old: Sequence[Share], bounds: Limits) -> dict[str, int]:
    """Return how many pods old ReplicaSets should have now, those that change only.

    First those pods go that serve nobody, then as many as may be missing.
    """
    everything = [*old, new]
    not_yet = new.wanted - new.available
    room = _total(everything) - bounds.least - not_yet
    if not _total(old) or room <= 0:
        return {}
    sizes = {one.key: one.wanted for one in old}
    by_age = sorted(old, key=lambda one: one.age)
    for one in by_age:
        idle = max(one.wanted - one.available, 0)
        gone = min(room, idle)
        sizes[one.key] -= gone
        room -= gone
    spare = sum(one.available for one in everything) - bounds.least
    for one in by_age:
        gone = max(min(spare, sizes[one.key]), 0)
        sizes[one.key] -= gone
        spare -= gone
    return {one.key: sizes[one.key] for one in old if sizes[one.key] != one.wanted}


def in_proportion(shares: Iterable[Share], bounds: Limits, before: int) -> dict[str, int]:
    """Return the sizes of ReplicaSets after the Deployment was scaled in the middle of a rollout.

    ``before``: how many pods there could be, for shares that do not know it.
    """
    present = [one for one in shares if one.wanted > 0]
    change = bounds.most - _total(present)
    grow = change > 0
    # Of equal ones the newest gains first, and the oldest loses first.
    present.sort(key=lambda one: one.age, reverse=grow)
    present.sort(key=lambda one: one.wanted, reverse=True)
    sizes: dict[str, int] = {}
    done = 0
    for one in present:
        part = _fraction(one, bounds, before)
        left = change - done
        part = min(part, left) if grow else max(part, left)
        if not change or not left:
            part = 0
        sizes[one.key] = one.wanted + part
        done += part
    if present:
        first = present[0].key
        sizes[first] = max(sizes[first] + change - done, 0)
    return sizes


def _fraction(one: Share, bounds: Limits, before: int) -> int:
    """Return by how much a share should change to stay the same part of the whole."""
    if not bounds.wanted:
        return -one.wanted
    total = one.maximum or before or bounds.most
    size = one.wanted * (bounds.wanted + bounds.surge) / total
    return int(size + 0.5) - one.wanted


def _total(shares: Iterable[Share]) -> int:
    return sum(one.wanted for one in shares)
