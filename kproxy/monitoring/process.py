"""What programs of this room have in common: how they find the API, and what they all serve."""

import argparse
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kproxy import errors, logs, processmetrics, threaddeath
from kproxy.api.durations import Duration
from kproxy.client import watchmetrics
from kproxy.client.informer import Informer
from kproxy.client.kubeconfig import Access, access_of_pod, load_kubeconfig
from kproxy.client.requestmetrics import RequestMetrics
from kproxy.client.rest import Rest
from kproxy.exposition import Registry
from kproxy.healthhttp import HealthServer, metrics_page

ENDS = (signal.SIGTERM, signal.SIGINT)


def add_options(parser: argparse.ArgumentParser, address: str) -> None:
    """Add the options that all have; ``address``: where metrics are served by default."""
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="default: as a pod's service account"
    )
    parser.add_argument(
        "--metrics-bind-address",
        default=address,
        metavar="HOST:PORT",
        help=f"where to serve /metrics, /healthz and /readyz; empty: nowhere; default: {address}",
    )


def access(options: argparse.Namespace) -> Access:
    """Return how to reach the API server. Raises UsageError and InvalidObject."""
    if options.kubeconfig is not None:
        return load_kubeconfig(options.kubeconfig)
    return access_of_pod(os.environ)


def server(
    options: argparse.Namespace,
    registry: Registry,
    client: Rest,
    informers: Sequence[Informer[Any]],
) -> HealthServer:
    """Return what serves a program's metrics, with those that every program has.

    It is ready when all informers have listed. Raises UsageError if it cannot listen.
    """
    registry.collect_by(lambda: watchmetrics.families(informers))
    registry.collect_by(processmetrics.collect)
    client.exchanges.listen(RequestMetrics(registry, client.host).observe)

    def readyz() -> tuple[int, str]:
        missing = [one.kind.plural for one in informers if not one.synced]
        return (503, f"not listed yet: {', '.join(missing)}\n") if missing else (200, "ok")

    pages = {
        "/metrics": metrics_page(registry),
        "/readyz": readyz,
        **{path: lambda: (200, "ok") for path in ("/healthz", "/livez")},
    }
    return HealthServer(options.metrics_bind_address, pages)


def main(name: str, run: Callable[[logs.Log], int]) -> int:
    """Run a program; return its exit code: 2 if it cannot start, in one line that says why.

    If one of its threads dies, the program ends with exit code 1.
    """
    log = logs.Log(name)
    threaddeath.ends_the_program(log)
    try:
        return run(log)
    except errors.KproxyError as error:
        log.error("cannot start", error=str(error))
        return 2


def duration(text: str) -> Duration:
    """Return a positive duration of an option, for ``argparse``."""
    try:
        found = Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not longer than nothing")
    return found
