"""The node's daemon: follows the API server and keeps the kernel as it says.

Threads: each informer has one; the main thread reads the kernel meanwhile, waits, and syncs;
health checks are answered by others.

Events on standard error, for people and for the lab: ``started``, ``listed``, those of
:mod:`kproxy.agent.telling`, ``stopped``.
"""

import functools
import gc
import os
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from kproxy import costs, threaddeath
from kproxy.agent.health import ProxyHealth
from kproxy.agent.healthserver import HttpServer
from kproxy.agent.http import Answer
from kproxy.agent.informers import Informers
from kproxy.agent.listeners import Listeners
from kproxy.agent.node import NodeFacts
from kproxy.agent.nodelock import NodeLock
from kproxy.agent.rounds import Round, Rounds
from kproxy.agent.settings import Settings
from kproxy.api import core
from kproxy.backends import base
from kproxy.client.informer import Informer
from kproxy.client.rest import Rest
from kproxy.errors import KernelError
from kproxy.logs import Log
from kproxy.proxier import DualStack, Proxier

if TYPE_CHECKING:
    from kproxy.agent.companions import Companions

HEALTHZ_AT_LATEST_S = 1.0
"""Health checks are answered from the first sync on, but after so long in any case: before that
they would only delay it."""

POD_VARIABLE = "POD_UID"
"""Names the pod that this process runs in, so that one that has handed over does not ask again."""

