"""Writes the targets of a cluster into files for Prometheus' ``file_sd_configs``, as they change.

    python -m kproxy.monitoring.discovery --directory DIR [--kubeconfig FILE]

The files are ``node.json``, ``pod.json`` and ``endpointslice.json`` (:mod:`groups`), replaced as a
whole. Prometheus notices a new one at once. While the API server does not answer, and after the
end of this program, they stay as they are: who was a target stays one. An object that cannot be
read is told of and left out; one that could be read before stays as it was.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kproxy import errors, logs
from kproxy.api import catalog
from kproxy.api.core import Service
from kproxy.api.pods import Pod
from kproxy.client.informer import Informer
from kproxy.client.rest import Rest
from kproxy.exposition import Registry
from kproxy.monitoring import process

from .groups import Group, Role, of_nodes, of_pods, of_slices, ordered
from .objects import EndpointSlice, Node

NAME = "kproxy-discovery"
ADDRESS = "127.0.0.1:9816"
GATHER_S = 0.1
"""So long changes are gathered before files are written."""
RETRY_S = 1.0
_TYPES: tuple[type[Any], ...] = (Node, catalog.POD.type, EndpointSlice, Service)
_T = TypeVar("_T")


class Finder:
    """Follows the API and writes the files."""

    def __init__(self, client: Rest, directory: Path, log: logs.Log) -> None:
        self._directory = directory
        self._log = log
        self._changed = threading.Event()
        self._ending = threading.Event()
        self._written: dict[Role, bytes] = {}
        self.informers: dict[type[Any], Informer[Any]] = {
            wanted: Informer(
                client,
                wanted,
                on_changes=lambda _: self._changed.set(),
                on_synced=self._changed.set,
                on_problem=self._tell,
            )
            for wanted in _TYPES
        }
        self.registry = Registry()
        self._targets = self.registry.gauge(
            "kproxy_discovery_targets", "Targets in the files for Prometheus.", "role"
        )
        self._writes = self.registry.counter(
            "kproxy_discovery_writes_total", "Files for Prometheus written.", "role"
        )

    def run(self) -> None:
        """Write what changes until :meth:`stop`."""
        while True:
            self._changed.wait()
            if self._ending.wait(GATHER_S):
                return
            self._changed.clear()
            try:
                if all(informer.synced for informer in self.informers.values()):
                    self._write()
            except OSError as error:
                self._log.error("cannot write", error=str(error))
                self._changed.set()
                self._ending.wait(RETRY_S)

    def stop(self) -> None:
        """End :meth:`run`; from any thread."""
        self._ending.set()
        self._changed.set()

    def _write(self) -> None:
        pods, slices = self._objects(Pod), self._objects(EndpointSlice)
        found: dict[Role, list[Group]] = {
            Role.NODE: of_nodes(self._objects(Node)),
            Role.POD: of_pods(pods),
            Role.ENDPOINT_SLICE: of_slices(slices, self._objects(Service), pods),
        }
        for role, groups in found.items():
            data = msgspec.json.encode(ordered(groups))
            if data != self._written.get(role):
                self._replace(role, data)
                self._targets.set(len(groups), role)
                self._writes.add(role)

    def _objects(self, wanted: type[_T]) -> list[_T]:
        return list(self.informers[wanted].objects.values())

    def _replace(self, role: Role, data: bytes) -> None:
        path = self._directory / f"{role}.json"
        partial = path.with_suffix(".new")
        partial.write_bytes(data)
        partial.replace(path)
        self._written[role] = data

    def _tell(self, error: errors.KproxyError) -> None:
        self._log.warning("problem", error=str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until SIGTERM or SIGINT; return the exit code: 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m kproxy.monitoring.discovery")
    process.add_options(parser, ADDRESS)
    parser.add_argument(
        "--directory", type=Path, required=True, metavar="DIR", help="where the files are written"
    )
    options = parser.parse_args(arguments)
    return process.main(NAME, lambda log: _run(options, log))


def _run(options: argparse.Namespace, log: logs.Log) -> int:
    # Blocked before any thread starts, so that they all leave them to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDS)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.UsageError(f"cannot make {options.directory}: {error.strerror}") from None
    client = Rest(process.access(options), agent=NAME)
    finder = Finder(client, options.directory, log)
    informers = list(finder.informers.values())
    with process.server(options, finder.registry, client, informers) as health:
        log.info("started", port=health.port)
        for informer in informers:
            informer.start()
        worker = threading.Thread(target=finder.run, name="finder", daemon=True)
        worker.start()
        signal.sigwait(process.ENDS)
        finder.stop()
        for informer in informers:
            informer.stop()
        worker.join()
    client.close()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
