"""What accompanies the syncs and may not delay the first: imported when that has ended.

Health check node ports, metrics, the effective configuration, Events.
"""

import functools
import json
import threading
from collections.abc import Mapping

from kproxy import processmetrics
from kproxy.agent.events import Events
from kproxy.agent.health import ProxyHealth
from kproxy.agent.healthserver import HttpServer
from kproxy.agent.http import Answer, Handler
from kproxy.agent.informers import Informers
from kproxy.agent.listeners import Listeners
from kproxy.agent.metrics import Metrics
from kproxy.agent.node import NodeFacts
from kproxy.agent.rounds import Round, Rounds
from kproxy.agent.servicehealth import ServiceHealth
from kproxy.agent.settings import Settings
from kproxy.api import configfile
from kproxy.api.config import Version
from kproxy.client import watchmetrics
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.client.rest import Rest
from kproxy.desired.model import Family as IPFamily
from kproxy.desired.model import State
from kproxy.exposition import CONTENT_TYPE, Registry
from kproxy.logs import Log

METRICS_AT_LATEST_S = 5.0
PLAIN = "text/plain; charset=utf-8"
CONFIGZ_NAME = "kubeproxy.config.k8s.io"


class Companions:
    """Is told of every round, by the main thread; the rest happens in threads of its own."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        rest: Rest,
        listeners: Listeners,
        *,
        health: ProxyHealth,
        informers: Informers,
        node: NodeFacts,
        rounds: Rounds,
    ) -> None:
        self._settings = settings
        self._log = log
        self._observed = threading.Event()
        self._states: dict[IPFamily, State] = {}
        self.events = Events(rest, settings.node, lambda: node.uid, log)
        self._service_health = ServiceHealth(
            listeners, log, healthy=health.keeps_up_now, report=self._service_port_failed
        )
        self.metrics = Metrics(settings.mode, informers, rounds)
        self.metrics.registry.collect_by(processmetrics.collect)
        self.metrics.registry.collect_by(lambda: watchmetrics.families(informers.followed()))
        rest.exchanges.listen(RequestMetrics(self.metrics.registry, rest.host).observe)
        report = functools.partial(self.events.warn, "FailedToStartMetricsServer")
        HttpServer(
            settings.metrics,
            self._handlers(),
            log,
            listeners,
            name="metrics",
            fatal=settings.bind_hard_fail,
            report=report,
        ).start(self._observed, METRICS_AT_LATEST_S)

    def observe(self, done: Round) -> None:
        """Let health checks, metrics and Events know what a round came to."""
        for report in done.reports:
            self._states[report.family] = report.state
        self._service_health.update(self._states.values())
        drifted = self.metrics.observe(done)
        if drifted:
            self._log.warning("drift repaired", objects=drifted)
        for reason in done.disabled:
            self.events.warn("FamilyNotServed", reason)
        for failures in (report.result.failures for report in done.reports if report.failed):
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            self.events.warn("SyncFailed", f"{failures[0]}{more}")
        self._observed.set()

    def _service_port_failed(self, namespace: str, name: str, reason: str) -> None:
        note = f"health check node port of Service {namespace}/{name}: {reason}"
        self.events.warn("FailedToStartServiceHealthcheck", note)

    def _handlers(self) -> Mapping[str, Handler]:
        registry = self.metrics.registry
        handlers: dict[str, Handler] = {
            "/metrics": lambda: Answer(200, registry.text(), CONTENT_TYPE),
            "/healthz": lambda: Answer(200, "ok", PLAIN),
            "/proxyMode": lambda: Answer(200, self._settings.mode, PLAIN),
            "/configz": self._configz,
        }
        if self._settings.mode == "iptables":
            from kproxy.agent.iptablesmetrics import IptablesMetrics
            from kproxy.kernel.iptables.client import Iptables

            packets = IptablesMetrics(
                Iptables,
                self._states.values,
                self._log,
                liberal=self._settings.options.tcp_be_liberal,
            )
            registry.collect_by(packets.collect)
        if self._settings.mode == "ipvs":
            from kproxy.agent.ipvsmetrics import IPVSMetrics
            from kproxy.kernel.ipvs.client import IPVS

            counters = IPVSMetrics(IPVS, self._states.values, self._log)
            registry.collect_by(counters.few)
            every = Registry()
            every.collect_by(counters.all)
            handlers["/metrics/ipvs"] = lambda: Answer(200, every.text(), CONTENT_TYPE)
        return handlers

    def _configz(self) -> Answer:
        shown = configfile.encode_config(self._settings.configuration, Version.V1ALPHA2)
        return Answer(200, json.dumps({CONFIGZ_NAME: shown}))
