"""When a probe is due and what its results come to: Kubernetes' rules, without clock or socket.

Ticks come every ``periodSeconds``. Where the first one falls within a period is drawn from the
pod's uid: in Kubernetes it depends on how long pulling and starting took, here a run is repeated
exactly. A readiness probe begins with the container (Kubernetes triggers it by hand then), except
for a container that was adopted. Until ``initialDelaySeconds`` are over, ticks pass unused.
"""

import hashlib
from enum import StrEnum

from kproxy.api.pods import Probe


class Kind(StrEnum):
    """What a probe decides; the values are those of the kubelet's metrics."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


INITIAL = {Kind.STARTUP: None, Kind.LIVENESS: True, Kind.READINESS: False}
"""The verdict before the first probe."""


def draw(*words: str) -> float:
    """Return a number from 0 to below 1 that depends on the words only."""
    digest = hashlib.blake2b("/".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


class ProbeState:
    """One probe of one started container.

    ``verdict``: what the results come to; None: nothing yet. ``due``: the time of the next tick.
    Times are seconds of a monotonic clock.
    """

    def __init__(
        self, probe: Probe, kind: Kind, started: float, phase: float, *, ready: bool = False
    ) -> None:
        self.probe = probe
        self.kind = kind
        self.verdict = True if ready else INITIAL[kind]
        self.pending = False
        self.due = started + phase * probe.period_seconds
        self._not_before = started + probe.initial_delay_seconds
        self._last: bool | None = None
        self._run = 0
        self._skip(self._not_before)

    def begin(self, now: float) -> None:
        """Note that a probe is under way; there is one at a time."""
        self.pending = True
        self.due += self.probe.period_seconds

    def trigger(self, now: float) -> None:
        """Probe at once, and in whole periods from now on."""
        self.due = now
        self._skip(self._not_before)

    def ended(self, success: bool, now: float) -> bool:
        """Take the result of the one that was under way; return whether the verdict changes."""
        self.pending = False
        self._skip(now)  # ticks that came meanwhile are lost
        if success is self._last:
            self._run += 1
        else:
            self._last, self._run = success, 1
        probe = self.probe
        if self._run < (probe.success_threshold if success else probe.failure_threshold):
            return False
        before, self.verdict = self.verdict, success
        return before is not success

    def _skip(self, until: float) -> None:
        period = self.probe.period_seconds
        if self.due < until:
            self.due += (until - self.due) // period * period
        while self.due < until:
            self.due += period
