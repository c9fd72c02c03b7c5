"""What this proxy measures: kube-proxy's metrics by their names, and ``kproxy_*``, which it lacks.

Fed by every round (:meth:`Metrics.observe`) and by health checks; the rest is found out when
somebody asks. What nothing here is like, such as ``go_*``, is not there (docs/interfaces.md).
"""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol

from kproxy.agent.informers import Informers
from kproxy.agent.rounds import Round
from kproxy.desired import topology
from kproxy.desired.model import Family as IPFamily
from kproxy.desired.model import ServiceState, State
from kproxy.exposition import Family, Histogram, Kind, Registry, Sample, Value
from kproxy.proxier import SyncReport

SYNC_BOUNDS = tuple(0.001 * 2**power for power in range(15))
"""kube-proxy's: 1 ms to 16 s."""

PROGRAMMING_BOUNDS = (
    0.25,
    0.5,
    *map(float, range(1, 60)),
    *map(float, range(60, 120, 5)),
    *map(float, range(120, 301, 30)),
)
"""kube-proxy's: from a quarter of a second to five minutes."""

FINE_BOUNDS = tuple(
    digit * 10.0**power for power in range(-4, 2) for digit in (1, 2, 5)
)  # 0.1 ms to 50 s
"""Ours: most changes are in the kernel after a few milliseconds."""

_PREFIX = "kubeproxy_sync_proxy_rules_"
_FAMILIES = [family.value for family in IPFamily]


class Queue(Protocol):
    """Knows when a sync was asked for last (seconds since 1970; 0: never)."""

    asked_wall: float


