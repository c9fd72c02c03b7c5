"""The node's daemon: follows the API server and keeps the kernel as it says.

Threads: each informer has one; the main thread reads the kernel meanwhile, waits, and syncs;
health checks are answered by others. Nothing is written to the kernel before Services, slices and
the node have all been listed, because rules for half of them would cut traffic to the rest.

Events on standard error, for people and for the lab: ``started``, ``listed``, ``synced`` (written
only after the kernel has acknowledged everything, in all families, of that round),
``sync failed``, ``refused by the kernel``, ``stopped``.
"""

import functools
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from kproxy import costs
from kproxy.agent.health import ProxyHealth
from kproxy.agent.healthserver import HealthServer
from kproxy.agent.settings import Settings
from kproxy.api import core, discovery
from kproxy.backends import base
from kproxy.client.informer import Informer, Selection
from kproxy.client.rest import Rest
from kproxy.desired.schedule import Schedule
from kproxy.errors import KernelError, KproxyError, NotFound, Unsupported
from kproxy.kernel import sysctl as sysctls
from kproxy.logs import Log
from kproxy.proxier import DualStack, Proxier, SyncReport

ZONE_LABEL = "topology.kubernetes.io/zone"

HEALTHZ_AT_LATEST_S = 1.0
"""Health checks are answered from the first sync on, but after so long in any case: before that
they would only delay it."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

RETRY_S = 1.0
RETRY_MAX_S = 30.0
BURST = 2
PROBLEM_SILENCE_S = 30.0
FAILURES_TOLD = 5


_default_excepthook = threading.excepthook
_Handler = Callable[[Sequence[Any]], None]


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
        self._log = log
        self._cost = cost
        load = functools.partial(_load, settings)
        self._proxier = DualStack([Proxier(family, load, cost) for family in settings.families])
        self._health = ProxyHealth(2 * settings.sync_period)
        self._changed = threading.Condition()
        self._schedule = Schedule(
            now=time.monotonic(),
            min_interval=settings.min_sync_period,
            max_interval=settings.sync_period,
            retry_interval=RETRY_S,
            retry_max=RETRY_MAX_S,
            burst=BURST,
        )
        self._ready = False
        self._tried_once = threading.Event()
        self._refused: frozenset[str] = frozenset()
        self._invalid: frozenset[str] = frozenset()
        self._synced_once = False
        self._again_at = float("inf")
        self._read_at = float("-inf")
        self._versions: dict[str, str] = {}
        self._informers = self._make_informers(rest)
        self._missing = len(self._informers)
        self._zone = ""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        threading.excepthook = self._thread_died
        try:
            for number in STOP_SIGNALS:
                signal.signal(number, _stop)
            for informer in self._informers:
                informer.start()
            self._start_health_server()
            self._read_kernel()
            self._serve()
        except _Stopped:
            self._log.info("stopped", rules="left in place")
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # also while the interpreter ends
            return 0

    # What informers call, each from its own thread.

    def _make_informers(self, rest: Rest) -> list[Informer[Any]]:
        def make(wanted: type, kind: str, on_changes: _Handler, **more: Any) -> Any:
            return Informer(
                rest,
                wanted,
                on_changes=on_changes,
                on_synced=self._on_synced,
                on_problem=_Reporter(self._log, kind).report,
                **more,
            )

        own_node = Selection(field_selector=f"metadata.name={self._settings.node}")
        return [
            make(discovery.EndpointSlice, "endpointslices", self._on_slices),
            make(core.Service, "services", self._on_services),
            make(core.Node, "nodes", self._on_node, selection=own_node),
        ]

    def _on_node(self, changes: Sequence[Any]) -> None:
        """Take the newest version of this node's object: of all in it the zone matters to rules.

        A node reports every few seconds that it lives; that is no reason to sync.
        """
        _old, new = changes[-1]
        self._health.node_changed(new)
        if new is None:
            return
        zone = (new.metadata.labels or {}).get(ZONE_LABEL, "")
        if zone != self._zone:
            self._zone = zone
            self._proxier.set_zone(zone)
            if self._ready:
                self._request()

    def _on_slices(self, changes: Sequence[Any]) -> None:
        self._proxier.on_slices(changes)
        self._noted("endpointslices", changes)

    def _on_services(self, changes: Sequence[Any]) -> None:
        self._proxier.on_services(changes)
        self._noted("services", changes)

    def _noted(self, kind: str, changes: Sequence[Any]) -> None:
        newest = self._versions.get(kind, "")
        for old, new in changes:
            version = (new or old).metadata.resource_version
            if _newer(version, newest):
                newest = version
        self._versions[kind] = newest
        if self._ready:
            self._request()

    def _on_synced(self) -> None:
        with self._changed:
            self._missing -= 1
            if self._missing:
                return
        self._pay_list()
        self._log.info("listed")
        with self._changed:
            self._ready = True
        self._request()

    def _pay_list(self) -> None:
        """Pay for what was listed, by the informer's thread that was last, as in reality."""
        if not self._cost.modelled:
            return
        slices, services, _node = (informer.objects.values() for informer in self._informers)
        self._cost.pay(
            costs.LIST,
            mode=self._settings.mode,
            services=len(services),
            endpoints=sum(len(piece.endpoints or ()) for piece in slices),
        )

    def _thread_died(self, what: threading.ExceptHookArgs) -> None:
        """End the process if an informer ends: without it, rules would silently grow old.

        That can only be a mistake in this program. The rules stay; a successor lists everything.
        """
        _default_excepthook(what)
        name = what.thread.name if what.thread else ""
        if name.startswith(Informer.THREAD_PREFIX):
            error = f"{what.exc_type.__name__}: {what.exc_value}"
            self._log.error("thread died", thread=name, error=error)
            os._exit(1)

    def _request(self) -> None:
        now = time.monotonic()
        with self._changed:
            self._health.queued(now)
            self._schedule.request(now)
            self._changed.notify()

    # What the main thread does.

    def _read_kernel(self) -> None:
        """Read what the kernel holds while the API server is still being asked."""
        try:
            self._proxier.reread()
            self._read_at = time.monotonic()
        except KernelError as error:
            self._log.warning("reading the kernel failed", error=str(error))

    def _serve(self) -> NoReturn:
        with self._changed:
            self._changed.wait_for(lambda: self._ready)
        while True:
            self._round()
            self._wait_due()

    def _wait_due(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                left = min(self._schedule.next_deadline(), self._again_at) - now
                if left <= 0:
                    return
                self._changed.wait(left)

    def _round(self) -> None:
        """Sync all families once, and tell."""
        now = time.monotonic()
        with self._changed:
            self._schedule.started(now)
            self._health.sync_started()
        if now - self._read_at >= self._settings.sync_period:
            self._read_kernel()
        versions = dict(self._versions)
        reports = self._proxier.sync()
        if any(report.failed for report in reports):
            self._after_failure(reports)
        else:
            self._after_success(reports, versions)
        if not self._tried_once.is_set():
            self._after_first_round()
        self._tell_refused(reports)
        again = [report.result.again_in for report in reports if report.result.again_in]
        self._again_at = time.monotonic() + min(again) if again else float("inf")
        self._tell_problems()

    def _after_success(self, reports: list[SyncReport], versions: dict[str, str]) -> None:
        with self._changed:
            self._schedule.succeeded(time.monotonic())
            self._health.sync_succeeded(time.time())
        for report in reports:
            self._log.info(
                "synced",
                backend=self._settings.mode,
                family=report.family,
                first=not self._synced_once,
                writes=report.result.writes,
                services=report.services,
                endpoints=report.endpoints,
                duration_ms=report.duration_ns / 1e6,
                versions=versions,
            )
        self._synced_once = True

    def _after_first_round(self) -> None:
        """Begin with what would have delayed the first sync, whether or not that succeeded."""
        # What a start leaves behind lives as long as the process: see nodeproxy.
        gc.freeze()
        gc.enable()
        self._tried_once.set()
        self._tune()
        try:
            if self._proxier.find_left_over():
                self._request()
        except KernelError as error:
            self._log.warning("reading the kernel failed", error=str(error))

    def _after_failure(self, reports: list[SyncReport]) -> None:
        failures = [str(error) for report in reports for error in report.result.failures]
        if not self._synced_once:
            self._end_if_unsupported()
        with self._changed:
            later = self._schedule.failed(time.monotonic())
        self._log.warning(
            "sync failed",
            backend=self._settings.mode,
            failures=failures[:FAILURES_TOLD],
            count=len(failures),
            again_in_s=later,
        )

    def _tell_refused(self, reports: list[SyncReport]) -> None:
        """Tell what could not be served, once for as long as it is there."""
        results = [report.result for report in reports]
        refused = frozenset(str(error) for result in results for error in result.refused)
        invalid = frozenset(str(error) for result in results for error in result.invalid)
        new = sorted(refused - self._refused)
        if new:
            told = new[:FAILURES_TOLD]
            self._log.warning("refused by the kernel", failures=told, count=len(new))
        for error in sorted(invalid - self._invalid):
            self._log.warning("invalid object", error=error)
        self._refused, self._invalid = refused, invalid

    def _end_if_unsupported(self) -> None:
        """Raise Unsupported if trying again is of no use."""
        reason = self._proxier.proxiers[0].backend.supported()
        if reason is not None:
            raise Unsupported(f"mode {self._settings.mode}: {reason}")

    def _start_health_server(self) -> None:
        def healthz() -> Any:
            return self._health.healthz(time.monotonic(), time.time())

        def livez() -> Any:
            return self._health.livez(time.monotonic(), time.time())

        handlers = {"/healthz": healthz, "/livez": livez}
        server = HealthServer(self._settings.healthz, handlers, self._log)
        server.start(self._tried_once, HEALTHZ_AT_LATEST_S)

    def _tune(self) -> None:
        """Set connection tracking as configured; no packet waits for it, so it comes last."""
        for key, value in self._settings.sysctls:
            try:
                sysctls.ensure(sysctls.Sysctl(), key, value)
            except NotFound:
                self._log.debug("no such switch in this kernel", key=key)
            except KernelError as error:
                self._log.warning("setting a kernel switch failed", key=key, error=str(error))

    def _tell_problems(self) -> None:
        for problem in self._proxier.take_problems():
            self._log.warning("invalid object", error=str(problem))
        for reason in self._proxier.take_disabled():
            self._log.warning("family not served", reason=reason)
        for name, features in self._proxier.take_unsupported():
            self._log.warning(
                "not supported by this version: ignored", service=str(name), fields=features
            )


class _Reporter:
    """Logs an informer's problems; the same one only now and then."""

    def __init__(self, log: Log, kind: str) -> None:
        self._log = log
        self._kind = kind
        self._last = ""
        self._at = 0.0

    def report(self, error: KproxyError) -> None:
        """Log a problem."""
        text, now = str(error), time.monotonic()
        if text == self._last and now - self._at < PROBLEM_SILENCE_S:
            return
        self._last, self._at = text, now
        self._log.warning("API problem", kind=self._kind, error=text)


def _load(settings: Settings, family: Any) -> base.Backend:
    return base.loader(settings.mode)(family, settings.options)


def _newer(version: str, known: str) -> bool:
    """Compare resource versions, which are numbers in every store that is in use."""
    if version.isdigit() and known.isdigit():
        return int(version) > int(known)
    return version != known


def _stop(number: int, frame: FrameType | None) -> None:
    # Who asks again, or in another way, gets what he asked for first. Not SIG_IGN yet: the
    # interpreter complains of a signal that has come already.
    for each in STOP_SIGNALS:
        signal.signal(each, lambda *_: None)
    raise _Stopped


def since_exec_ms() -> float:
    """Return for how long this process has existed, in milliseconds (the kernel counts in 10)."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 pathlib is not imported otherwise
        started = int(file.read().rpartition(b")")[2].split()[19])
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return (now - started / os.sysconf("SC_CLK_TCK")) * 1000
