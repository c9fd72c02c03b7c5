"""The cluster's name server: Services, their endpoints and pods by name.

    python -m kproxy.controlplane.dns --kubeconfig FILE [--domain cluster.local] …

Several replicas work side by side behind the Service ``kube-system/kube-dns``; each follows the
API by itself and answers from memory, also while the API is away. Until it has once seen all
Services and EndpointSlices it is not ready, and answers SERVFAIL. After SIGTERM it goes on for as
long as others may still send to it (``--lameduck``), then ends with exit code 0.
"""

import argparse
import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kproxy import errors, logs, processmetrics
from kproxy.api import addresses, core, discovery, durations, pods
from kproxy.client import kubeconfig, rest, watchmetrics
from kproxy.client.informer import Informer
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.healthhttp import HealthServer, Page, metrics_page

from .controllers import times
from .naming import records
from .naming.answers import Answers, PodNames, Rules
from .naming.directory import Directory
from .naming.metrics import Metrics
from .naming.server import Listen, Server
from .naming.upstream import Upstream
from .naming.zone import Zone

PORT = 53
HEALTH_ADDRESS = "0.0.0.0:8080"
METRICS_ADDRESS = "0.0.0.0:9153"
LAMEDUCK = durations.Duration(5.0)
ENDS = (signal.SIGTERM, signal.SIGINT)
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  whoever reaches the pod may ask


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    log = logs.Log("dns")
    try:
        return asyncio.run(_NameServer(_options(arguments), log).run())
    except errors.KproxyError as error:
        log.error("cannot start", error=str(error))
        return 2


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kproxy.controlplane.dns", description=__doc__)
    add = parser.add_argument
    add("--kubeconfig", type=Path, required=True, metavar="FILE")
    add("--domain", type=_domain, default="cluster.local", help="the cluster's domain")
    add("--listen", type=_place, action="append", metavar="ADDRESS[:PORT]", default=[])
    add(
        "--forward",
        type=_place,
        action="append",
        metavar="ADDRESS[:PORT]",
        default=[],
        help="a resolver to be asked for other names; without any they are refused",
    )
    add("--pods", type=PodNames, default=PodNames.INSECURE, metavar="|".join(PodNames))
    add("--health-bind-address", default=HEALTH_ADDRESS, metavar="HOST:PORT")
    add("--metrics-bind-address", default=METRICS_ADDRESS, metavar="HOST:PORT")
    add("--lameduck", type=times.duration, default=LAMEDUCK, metavar=LAMEDUCK.text)
    return parser.parse_args(arguments)


class _NameServer:
    """The process."""

    def __init__(self, options: argparse.Namespace, log: logs.Log) -> None:
        self._options = options
        self._log = log
        self._metrics = Metrics()
        self._zone = Zone()
        directory = Directory(self._zone, options.domain)
        client = rest.Rest(kubeconfig.load_kubeconfig(options.kubeconfig), agent="kproxy-dns")
        handlers: list[tuple[type[Any], Any]] = [
            (core.Service, directory.on_services),
            (discovery.EndpointSlice, directory.on_slices),
        ]
        if options.pods is PodNames.VERIFIED:
            handlers.append((pods.Pod, directory.on_pods))
        self._informers = [
            Informer(
                client,
                wanted,
                on_changes=handler,
                on_problem=self._tell,
                on_synced=self._listed,
            )
            for wanted, handler in handlers
        ]
        registry = self._metrics.registry
        registry.collect_by(lambda: watchmetrics.families(self._informers))
        registry.collect_by(processmetrics.collect)
        client.exchanges.listen(RequestMetrics(registry, client.host).observe)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in ENDS:
            loop.add_signal_handler(number, ended.set)
        options = self._options
        forward = Upstream(options.forward) if options.forward else None
        rules = Rules(domain=options.domain, pod_names=options.pods, forwards=forward is not None)
        answers = Answers(self._zone, rules, self._ready)
        listen = options.listen or list(_everywhere())
        with (
            HealthServer(options.health_bind_address, self._health_pages()) as health,
            HealthServer(options.metrics_bind_address, self._metrics_pages()) as metrics,
        ):
            async with Server(listen, answers, forward, self._metrics, self._log) as server:
                self._log.info(
                    "listening", ports=server.ports, health=health.port, metrics=metrics.port
                )
                for informer in self._informers:
                    informer.start()
                await ended.wait()
                self._log.info("ending", lameduck_s=float(options.lameduck))
                await asyncio.sleep(options.lameduck)
        for informer in self._informers:
            informer.stop()
        self._log.info("stopped")
        return 0

    def _health_pages(self) -> dict[str, Page]:
        return {
            "/health": lambda: (200, "OK"),
            "/ready": lambda: (200, "OK") if self._ready() else (503, "kubernetes\n"),
        }

    def _metrics_pages(self) -> dict[str, Page]:
        page = metrics_page(self._metrics.registry)

        def metrics() -> tuple[int, str]:
            self._metrics.changes.set(self._zone.changes)
            return page()

        return {"/metrics": metrics}

    def _ready(self) -> bool:
        return all(informer.synced for informer in self._informers)

    def _listed(self) -> None:
        if self._ready():
            self._log.info("ready")

    def _tell(self, problem: errors.KproxyError) -> None:
        self._log.warning("problem", error=str(problem))


def _everywhere() -> Iterator[Listen]:
    """Yield all addresses, of those families that this machine has."""
    for host in EVERYWHERE:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as sock:
                sock.bind((host, 0))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
        else:
            yield host, PORT


def _place(text: str) -> Listen:
    """Return address and port of ``10.0.0.1``, ``10.0.0.1:53``, ``fd00::1``, ``[fd00::1]:53``."""
    host, port = text, str(PORT)
    if text.startswith("[") or text.count(":") == 1:
        host, _, given = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        host, port = host.strip("[]"), given or port
    parsed = addresses.parse_address(host)
    if parsed is None or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS[:PORT]")
    return parsed.text, int(port)


def _domain(text: str) -> str:
    name = text.rstrip(".").lower()
    # So long that every name of a Service below it is still one.
    if not records.is_name(name) or len(name) > 63:
        raise argparse.ArgumentTypeError(f"{text!r} is no domain of up to 63 characters")
    return name


if __name__ == "__main__":
    sys.exit(main())
