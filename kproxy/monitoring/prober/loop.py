"""Sends all probes of a node from one thread, which sleeps until something is due or answered.

Of every target at most one probe is under way, so sockets and memory are bounded by the number of
targets, which is bounded itself. A probe that was due while the process did not run is not made up
for. What lies in a socket when its time is up is an answer: being late is not the network's fault.
"""

import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .attempts import Attempt, Fate, attempt
from .metrics import ProbeMetrics
from .targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Seconds between the probes of a target, seconds to wait for an answer, targets at most."""

    period: float = 1.0
    timeout: float = 1.0
    most: int = 4000


class _Probe:
    """A target with the state of its probes."""

    __slots__ = ("attempt", "began", "due", "target", "wakes", "watched")

    def __init__(self, target: Target, made: Attempt, due: float) -> None:
        self.target = target
        self.attempt = made
        self.due = due
        self.wakes = due
        """When it is to be looked at: due, or at the end of its patience. Past is never."""
        self.began: float | None = None
        self.watched: socket.socket | None = None


class Loop:
    """Probes targets until :meth:`stop`. :meth:`follow` and :meth:`stop` are for any thread."""

    def __init__(
        self,
        metrics: ProbeMetrics,
        terms: Terms,
        *,
        make: Callable[[Target], Attempt] = attempt,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._terms = terms
        self._make = make
        self._now = now
        self._probes: dict[Target, _Probe] = {}
        self._series: Counter[tuple[str, ...]] = Counter()
        self._timers: list[tuple[float, int, _Probe]] = []
        self._serial = itertools.count()
        # A signal handler may take it while its own thread has it.
        self._lock = threading.RLock()
        self._wanted: frozenset[Target] | None = None
        self._stopped = self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)

    def follow(self, targets: Iterable[Target]) -> None:
        """Probe these targets from now on, and no others."""
        with self._lock:
            self._wanted = frozenset(targets)
        self._awaken()

    def stop(self) -> None:
        """Make :meth:`run` return; also from a signal handler."""
        self._stopped = True
        self._awaken()

    def run(self) -> None:
        """Probe until :meth:`stop`; then everything is closed."""
        while not self._stopped:
            due = self.step()
            self.wait(None if due is None else due - self._now())
        for probe in list(self._probes.values()):
            self._end(probe)
        self._selector.close()
        with self._lock:
            self._closed = True
            os.close(self._wake)

    def step(self) -> float | None:
        """Do everything that is due; return when the next thing is, None: nothing is."""
        self._take()
        while self._timers and self._timers[0][0] <= self._now():
            wakes, _, probe = heapq.heappop(self._timers)
            if probe.wakes != wakes:
                continue  # It was answered, or ended, and has another timer or none.
            if probe.began is None:
                self._begin(probe)
            else:
                self._give_up(probe)
        return self._timers[0][0] if self._timers else None

    def wait(self, seconds: float | None) -> None:
        """Wait for answers and for news, at most so long; take what has come."""
        patience = None if seconds is None else max(0.0, seconds)
        for key, _ in self._selector.select(patience):
            probe = key.data
            if probe is None:
                os.eventfd_read(self._wake)
            else:
                self._judge(probe, probe.attempt.look())

    def _awaken(self) -> None:
        with self._lock:
            if not self._closed:  # The number may be another file's by then.
                os.eventfd_write(self._wake, 1)

    def _take(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        chosen = sorted(wanted)[: self._terms.most]
        self._metrics.targets.set(len(chosen))
        self._metrics.left_out.set(len(wanted) - len(chosen))
        keep = set(chosen)
        for target in [target for target in self._probes if target not in keep]:
            self._end(self._probes.pop(target))
            self._series[target.labels] -= 1
            if not self._series[target.labels]:
                del self._series[target.labels]
                self._metrics.forget(target)
        now = self._now()
        for target in chosen:
            if target not in self._probes:
                due = now + target.phase * self._terms.period
                probe = self._probes[target] = _Probe(target, self._make(target), due)
                self._series[target.labels] += 1
                self._metrics.begin(target)
                self._set_timer(probe, due)

    def _begin(self, probe: _Probe) -> None:
        now = self._now()
        self._metrics.lag.observe(max(0.0, now - probe.due))
        self._metrics.sent(probe.target)
        probe.began = now
        probe.due += self._terms.period
        if probe.due <= now:
            probe.due = now + self._terms.period
        self._set_timer(probe, now + self._terms.timeout)
        self._judge(probe, probe.attempt.begin())

    def _give_up(self, probe: _Probe) -> None:
        fate = probe.attempt.look()
        self._judge(probe, Fate.LOST if fate is Fate.WAITING else fate)

    def _judge(self, probe: _Probe, fate: Fate) -> None:
        """Take what has become of a probe, and watch the socket that it leaves open."""
        if probe.began is not None and fate is not Fate.WAITING:
            if fate is Fate.ANSWERED:
                self._metrics.answered(probe.target, self._now() - probe.began)
            else:
                self._metrics.lost(probe.target)
            probe.began = None
            self._unwatch(probe)
            probe.attempt.end()
            self._set_timer(probe, probe.due)
        self._watch(probe)

    def _watch(self, probe: _Probe) -> None:
        current = probe.attempt.sock
        if current is not None and current is not probe.watched:
            self._unwatch(probe)
            self._selector.register(current, probe.attempt.events, probe)
            probe.watched = current

    def _unwatch(self, probe: _Probe) -> None:
        if probe.watched is not None:
            self._selector.unregister(probe.watched)
            probe.watched = None

    def _set_timer(self, probe: _Probe, when: float) -> None:
        probe.wakes = when
        heapq.heappush(self._timers, (when, next(self._serial), probe))

    def _end(self, probe: _Probe) -> None:
        probe.wakes = -1.0
        self._unwatch(probe)
        probe.attempt.close()
