"""Keeps a node alive in the API: registers it, renews its Lease, reports changes.

A state machine that is told the time and says when it wants to be asked again; :meth:`run` is the
thread around it.
"""

import threading
import time
from collections.abc import Callable

from kproxy import errors, logs
from kproxy.api import core
from kproxy.rfc3339 import microtime, timestamp

from .backoff import RetryBackoff
from .cluster import Cluster
from .nodestatus import NodeFacts, NodeLease, NodeObject, Times, intervals
from .probes import draw

RETRY_MOST = 7.0
"""The longest wait after a failure, as Kubernetes' lease controller has it."""
SPREAD = 1.0
"""After an outage a node looks whether it is still registered within so many seconds."""


class NodeKeeper:
    """Keeps one node. ``trouble`` returns why pods cannot run on it now; empty: they can."""

    def __init__(
        self,
        cluster: Cluster,
        facts: NodeFacts,
        log: logs.Log,
        *,
        trouble: Callable[[], str] = lambda: "",
        times: Times | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._times = times or Times()
        self._name = facts.name
        self._node = NodeObject(cluster, facts)
        self._lease = NodeLease(cluster, facts.name, self._times.lease_duration)
        self._log = log
        self._trouble = trouble
        self._now = now
        self._wall = wall
        self._told: str | None = None
        self._report_due = self._lease_due = 0.0
        self._reports = intervals(facts.name, self._times.report, self._times.jitter)
        self._renewals = intervals(facts.name, self._times.lease_renew, self._times.jitter)
        self._backoff = RetryBackoff(RETRY_MOST)
        self._failures = 0
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._stopped = False

    def registered_no_more(self) -> None:
        """Note that the Node is gone: it is made anew at once."""
        with self._lock:
            self._report_due = 0.0
        self._wake.set()

    def doubtful(self) -> None:
        """Note that the API server was away: it may have come back without our Node."""
        with self._lock:
            soon = self._now() + SPREAD * draw(self._name, "doubtful")
            self._report_due = min(self._report_due, soon)
        self._wake.set()

    def heard(self, node: core.Node) -> None:
        """Note how the API shows the Node: if somebody took it for lost, it is told anew, soon."""
        told = self._told
        if told is None:
            return
        wanted = "False" if told else "True"
        conditions = (node.status.conditions if node.status else None) or ()
        if any(one.type == "Ready" and one.status != wanted for one in conditions):
            self.doubtful()

    def step(self) -> float:
        """Do what is due; return the seconds until the next thing."""
        now = self._now()
        problems = [one for one in (self._report_if_due(now), self._renew_if_due(now)) if one]
        if problems:
            self._failures += 1
            self._log.warning("node not reported", error="; ".join(map(str, problems)))
            wait = self._backoff.failed("")
            return wait * (1 + draw(self._name, str(self._failures))) / 2
        self._backoff.succeeded("")
        with self._lock:
            return max(min(self._report_due, self._lease_due) - self._now(), 0.0)

    def run(self) -> None:
        """Keep the node until :meth:`stop`."""
        while not self._stopped:
            self._wake.clear()
            wait = self.step()
            if self._stopped:
                return
            self._wake.wait(wait)

    def stop(self) -> None:
        """Make :meth:`run` return."""
        self._stopped = True
        self._wake.set()

    def _report_if_due(self, now: float) -> errors.KproxyError | None:
        trouble = self._trouble()
        try:
            if now >= self._report_due or trouble != self._told:
                self._report(now, trouble)
        except errors.KproxyError as error:
            return error
        return None

    def _renew_if_due(self, now: float) -> errors.KproxyError | None:
        """Renew the Lease, which says that the node is alive, whatever else cannot be told."""
        try:
            if now >= self._lease_due:
                self._lease.renew(microtime(self._wall()))
                self._lease_due = now + next(self._renewals)
        except errors.KproxyError as error:
            return error
        return None

    def _report(self, now: float, trouble: str) -> None:
        with self._lock:
            due, self._report_due = self._report_due, now + next(self._reports)
        try:
            self._node.report(timestamp(self._wall()), trouble)
        except BaseException:
            with self._lock:
                self._report_due = min(due, now)
            raise
        self._told = trouble