class Metrics:
    """The metrics of one proxy."""

    def __init__(self, mode: str, informers: Informers, queue: Queue) -> None:
        self._mode = mode
        self._informers = informers
        self._queue = queue
        self._states: dict[IPFamily, State] = {}
        self._wanted: dict[IPFamily, State] = {}
        self._draining: set[IPFamily] = set()
        self.registry = registry = Registry()
        self._add_syncs(registry)
        self._add_latencies(registry)
        self._add_kernel(registry)
        self._add_flows(registry)
        self._add_mode(registry)
        registry.collect_by(self._changes)
        self.healthz = registry.counter(
            "kubeproxy_proxy_healthz_total", "Answers of /healthz by code.", "code"
        )
        self.livez = registry.counter(
            "kubeproxy_proxy_livez_total", "Answers of /livez by code.", "code"
        )

    def _add_syncs(self, registry: Registry) -> None:
        def seconds(kind: str, which: str) -> Histogram:
            name = f"kubeproxy_sync_{kind}proxy_rules_duration_seconds"
            words = f"How many seconds a sync took{which}."
            return registry.histogram(name, words, SYNC_BOUNDS, "ip_family")

        self._sync = seconds("", "")
        self._full = seconds("full_", " where the kernel was read anew")
        self._partial = seconds("partial_", " where only changes were looked at")
        self._last = registry.gauge(
            f"{_PREFIX}last_timestamp_seconds",
            "When the last sync ended well, in seconds since 1970.",
            "ip_family",
        )
        registry.collect_by(self._no_local)

    def _add_latencies(self, registry: Registry) -> None:
        words = "Seconds from the change of an endpoint, as its EndpointSlice tells, to the kernel"
        name = "network_programming_duration_seconds"
        self._programming = registry.histogram(
            f"kubeproxy_{name}", f"{words}.", PROGRAMMING_BOUNDS, "ip_family"
        )
        self._programming_fine = registry.histogram(
            f"kproxy_{name}", f"{words}; fine buckets.", FINE_BOUNDS, "ip_family"
        )
        self._waited = registry.histogram(
            "kproxy_change_duration_seconds",
            "Seconds from hearing of the oldest change that a sync answers to the kernel.",
            FINE_BOUNDS,
        )

    def _add_kernel(self, registry: Registry) -> None:
        """Make what tells of kernel objects; kube-proxy has no word for it."""
        labels = ("mode", "ip_family")
        self._found = registry.counter(
            "kproxy_drift_found_total",
            "Kernel objects that were not as left, though no object of the API had changed.",
            *labels,
        )
        self._repaired = registry.counter(
            "kproxy_drift_repaired_total", "Such kernel objects put right.", *labels
        )
        self._written = registry.counter(
            "kproxy_kernel_writes_total", "Kernel objects added, changed and removed.", *labels
        )
        self._failed = registry.counter(
            "kproxy_sync_failures_total", "Syncs that will be tried again.", *labels
        )
        self._adopted = registry.gauge(
            "kproxy_adopted_objects",
            "Service ports and endpoints that the first sync found right in the kernel, at least.",
            *labels,
        )
        for family in _FAMILIES:
            for each in (self._found, self._repaired, self._written, self._failed):
                each.add(self._mode, family, by=0)

    def _add_flows(self, registry: Registry) -> None:
        self._swept = registry.histogram(
            "kubeproxy_conntrack_reconciler_sync_duration_seconds",
            "How many seconds it took to look for UDP flows to endpoints that are gone.",
            SYNC_BOUNDS,
            "ip_family",
        )
        self._flows = registry.counter(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "Such flows that were deleted.",
            "ip_family",
        )
        for family in _FAMILIES:
            self._flows.add(family, by=0)

    def _add_mode(self, registry: Registry) -> None:
        """Make what kube-proxy counts in one mode only."""
        self._mode_failures = []
        self._partial_failures = []
        names = {
            "iptables": ("iptables_restore_failures_total", "Syncs in which rules were refused."),
            "ipvs": ("iptables_restore_failures_total", "Syncs that failed."),
            "nftables": ("nftables_sync_failures_total", "Syncs in which rules were refused."),
        }
        name, words = names[self._mode]
        self._mode_failures.append(registry.counter(_PREFIX + name, words, "ip_family"))
        self._rules: tuple[Value, Value] | None = None
        self._uncleaned: Value | None = None
        if self._mode == "iptables":
            self._partial_failures.append(
                registry.counter(
                    f"{_PREFIX}iptables_partial_restore_failures_total",
                    "Such syncs among those that looked at changes only.",
                    "ip_family",
                )
            )
            self._rules = _rule_gauges(registry)
        if self._mode == "nftables":
            self._uncleaned = registry.counter(
                f"{_PREFIX}nftables_cleanup_failures_total",
                "Syncs in which chains without use could not be deleted yet.",
                "ip_family",
            )
        uncleaned = () if self._uncleaned is None else (self._uncleaned,)
        for family in _FAMILIES:
            for each in (*self._mode_failures, *self._partial_failures, *uncleaned):
                each.add(family, by=0)

    def observe(self, done: Round) -> int:
        """Take what a round came to; return how many kernel objects had drifted."""
        told = self._informers.take_triggers() if done.succeeded else ()
        triggers = [(kind, at) for kind, text in told if (at := timestamp(text)) is not None]
        wall = time.time()
        drifted = 0
        for report in done.reports:
            family = report.family.value
            seconds = report.duration_ns / 1e9
            self._sync.observe(seconds, family)
            (self._full if done.full else self._partial).observe(seconds, family)
            self._written.add(self._mode, family, by=report.result.writes)
            if report.family not in self._wanted:  # the first round
                for each in (self._programming, self._programming_fine):
                    each.begin(family)  # To Prometheus an increase from nothing would be none.
            if report.failed:
                self._count_failure(family, full=done.full)
            else:
                self._last.set(wall, family)
            for latency in (max(0.0, wall - at) for kind, at in triggers if kind == family):
                self._programming.observe(latency, family)
                self._programming_fine.observe(latency, family)
            self._tell_of_mode(report)
            if (swept := report.result.swept) is not None:
                self._swept.observe(swept.duration_ns / 1e9, family)
                self._flows.add(family, by=swept.deleted)
            if report.family not in self._states and not report.failed:
                wanted = report.services + report.endpoints
                self._adopted.set(max(0, wanted - report.result.writes), self._mode, family)
            drifted += self._count_drift(report, full=done.full)
            self._wanted[report.family] = report.state
        if done.succeeded and done.asked_at is not None:
            self._waited.observe(done.ended_at - done.asked_at)
        return drifted

    def _tell_of_mode(self, report: SyncReport) -> None:
        family, result = report.family.value, report.result
        if self._rules is not None:
            total, last = self._rules
            for one in result.rules:
                total.set(one.total, family, one.table)
                last.set(one.written, family, one.table)
        if self._uncleaned is not None:
            self._uncleaned.add(family, by=result.uncleaned)

    def _count_failure(self, family: str, *, full: bool) -> None:
        self._failed.add(self._mode, family)
        for each in (*self._mode_failures, *(() if full else self._partial_failures)):
            each.add(family)

    def _count_drift(self, report: SyncReport, *, full: bool) -> int:
        """Count what others did to objects of ours: writes that no change explains.

        While endpoints drain, their end is one that the clock explains; nothing is counted then.
        """
        result, family = report.result, report.family
        unchanged = self._states.get(family) is report.state
        draining = family in self._draining
        if not result.failures:
            self._states[family] = report.state
        if result.again_in is None:
            self._draining.discard(family)
        else:
            self._draining.add(family)
        if not full or not unchanged or draining:
            return 0
        repaired = result.writes - (result.swept.deleted if result.swept else 0)
        found = repaired + len(result.failures)
        if found:
            self._found.add(self._mode, family.value, by=found)
            self._repaired.add(self._mode, family.value, by=repaired)
        return found

    def _no_local(self) -> Iterable[Family]:
        """Yield how many service ports lack endpoints here that their policy asks for."""
        samples = []
        for family, state in sorted(self._wanted.items()):
            local = [one.service for one in state.services.values() if _lacks_local(one)]
            internal = sum(service.internal_local for service in local)
            external = sum(
                service.external_local and topology.externally_accessible(service)
                for service in local
            )
            for policy, count in (("external", external), ("internal", internal)):
                samples.append(Sample({"ip_family": family, "traffic_policy": policy}, count))
        yield Family(
            f"{_PREFIX}no_local_endpoints_total",
            Kind.GAUGE,
            "Service ports with the traffic policy Local and endpoints, but none on this node.",
            samples,
        )

    def _changes(self) -> Iterable[Family]:
        """Yield what is known of changes and of the queue, for all IP families alike.

        kube-proxy, too, tells changes without a family: objects are heard of once for both.
        """
        yield Family(
            f"{_PREFIX}last_queued_timestamp_seconds",
            Kind.GAUGE,
            "When a sync was asked for last, in seconds since 1970.",
            _each_family(self._queue.asked_wall),
        )
        heard: Mapping[str, tuple[int, int]] = self._informers.heard()
        for word, kind in (("endpoint", "endpointslices"), ("service", "services")):
            total, pending = heard[kind]
            yield Family(
                f"{_PREFIX}{word}_changes_total",
                Kind.COUNTER,
                f"Changes of {kind} that were heard of.",
                [Sample({}, total)],
            )
            yield Family(
                f"{_PREFIX}{word}_changes_pending",
                Kind.GAUGE,
                f"Changes of {kind} that no sync has begun with.",
                [Sample({}, pending)],
            )


def _rule_gauges(registry: Registry) -> tuple[Value, Value]:
    """Return what tells how many rules there are, and how many the last sync wrote."""
    labels = ("ip_family", "table")
    return (
        registry.gauge(
            f"{_PREFIX}iptables_total",
            "Rules in chains of the proxy's own, as the last sync that succeeded left them.",
            *labels,
        ),
        registry.gauge(f"{_PREFIX}iptables_last", "Such rules that the last sync wrote.", *labels),
    )


def _each_family(value: float) -> list[Sample]:
    return [Sample({"ip_family": family}, value) for family in _FAMILIES]


def _lacks_local(one: ServiceState) -> bool:
    return one.anywhere and not one.local


def timestamp(text: str) -> float | None:
    """Return RFC 3339 as seconds since 1970; None if it is none: users may write anything."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
