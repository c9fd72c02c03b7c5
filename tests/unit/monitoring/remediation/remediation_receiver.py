"""A receiver without HTTP whose actions are given, for tests of its engine."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remediation_alerts import alert, notification

from kproxy.exposition import Registry
from kproxy.logs import Log
from kproxy.monitoring.remediation import journal as journals
from kproxy.monitoring.remediation import webhook
from kproxy.monitoring.remediation.book import Policy
from kproxy.monitoring.remediation.engine import Engine
from kproxy.monitoring.remediation.health import NodeHealth
from kproxy.monitoring.remediation.journal import Journal
from kproxy.monitoring.remediation.ledger import Ledger
from kproxy.monitoring.remediation.metrics import Metrics
from kproxy.monitoring.remediation.records import AnyRecord, Notified
from kproxy.monitoring.remediation.reporter import Reporter
from kproxy.monitoring.remediation.seams import Action
from kproxy.monitoring.remediation.settings import ActionSettings, Settings
from kproxy.monitoring.remediation.state import State
from kproxy.monitoring.remediation.telling import Events


class Told(Events):
    """Keeps events instead of sending them."""

    def __init__(self) -> None:
        super().__init__(None, Log("test"))
        self.told: list[tuple[str, str, bool]] = []

    def tell(self, target: str, reason: str, note: str, *, warning: bool = False) -> None:
        self.told.append((target, reason, warning))


class Nodes(NodeHealth):
    """Nodes that are as the test says."""

    def __init__(self) -> None:
        super().__init__(None)
        self.are: Mapping[str, bool] = {f"n{i}": False for i in range(10)}

    def not_ready(self) -> Mapping[str, bool]:
        return self.are


@dataclass
class Receiver:
    """The parts, and what they told."""

    directory: Path
    settings: Settings
    ledger: Ledger
    engine: Engine
    metrics: Metrics
    policy: Policy
    events: Told
    nodes: Nodes = field(default_factory=Nodes)

    def hear(self, *alerts: dict[str, object]) -> Notified:
        """Take a notification; its alerts begin now if they do not say otherwise."""
        body = notification(*(alerts or (self.alert(),)))
        return self.ledger.accept(webhook.decode(body), "peer", self.policy)

    def alert(self, node: str = "n1", *, age: float = 1.0, **fields: Any) -> dict[str, object]:
        return alert(node, starts=self.ledger.clock.now() - age, **fields)

    def records(self) -> list[AnyRecord]:
        return list(journals.read(self.directory))

    def words(self) -> list[str]:
        """Return what the journal says happened, in order."""
        return [str(getattr(record, "result", type(record).__name__)) for record in self.records()]

    def text(self) -> str:
        """Return what Prometheus gets."""
        return self.metrics.registry.text()

    def counts(self, name: str) -> dict[str, float]:
        """Return the samples of a metric that are not 0, by their labels' values."""
        found: dict[str, float] = {}
        for line in self.text().splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"kproxy_remediation_{name}{{") and float(value):
                labels = series.partition("{")[2].rstrip("}")
                found[labels] = float(value)
        return found


@contextmanager
def receiver(
    directory: Path, *actions: Action, settings: Settings | None = None
) -> Iterator[Receiver]:
    """Give a receiver with this journal and these actions."""
    known = {action.name: action for action in actions}
    default = Settings(actions={name: ActionSettings() for name in known})
    settings = settings or default
    limits = {name: settings.limits(name, action.limits) for name, action in known.items()}
    with Journal(directory, file_bytes=1 << 20, files=3) as journal:
        ledger = Ledger(State(settings.guards, lambda name: limits[name], known), journal)
        metrics, events, nodes, log = Metrics(Registry(), known), Told(), Nodes(), Log("test")
        reporter = Reporter(ledger, metrics, events, log)
        metrics.watch(ledger, dry_run=settings.dry_run)
        engine = Engine(settings, ledger, known, health=nodes, reporter=reporter, log=log)
        needs = {name: action.needs for name, action in known.items()}
        guards = settings.guards
        policy = Policy(needs, guards.max_age, guards.queue, guards.patience)
        yield Receiver(directory, settings, ledger, engine, metrics, policy, events, nodes)
        engine.end()