DRAIN_S = 1.0
"""So long the answers to health checks that came before a hand-over may take."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Stopped(BaseException):
    """A signal asked us to end; whatever is being done is given up.

    That is safe at any moment: the kernel takes each batch or not, and the next start mends what
    is missing, as after SIGKILL.
    """


class Agent:
    """The daemon. :meth:`run` returns when a signal asks for it; the kernel keeps its rules."""

    def __init__(
        self, settings: Settings, rest: Rest, log: Log, cost: costs.Costs = costs.FREE
    ) -> None:
        self._settings = settings
        self._rest = rest
        self._log = log
        self._cost = cost
        load = functools.partial(_load, settings)
        self._proxier = DualStack([Proxier(family, load, cost) for family in settings.families])
        self._health = ProxyHealth(2 * settings.sync_period)
        self._tried_once = threading.Event()
        self._listeners = Listeners()
        pod = os.environ.get(POD_VARIABLE, "")
        self._lock = NodeLock(log, asks=settings.make_before_break, pod=pod)
        self._node = NodeFacts(settings, self._proxier, log, on_change=self._on_node_facts)
        self._listed = False
        self._settled = False
        self._companions: Companions | None = None
        self._informers = Informers(
            rest,
            settings.node,
            self._proxier,
            log,
            service_cidrs=settings.mode == "nftables",
            on_change=self._request,
            on_node=self._on_node,
            on_listed=self._on_listed,
        )
        self._rounds = Rounds(
            settings,
            self._proxier,
            self._health,
            log,
            look_at_node=self._node.look,
            versions=self._informers.versions,
            after_first=self._after_first_round,
            observe=self._observe,
            after_success=self._after_success,
        )

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until a successor does; return the exit code."""
        # Without an informer rules would silently grow old. They stay; the next one lists anew.
        threaddeath.ends_the_program(
            self._log, lambda name: name.startswith(Informer.THREAD_PREFIX)
        )
        try:
            for number in STOP_SIGNALS:
                signal.signal(number, _stop)
            # Who asks for a sync before the first one gets that, and does not end us.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            self._informers.start()
            if self._lock.take():
                self._lock.receive(self._rounds.interrupt)
                self._start_health_server(HEALTHZ_AT_LATEST_S)
            self._rounds.read_kernel()
            if not self._lock.holding:
                self._stand_by()
            self._write()
        except _Stopped:
            self._lock.hand_over(self._listeners.pause, self._listeners.resume, leaving=True)
        self._listeners.drain(DRAIN_S)
        self._log.info("stopped", rules="left in place")
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # also while the interpreter ends
        return 0

    def _stand_by(self) -> None:
        """Make all ready, wait for the right to write, and take over ports and rules."""
        self._rounds.await_ready()
        for proxier in self._proxier.proxiers:
            proxier.wanted()
        self._listeners.inherit(self._lock.wait())
        self._lock.receive(self._rounds.interrupt)
        self._start_health_server(0.0)
        self._rounds.read_kernel()

    def _write(self) -> None:
        """Sync, until a successor has."""
        while True:
            self._rounds.serve()
            if not self._lock.wanted():
                continue
            if self._lock.hand_over(self._listeners.pause, self._listeners.resume):
                return
            self._rounds.read_kernel()
            self._rounds.request()

    def _after_success(self) -> None:
        self._lock.synced()
        if self._settled:
            # Only now: who wants a port of our predecessor's may ask for it after the first sync.
            self._listeners.close_unclaimed()
        self._settled = True

    def _request(self) -> None:
        self._rounds.request()

    def _on_listed(self) -> None:
        """Pay for what was listed, by the informer's thread that was last, as in reality."""
        if self._cost.modelled:
            services, endpoints = self._informers.counts()
            self._cost.pay(
                costs.LIST, mode=self._settings.mode, services=services, endpoints=endpoints
            )
        self._log.info("listed")
        self._listed = True
        if awaited := self._node.awaited:
            self._log.warning("waiting before the first sync", missing=awaited)
        else:
            self._begin()

    def _on_node(self, node: core.Node | None) -> None:
        self._health.node_changed(node)
        self._node.take_node(node)

    def _on_node_facts(self) -> None:
        if self._listed and not self._node.awaited:
            self._begin()

    def _begin(self) -> None:
        self._request()
        self._rounds.ready()

    def _after_first_round(self) -> None:
        """Begin with what would have delayed the first sync, whether or not that succeeded."""
        # What a start leaves behind lives as long as the process: see nodeproxy.
        gc.freeze()
        gc.enable()
        self._tried_once.set()
        self._start_companions()
        self._node.follow()
        self._tune()
        try:
            if self._proxier.find_left_over():
                self._request()
        except KernelError as error:
            self._log.warning("reading the kernel failed", error=str(error))

    def _start_companions(self) -> None:
        from kproxy.agent import resync
        from kproxy.agent.companions import Companions

        resync.listen(self._rounds.request_full)
        self._companions = Companions(
            self._settings,
            self._log,
            self._rest,
            self._listeners,
            health=self._health,
            informers=self._informers,
            node=self._node,
            rounds=self._rounds,
        )

    def _observe(self, done: Round) -> None:
        if self._companions is not None:
            self._companions.observe(done)

    def _start_health_server(self, at_latest_s: float) -> None:
        def healthz() -> Answer:
            answer = self._health.healthz(time.monotonic(), time.time())
            if self._companions is not None:
                self._companions.metrics.healthz.add(str(answer.code))
            return answer

        def livez() -> Answer:
            answer = self._health.livez(time.monotonic(), time.time())
            if self._companions is not None:
                self._companions.metrics.livez.add(str(answer.code))
            return answer

        def failed(reason: str) -> None:
            if self._companions is not None:
                self._companions.events.warn("FailedToStartProxierHealthcheck", reason)

        settings = self._settings
        server = HttpServer(
            settings.healthz,
            {"/healthz": healthz, "/livez": livez},
            self._log,
            self._listeners,
            fatal=settings.bind_hard_fail,
            report=failed,
        )
        server.start(self._tried_once, at_latest_s)

    def _tune(self) -> None:
        from kproxy.agent import tuning

        tuning.tune(self._settings, self._log)
        score = self._settings.configuration.linux.oom_score_adj
        if score is not None:
            tuning.set_oom_score(score, self._log)


def _load(settings: Settings, family: Any) -> base.Backend:
    return base.loader(settings.mode)(family, settings.options)


def _stop(number: int, frame: FrameType | None) -> None:
    # Who asks again, or in another way, gets what he asked for first. Not SIG_IGN yet: the
    # interpreter complains of a signal that has come already.
    for each in STOP_SIGNALS:
        signal.signal(each, lambda *_: None)
    raise _Stopped


def since_exec_ms() -> float:
    """Return for how long this process has existed, in milliseconds (the kernel counts in 10)."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  pathlib is not imported otherwise
        started = int(file.read().rpartition(b")")[2].split()[19])
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return (now - started / os.sysconf("SC_CLK_TCK")) * 1000
