"""The exporter of states: what objects of the API are like, for Prometheus.

    python -m kproxy.monitoring.state [--kubeconfig FILE] [--metrics-bind-address 0.0.0.0:8081]

It follows nodes, pods, Services, EndpointSlices, workloads and Leases, and tells of them under the
names of kube-state-metrics. Nothing is told of a kind before all of it has been listed. While the
API server is away it goes on telling what it knows; how old that is, ``kproxy_watch_*`` says.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kproxy import errors, logs
from kproxy.api import catalog, kinds
from kproxy.client.informer import Informer
from kproxy.client.rest import Rest
from kproxy.exposition import Family, Registry
from kproxy.monitoring import process

from . import leases, nodes, pods, services, workloads
from .telling import Tell, families

NAME = "kube-state-metrics"
ADDRESS = "0.0.0.0:8081"


class Followed(NamedTuple):
    """A kind of objects, and what is told of them."""

    kind: kinds.Kind
    words: Mapping[str, str]
    tell: Tell


FOLLOWED = (
    Followed(kinds.NODE, nodes.WORDS, nodes.tell),
    Followed(catalog.DAEMON_SET, workloads.DAEMON_SET_WORDS, workloads.tell_daemon_set),
    Followed(catalog.DEPLOYMENT, workloads.DEPLOYMENT_WORDS, workloads.tell_deployment),
    Followed(catalog.STATEFUL_SET, workloads.STATEFUL_SET_WORDS, workloads.tell_stateful_set),
    Followed(catalog.POD, pods.WORDS, pods.tell),
    Followed(kinds.SERVICE, services.SERVICE_WORDS, services.tell_service),
    Followed(kinds.ENDPOINT_SLICE, services.SLICE_WORDS, services.tell_slice),
    Followed(catalog.LEASE, leases.WORDS, leases.tell),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.monitoring.state")
    process.add_options(parser, ADDRESS)
    options = parser.parse_args(arguments)
    return process.main(NAME, lambda log: _run(options, log))


def _run(options: argparse.Namespace, log: logs.Log) -> int:
    # Blocked before any thread starts, so that they all leave them to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDS)

    def tell(error: errors.KproxyError) -> None:
        log.warning("problem", error=str(error))

    client = Rest(process.access(options), agent=NAME)
    registry = Registry()
    informers: list[Informer[Any]] = []
    for one in FOLLOWED:
        informer: Informer[Any] = Informer(client, one.kind.type, on_problem=tell)
        informers.append(informer)
        registry.collect_by(_collector(one, informer))
    with process.server(options, registry, client, informers) as health:
        log.info("started", port=health.port)
        for informer in informers:
            informer.start()
        signal.sigwait(process.ENDS)
        for informer in informers:
            informer.stop()
    client.close()
    log.info("stopped")
    return 0


def _collector(one: Followed, informer: Informer[Any]) -> Callable[[], Iterator[Family]]:
    def collect() -> Iterator[Family]:
        if informer.synced:
            yield from families(one.words, one.tell, informer.objects.values())

    return collect


if __name__ == "__main__":
    sys.exit(main())
