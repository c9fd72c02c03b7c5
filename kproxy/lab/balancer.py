"""The load balancer before a cluster, on the host ``edge``.

    python -m kproxy.lab.balancer --kubeconfig FILE --api-address 192.168.49.1 \\
        --api-server 192.168.50.201:6443 … [--state FILE]

It does what a load balancer before the API servers and a cloud's load balancers do: the API
servers have one address, behind which only those are that are well; Services of type LoadBalancer
are given addresses, behind which the nodes are that are well, at their node ports. The kernel
forwards; this process watches the API, asks servers how they are, and has the proxies' backends
program the difference. Rules outlive it. It keeps in ``--state`` what it needs to go on while the
API is away. After SIGTERM it ends with exit code 0.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from kproxy import errors, exposition, logs, processmetrics
from kproxy.api import core, kinds
from kproxy.client import kubeconfig, rest, watchmetrics
from kproxy.client.informer import Informer
from kproxy.client.objects import ObjectClient
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.client.tls import TlsContexts
from kproxy.controlplane.eventrecorder import Recorder
from kproxy.desired.schedule import Schedule
from kproxy.healthhttp import HealthServer, metrics_page
from kproxy.lab.balancing import arguments, fronts, statuses
from kproxy.lab.balancing.addresses import Key
from kproxy.lab.balancing.fronts import Front
from kproxy.lab.balancing.health import API_TERMS, Probe, Terms
from kproxy.lab.balancing.kernelside import Forwarder, choose_mode
from kproxy.lab.balancing.ledger import Ledger
from kproxy.lab.balancing.memory import MemoryFile
from kproxy.lab.balancing.probing import Prober

NAME = "kproxy-balancer"
ENDS = (signal.SIGTERM, signal.SIGINT)
SYNC_EVERY_S = 30.0
"""So often the kernel is read anew, as the proxies do."""
APART_S = 0.1
"""Syncs are so far apart at least, once two have followed each other at once."""


def main(words: Sequence[str] | None = None) -> int:
    """Balance until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    log = logs.Log("balancer")
    try:
        return asyncio.run(_Balancer(arguments.parse(words, __doc__), log).run())
    except errors.KproxyError as error:
        log.error("cannot start", error=str(error))
        return 2


