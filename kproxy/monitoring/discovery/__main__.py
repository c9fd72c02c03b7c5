"""Writes the targets of a cluster into files for Prometheus' ``file_sd_configs``, as they change.

    python -m kproxy.monitoring.discovery --kubeconfig FILE --directory DIR

The files are ``node.json``, ``pod.json`` and ``endpointslice.json`` (:mod:`groups`), replaced as a
whole. Prometheus notices a new one at once. While the API server does not answer, and after the
end of this program, they stay as they are: who was a target stays one.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors, exposition, healthhttp, logs, processmetrics
from kproxy.api import catalog, kinds
from kproxy.client import kubeconfig, rest
from kproxy.client.cache import CachedObjects

from .groups import Group, Role, of_nodes, of_pods, of_slices, ordered

ENDS = (signal.SIGTERM, signal.SIGINT)
PAUSE_S = 0.1
"""So long changes are gathered before files are written."""
RETRY_S = 1.0
_KINDS = (kinds.NODE, catalog.POD, kinds.ENDPOINT_SLICE, kinds.SERVICE)


class Finder:
    """Follows the API and writes the files."""

    def __init__(self, client: rest.Rest, directory: Path, log: logs.Log) -> None:
        self._directory = directory
        self._log = log
        self._changed = threading.Event()
        self._ending = threading.Event()
        self._written: dict[Role, bytes] = {}
        self._cache = CachedObjects(client, _KINDS, on_problem=self._tell)
        self.registry = exposition.Registry()
        self._targets = self.registry.gauge(
            "kproxy_discovery_targets", "Targets in the files for Prometheus.", "role"
        )
        self._writes = self.registry.counter(
            "kproxy_discovery_writes_total", "Files for Prometheus written.", "role"
        )
        for kind in _KINDS:
            self._cache.on_change(kind, lambda old, new: self._changed.set())

    def run(self) -> None:
        """Write what changes until :meth:`stop`."""
        self._cache.start()
        self._cache.wait_synced()
        self._changed.set()
        while True:
            self._changed.wait()
            if self._ending.wait(PAUSE_S):
                return
            self._changed.clear()
            try:
                self._write()
            except OSError as error:
                self._log.error("cannot write", error=str(error))
                self._changed.set()
                self._ending.wait(RETRY_S)

    def stop(self) -> None:
        """End :meth:`run`; from any thread."""
        self._ending.set()
        self._changed.set()
        self._cache.stop()

    def _write(self) -> None:
        pods = self._objects(catalog.POD)
        slices, services = self._objects(kinds.ENDPOINT_SLICE), self._objects(kinds.SERVICE)
        found: dict[Role, list[Group]] = {
            Role.NODE: of_nodes(self._objects(kinds.NODE)),
            Role.POD: of_pods(pods),
            Role.ENDPOINT_SLICE: of_slices(slices, services, pods),
        }
        for role, groups in found.items():
            data = msgspec.json.encode(ordered(groups))
            if data != self._written.get(role):
                self._replace(role, data)
                self._targets.set(len(groups), role)
                self._writes.add(role)

    def _objects(self, kind: kinds.Kind) -> Sequence[dict[str, Any]]:
        return self._cache.known.list_objects(kind)

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
    add = parser.add_argument
    add("--kubeconfig", type=Path, required=True, metavar="FILE")
    add("--directory", type=Path, required=True, metavar="DIR", help="where the files are")
    add("--bind-address", default="127.0.0.1:9816", metavar="HOST:PORT", help="of metrics, health")
    options = parser.parse_args(arguments)
    log = logs.Log("discovery")
    # Blocked before any thread starts, so that they all leave them to sigwait.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
        access = kubeconfig.load_kubeconfig(options.kubeconfig)
        finder = Finder(rest.Rest(access, agent="kproxy-discovery"), options.directory, log)
        finder.registry.collect_by(processmetrics.collect)
        pages = {
            "/metrics": healthhttp.metrics_page(finder.registry),
            "/healthz": lambda: (200, "ok"),
        }
        with healthhttp.HealthServer(options.bind_address, pages) as health:
            log.info("started", port=health.port)
            worker = threading.Thread(target=finder.run, name="finder", daemon=True)
            worker.start()
            signal.sigwait(ENDS)
            finder.stop()
            worker.join()
    except (errors.KproxyError, OSError) as error:
        log.error("cannot start", error=str(error))
        return 2
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
