"""What accompanies the syncs and may not delay the first: imported when that has ended."""

from collections.abc import Callable

from kproxy.agent.listeners import Listeners
from kproxy.agent.rounds import Round
from kproxy.agent.servicehealth import ServiceHealth
from kproxy.logs import Log


class Companions:
    """Is told of every round, by the main thread."""

    def __init__(self, log: Log, listeners: Listeners, *, healthy: Callable[[], bool]) -> None:
        self._service_health = ServiceHealth(listeners, log, healthy=healthy)

    def observe(self, done: Round) -> None:
        """Let health checks, metrics and events know what a round came to."""
        self._service_health.update([report.state for report in done.reports])
