"""How many of a zone's nodes are lost, and how fast pods may be evicted from them. Pure.

As in Kubernetes: one lost node is a broken machine; most nodes of a zone at once are rather a
broken network, where evicting would only make things worse; and if all nodes of all zones are
lost, it is the controller that cannot see.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kproxy.api import core

from .times import Times

Object = dict[str, Any]

LOST_LEAST = 3
"""Up to two lost nodes of a zone that has others are broken machines."""


class ZoneState(StrEnum):
    """How a zone is."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: Object) -> str:
    """Return a node's zone: region and zone of its labels."""
    labels = node["metadata"].get("labels") or {}
    return f"{labels.get(core.REGION_LABEL, '')}:{labels.get(core.ZONE_LABEL, '')}"


def state(ready: Iterable[bool], times: Times) -> ZoneState:
    """Return the state of a zone by which of its nodes are ready."""
    known = list(ready)
    lost = known.count(False)
    if lost and lost == len(known):
        return ZoneState.FULL
    if lost >= LOST_LEAST and lost / len(known) >= times.unhealthy_zone:
        return ZoneState.PARTIAL
    return ZoneState.NORMAL


def rates(zones: Mapping[str, Iterable[bool]], times: Times) -> dict[str, float]:
    """Return the nodes a second that may be evicted in each zone; 0 in all: all are lost."""
    sizes = {zone: list(nodes) for zone, nodes in zones.items()}
    states = {zone: state(nodes, times) for zone, nodes in sizes.items()}
    if states and all(one is ZoneState.FULL for one in states.values()):
        return dict.fromkeys(states, 0.0)
    result = {}
    for zone, one in states.items():
        large = len(sizes[zone]) > times.large_cluster
        slow = times.secondary_eviction_rate if large else 0.0
        result[zone] = slow if one is ZoneState.PARTIAL else times.eviction_rate
    return result


@dataclass(slots=True)
class Limiter:
    """Lets through ``rate`` things a second, one at once. Told the time in seconds."""

    rate: float
    _free: float = float("-inf")

    def wait(self, now: float) -> float | None:
        """Return in how many seconds the next one may go; None: never at this rate."""
        return max(self._free - now, 0.0) if self.rate > 0 else None

    def take(self, now: float) -> bool:
        """Let one through, if one may go now."""
        if self.wait(now) != 0.0:
            return False
        self._free = now + 1.0 / self.rate
        return True

    def change(self, rate: float, now: float) -> None:
        """Go on at another rate; what is under way counts by it."""
        if rate != self.rate and rate > 0:
            self._free = min(self._free, now + 1.0 / rate)
        self.rate = rate
