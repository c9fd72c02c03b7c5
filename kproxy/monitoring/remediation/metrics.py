"""What Prometheus sees of remediation: a link of the chain, watched like the rest."""

from collections.abc import Iterable, Iterator

from kproxy.exposition import Family, Kind, Registry, Sample

from .guards import Circuit
from .ledger import Ledger
from .records import Result, Said
from .state import STRANGE

PREFIX = "kproxy_remediation_"
UNKNOWN = "unknown"
"""Stands for actions that are not configured: their names come from outside."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


class Metrics:
    """The instruments. ``actions`` are the names of those that are configured."""

    def __init__(self, registry: Registry, actions: Iterable[str]) -> None:
        counter, histogram = registry.counter, registry.histogram
        self.registry = registry
        self.names = frozenset(actions)
        self.notifications = counter(
            f"{PREFIX}notifications_total", "Requests to the webhook, by their fate", "result"
        )
        self.alerts = counter(
            f"{PREFIX}alerts_total", "Alerts in accepted notifications, by outcome", "outcome"
        )
        truncated = f"{PREFIX}truncated_alerts_total"
        self.truncated = counter(truncated, "Alerts that notifications left out")
        self.actions = counter(
            f"{PREFIX}actions_total", "Alert instances that ended, by result", "action", "result"
        )
        self.refusals = counter(
            f"{PREFIX}refusals_total",
            "Times that an action was not run when it was due, by reason",
            "action",
            "reason",
        )
        self.escalations = counter(
            f"{PREFIX}escalations_total",
            "Alert instances that are left to a human, by reason",
            "action",
            "reason",
        )
        self.run_seconds = histogram(
            f"{PREFIX}action_duration_seconds", "How long actions ran", SECONDS, "action"
        )
        self.repair_seconds = histogram(
            f"{PREFIX}repair_duration_seconds",
            "From the start of an alert until its repair was verified",
            SECONDS,
            "action",
        )
        last = f"{PREFIX}last_notification_timestamp_seconds"
        self.last = registry.gauge(last, "When a notification was last accepted")
        self._begin()

    def watch(self, ledger: Ledger, *, dry_run: bool) -> None:
        """Expose what the state says whenever somebody asks."""
        names = tuple(sorted(self.names))
        self.registry.collect_by(lambda: _families(ledger, names, dry_run=dry_run))

    def _begin(self) -> None:
        """Make the series that alerts look at exist before they first count: rates need a zero."""
        for result in ("accepted", "malformed", "unauthenticated", "not-stored", "crowded"):
            self.notifications.add(result, by=0)
        left = [one for one in (*Result, *Said) if one.needs_human]
        for action in self.names:
            for result in Result:
                self.actions.add(action, result, by=0)
            for reason in left:
                self.escalations.add(action, reason, by=0)
        for reason in left:
            self.escalations.add(UNKNOWN, reason, by=0)
        for said in Said:
            self.alerts.add(said, by=0)


def _families(ledger: Ledger, actions: tuple[str, ...], *, dry_run: bool) -> Iterator[Family]:
    with ledger.changed:
        now, state = ledger.clock.now(), ledger.state
        circuits = {name: state.guards.circuit(name, now) for name in actions}
        busy, waiting = bool(state.guards.lease), state.waiting_count()
        escalated = dict(state.escalated)
    samples = [
        Sample({"action": name, "state": one}, float(one is circuit))
        for name, circuit in circuits.items()
        for one in Circuit
    ]
    words = "Whether an action's circuit breaker is in this state"
    yield Family(f"{PREFIX}circuit_state", Kind.GAUGE, words, samples)
    last = dict.fromkeys((*actions, UNKNOWN), 0.0)
    for name, at in escalated.items():
        last[UNKNOWN if name == STRANGE else name] = ledger.clock.time_of_day(at)
    # Beside the counter, which begins anew with the process: what was escalated right before its
    # end or right after its start would not be seen as an increase.
    words = "When an alert was last left to a human, in seconds since 1970; 0: never"
    samples = [Sample({"action": name}, at) for name, at in last.items()]
    yield Family(f"{PREFIX}last_escalation_timestamp_seconds", Kind.GAUGE, words, samples)
    yield _gauge("queue_length", "Alert instances that wait to be acted on", waiting)
    yield _gauge("busy", "Whether an action runs or is being verified", busy)
    yield _gauge("dry_run", "Whether no action runs at all", dry_run)
    yield _gauge("journal_bytes", "Size of the journal's newest file", ledger.journal_bytes)
    name, words = f"{PREFIX}journal_failures_total", "Records that could not be written"
    yield Family(name, Kind.COUNTER, words, [Sample({}, float(ledger.failures))])


def _gauge(name: str, words: str, value: float) -> Family:
    return Family(PREFIX + name, Kind.GAUGE, words, [Sample({}, float(value))])