class _Balancer:
    """The process: everything but the informers and the writing of statuses is in its loop."""

    def __init__(self, options: argparse.Namespace, log: logs.Log) -> None:
        self._options = options
        self._log = log
        access = kubeconfig.load_kubeconfig(options.kubeconfig)
        self._rest = rest.Rest(access, agent=NAME)
        cluster = ObjectClient(self._rest)
        self._events = Recorder(cluster, NAME, log)
        self._statuses = statuses.StatusWriter(cluster, self._events, log)
        url = urlsplit(access.server)
        scheme = url.scheme
        self._own_way = bool(options.api_address) and url.hostname == options.api_address
        """Whether the API is reached by the address that is served here."""
        self._watching = False
        self._tls = TlsContexts(access).current if scheme == "https" else None
        self._api: Front | None = None
        if options.api_address:
            self._api = fronts.of_api(
                options.api_address, options.api_port, options.api_server, scheme
            )
        self._ledger = Ledger(options.ranges, self._wake_from_thread)
        self._informers = [
            Informer(
                self._rest,
                wanted,
                on_changes=handler,
                on_synced=self._wake_from_thread,
                on_problem=self._tell,
            )
            for wanted, handler in self._handlers()
        ]
        self._told: set[str] = set()
        self._seen: list[exposition.Sample] = []
        self._registry = self._metrics()
        self._syncs = self._registry.counter(
            "kproxy_balancer_syncs_total", "Syncs, by how they ended", "result"
        )

    def _metrics(self) -> exposition.Registry:
        registry = exposition.Registry()
        registry.collect_by(self._families)
        registry.collect_by(lambda: watchmetrics.families(self._informers))
        registry.collect_by(processmetrics.collect)
        requests = RequestMetrics(registry, self._rest.host)
        self._rest.exchanges.listen(requests.observe)
        return registry

    def _handlers(self) -> list[tuple[type[Any], Any]]:
        # Nodes first: a Service without nodes behind it would refuse connections.
        return [
            (core.Node, self._ledger.on_nodes),
            (core.Service, self._ledger.on_services),
        ]

    async def run(self) -> int:
        options = self._options
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()
        for number in ENDS:
            self._loop.add_signal_handler(number, self._end)
        mode = choose_mode(self._log, options.mode)
        self._memory = MemoryFile(options.state, self._log)
        remembered = self._memory.load()
        self._fronts = {front.key: front for front in remembered.fronts}
        self._prober = Prober(self._woken.set, self._tls, remembered.well)
        self._forwarder = Forwarder(mode, options.node, options.beyond, self._log)
        pages = {
            "/healthz": lambda: (200, "ok"),
            "/metrics": metrics_page(self._registry),
        }
        with HealthServer(options.health_bind_address, pages) as health:
            self._log.info("started", mode=mode, health=health.port)
            self._forwarder.begin()
            await self._serve()
        await self._stop()
        return 0

    async def _stop(self) -> None:
        await self._prober.close()
        self._rest.close()
        if self._watching:
            for informer in self._informers:
                informer.stop()
            self._statuses.stop()
        self._events.stop()
        self._forwarder.close()
        self._log.info("stopped")

    async def _serve(self) -> None:
        schedule = Schedule(
            now=time.monotonic(), min_interval=APART_S, max_interval=SYNC_EVERY_S, burst=2
        )
        read_at = time.monotonic()
        schedule.request(read_at)
        again_at = float("inf")
        while not self._ended.is_set():
            now = time.monotonic()
            wait = min(schedule.next_deadline(), again_at) - now
            if wait > 0:
                await self._wait(wait)
                if self._woken.is_set():
                    self._woken.clear()
                    schedule.request(time.monotonic())
                continue
            schedule.started(now)
            if now >= read_at + SYNC_EVERY_S:
                self._forwarder.reread()
                read_at = now
            again_at = self._round(schedule)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    def _round(self, schedule: Schedule) -> float:
        """Sync once; return when to sync again even if nothing changes."""
        wanted = self._wanted()
        self._prober.follow(self._probes(wanted))
        try:
            again = self._forwarder.sync(wanted, self._prober)
        except errors.KernelError as error:
            later = schedule.failed(time.monotonic())
            self._syncs.add("error")
            self._log.warning("sync failed", error=str(error), again_in=later)
            again = None
        else:
            schedule.succeeded(time.monotonic())
            self._syncs.add("success")
        self._memory.save(wanted.values(), self._prober.well())
        self._watch()
        self._show(wanted)
        return float("inf") if again is None else time.monotonic() + again

    def _watch(self) -> None:
        """Begin to watch the API, as soon as there is a way to it."""
        well = self._api is not None and any(
            self._prober.is_well(server.probe) for server in self._api.servers
        )
        if not self._watching and (well or not self._own_way):
            self._watching = True
            self._statuses.start()
            for informer in self._informers:
                informer.start()

    def _wanted(self) -> dict[Key, Front]:
        """Return the fronts; those of Services as remembered, until the API has told of all."""
        if all(informer.synced for informer in self._informers):
            picture = self._ledger.picture()
            self._fronts = dict(picture.fronts)
            self._statuses.want(picture.statuses)
            self._complain(picture.problems)
        if self._api is not None:
            self._fronts[fronts.API] = self._api
        else:
            self._fronts.pop(fronts.API, None)
        return self._fronts

    def _probes(self, wanted: dict[Key, Front]) -> dict[Probe, Terms]:
        found: dict[Probe, Terms] = {}
        for front in wanted.values():
            terms = API_TERMS if front.cut else self._options.node_terms
            found |= {server.probe: terms for server in front.servers}
        return found

    def _show(self, wanted: dict[Key, Front]) -> None:
        self._seen = [
            exposition.Sample(
                {"service": "/".join(front.key), "server": server.name},
                float(self._prober.is_well(server.probe)),
            )
            for front in wanted.values()
            for server in front.servers
        ]

    def _families(self) -> list[exposition.Family]:
        kind = exposition.Kind.GAUGE
        words = "Whether a server is well"
        return [exposition.Family("kproxy_balancer_server_up", kind, words, self._seen)]

    def _complain(self, problems: Sequence[tuple[core.Service, errors.InvalidObject]]) -> None:
        """Tell of each problem once, as long as it lasts."""
        texts = {str(problem) for _, problem in problems}
        for service, problem in problems:
            if str(problem) not in self._told:
                self._log.warning("bad object", error=str(problem))
                self._events.event(
                    kinds.SERVICE,
                    statuses.about(service),
                    "SyncLoadBalancerFailed",
                    str(problem),
                    warning=True,
                )
        self._told = texts

    def _wake_from_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._woken.set)

    def _end(self) -> None:
        self._ended.set()
        self._woken.set()

    def _tell(self, problem: errors.KproxyError) -> None:
        self._log.warning("problem", error=str(problem))


if __name__ == "__main__":
    sys.exit(main())
