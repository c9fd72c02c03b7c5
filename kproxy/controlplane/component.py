"""A program of the control plane of which one replica works: the manager, the scheduler.

It stands for election, works while it leads, tells how it is over HTTP, and ends: on SIGTERM
after it has finished and given up its Lease, with exit code 0; when it has lost its Lease at
once, with exit code 1, so that whoever started it starts it again.
"""

import argparse
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from kproxy import errors, logs, processmetrics
from kproxy.api.durations import Duration
from kproxy.client import kubeconfig, leaderelection, rest
from kproxy.client.backoff import lots
from kproxy.client.objects import ObjectClient
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.healthhttp import HealthServer, metrics_page

from .controllers import times
from .queuemetrics import ManagerMetrics

ENDS = (signal.SIGTERM, signal.SIGINT)


class NotLeading(errors.KproxyError):
    """A write was held back: this process is not, or no longer, the leader."""


class Work(Protocol):
    """What a leader does."""

    def start(self) -> None:
        """Begin, in threads; returns at once."""
        ...

    def stop(self) -> None:
        """End all of it, also requests in hand; returns when nothing is written any more."""
        ...

    def ready(self) -> bool:
        """Return whether it has begun in earnest."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What :class:`Work` is made of."""

    client: rest.Rest
    log: logs.Log
    guard: Callable[[], None]
    """Raises NotLeading; to be called before every write."""
    metrics: ManagerMetrics


def add_options(parser: argparse.ArgumentParser, *, lease: str, port: int) -> None:
    """Add the options that all of these programs have; the defaults are Kubernetes'."""
    parser.add_argument("--kubeconfig", type=Path, required=True, metavar="FILE")
    terms = leaderelection.Terms()
    add = parser.add_argument_group("leader election").add_argument
    add("--leader-elect", type=_truth, default=True, nargs="?", const=True, metavar="true|false")
    for name, seconds in (
        ("lease-duration", terms.lease),
        ("renew-deadline", terms.renew),
        ("retry-period", terms.retry),
    ):
        default = Duration(seconds)
        add(f"--leader-elect-{name}", type=times.duration, default=default, metavar=default.text)
    add("--leader-elect-resource-name", default=lease, metavar="NAME")
    add("--leader-elect-resource-namespace", default="kube-system", metavar="NAMESPACE")
    parser.add_argument(
        "--healthz-bind-address",
        default=f"127.0.0.1:{port}",
        metavar="HOST:PORT",
        help="where to serve /healthz, /livez, /readyz and /metrics; empty: nowhere",
    )


def run(
    options: argparse.Namespace, log: logs.Log, agent: str, make: Callable[[Parts], Work]
) -> int:
    """Work until SIGTERM or SIGINT; return the exit code."""
    try:
        return _Component(options, log, agent, make).run()
    except errors.KproxyError as error:
        log.error("cannot start", error=str(error))
        return 2


class _Component:
    def __init__(
        self,
        options: argparse.Namespace,
        log: logs.Log,
        agent: str,
        make: Callable[[Parts], Work],
    ) -> None:
        self._log = log
        self._metrics = ManagerMetrics()
        self._lease = options.leader_elect_resource_name
        self._metrics.leader.set(0, self._lease)
        self._access = kubeconfig.load_kubeconfig(options.kubeconfig)
        self._agent = agent
        client = rest.Rest(self._access, agent=agent)
        self._requests = RequestMetrics(self._metrics.registry, client.host)
        client.exchanges.listen(self._requests.observe)
        self._metrics.registry.collect_by(processmetrics.collect)
        self._election = self._candidate(options) if options.leader_elect else None
        parts = Parts(client=client, log=log, guard=self._guard, metrics=self._metrics)
        self._work = make(parts)
        self._started = False
        pages = {
            "/metrics": metrics_page(self._metrics.registry),
            "/readyz": self._readyz,
            **{path: lambda: (200, "ok") for path in ("/healthz", "/livez")},
        }
        self._health = HealthServer(options.healthz_bind_address, pages)

    def run(self) -> int:
        # Blocked before any thread starts, so that they all leave them to sigwait.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        with self._health:
            self._log.info("started", port=self._health.port)
            if self._election is None:
                self._start()
            else:
                self._election.start()
            signal.sigwait(ENDS)
            self._work.stop()
            if self._election is not None:
                # Only now: whoever comes next may begin at once.
                self._election.stop()
        self._log.info("stopped")
        return 0

    def _candidate(self, options: argparse.Namespace) -> leaderelection.LeaderElection:
        terms = leaderelection.Terms(
            lease=options.leader_elect_lease_duration,
            renew=options.leader_elect_renew_deadline,
            retry=options.leader_elect_retry_period,
        )
        terms.check()
        identity = leaderelection.unique_identity()
        elector = leaderelection.Elector(identity, terms, lots(identity).__next__)
        # A request that hangs must not use up the time in which another one might succeed.
        client = rest.Rest(self._access, agent=self._agent, timeout=terms.renew / 2)
        client.exchanges.listen(self._requests.observe)
        return leaderelection.LeaderElection(
            ObjectClient(client),
            elector,
            namespace=options.leader_elect_resource_namespace,
            name=self._lease,
            log=self._log,
            on_started=self._start,
            on_lost=self._lost,
        )

    def _start(self) -> None:
        self._metrics.leader.set(1, self._lease)
        self._work.start()
        self._started = True

    def _lost(self) -> NoReturn:
        # At once: whatever this process has under way must end before another one begins.
        os._exit(1)

    def _guard(self) -> None:
        if self._election is not None and not self._election.leads():
            raise NotLeading("this process does not lead any more")

    def _readyz(self) -> tuple[int, str]:
        if self._started and not self._work.ready():
            return 503, "the objects have not been listed yet\n"
        return 200, "ok"


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"
