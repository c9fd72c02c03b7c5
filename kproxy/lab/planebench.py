"""How much control plane fits on this machine: many nodes, pods and services, fake containers.

Everything is a process of its own on the loopback interface, under the real clock: one API server
over one store, a manager, a scheduler, and kubelets whose containers are records in memory
(:mod:`kproxy.controlplane.fleet`). Measured: how long until everything that is declared is ready,
how quickly many watchers hear of a write, how much the store holds and commits, how much memory
each process has.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import ObjectClient
from kproxy.client.rest import Rest
from kproxy.controlplane.access import kubeconfigs
from kproxy.controlplane.storage import locations, measure
from kproxy.lab import watchers
from kproxy.lab.podviews import is_ready
from kproxy.traffic.summary import percentile

Object = dict[str, Any]
Told = Callable[[str], None]

NODES_OF_A_PROCESS = 25
NAMESPACE = "default"
PATIENCE_S = 1200.0
_LOOK_AGAIN_S = 0.5
_COMMITS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is declared, and how many watch. Pods are spread evenly over the services."""

    nodes: int = 50
    pods: int = 1000
    services: int = 500
    watchers: int = 100
    events: int = 200

    def check(self) -> None:
        """Raise ``UsageError`` for what cannot be; the message names the option."""
        for name, least, most in (
            ("nodes", 1, 250),
            ("pods", 1, 20_000),
            ("services", 1, 5_000),
            ("watchers", 0, 2_000),
            ("events", 1, 100_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise errors.UsageError(f"--{name} {getattr(self, name)}: use {least} to {most:,}")
        if self.pods < self.services:
            raise errors.UsageError(f"--pods {self.pods}: there is at least one for each service")


class Plane:
    """A control plane that runs below a directory; a context manager."""

    def __init__(self, size: Size, directory: Path, tell: Told) -> None:
        self._size = size
        self._directory = directory
        self._tell = tell
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Plane":
        self._port = _free_port()
        self._kubeconfig = self._directory / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{self._port}"}
        self._kubeconfig.write_text(kubeconfigs.document(cluster, "bench", {}))
        self.store = self._directory / "store.db"
        self._rest = Rest(load_kubeconfig(self._kubeconfig), agent="bench")
        self._api = ObjectClient(self._rest)
        return self

    def __exit__(self, *exc: object) -> None:
        self._rest.close()
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self) -> dict[str, float]:
        """Start everything; return the seconds until each stage was reached."""
        began = time.monotonic()
        reached: dict[str, float] = {}

        def stage(name: str, done: Callable[[], bool]) -> None:
            self._tell(f"waiting: {name}")
            self._wait(done, name)
            reached[name] = round(time.monotonic() - began, 3)

        server = ("--insecure", f"--bind=127.0.0.1:{self._port}", f"--store=sqlite:{self.store}")
        self._spawn("apiserver", "controlplane.apiserver", *server)
        stage("API ready", self._answers)
        alone = ("--leader-elect=false", "--healthz-bind-address=")
        for program in ("manager", "scheduler"):
            self._spawn(program, f"controlplane.{program}", self._config, *alone)
        for first in range(1, self._size.nodes + 1, NODES_OF_A_PROCESS):
            count = min(NODES_OF_A_PROCESS, self._size.nodes + 1 - first)
            options = (f"--first={first}", f"--count={count}")
            self._spawn(f"kubelets {first}", "controlplane.fleet", self._config, *options)
        stage("nodes ready", lambda: self._ready(kinds.NODE) == self._size.nodes)
        self._tell("declaring services and deployments")
        for kind, obj in objects(self._size):
            self._api.create(kind, obj)
        reached["everything declared"] = round(time.monotonic() - began, 3)
        stage("pods ready", lambda: self._ready(catalog.POD) == self._size.pods)
        stage("endpoints ready", lambda: self._endpoints() == self._size.pods)
        return reached

    def fan_out(self) -> dict[str, Any]:
        """Write ConfigMaps as fast as it goes while many watch; return how late they hear."""
        count, events = self._size.watchers, self._size.events
        self._tell(f"{count} watchers")
        options = ["--count", str(count), "--events", str(events)]
        command = [sys.executable, "-m", "kproxy.lab.watchers", self._config, *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            _expect(process.stdout, "ready")
            began = time.monotonic()
            for number in range(events):
                self._api.create(catalog.CONFIG_MAP, _config_map(number))
            wrote = time.monotonic() - began
            done = _expect(process.stdout, "done")
            took = time.monotonic() - began
        late = done["late_ms"]
        return {
            "watchers": count,
            "writes": events,
            "writes_per_s": round(events / wrote, 1),
            "heard": done["heard"],
            "heard_per_s": round(done["heard"] / took, 1),
            "late_ms_p50": percentile(late, 50),
            "late_ms_p99": percentile(late, 99),
        }

    def sizes(self) -> dict[str, Any]:
        """Return what the store holds, and what each process's memory is (resident, MB)."""
        files = [path for path in self._directory.iterdir() if path.name.startswith("store.db")]
        keys = len(self._api.list_objects(catalog.POD)) + len(
            self._api.list_objects(kinds.ENDPOINT_SLICE)
        )
        memory = {
            name: round(psutil.Process(process.pid).memory_info().rss / 1e6, 1)
            for name, process in self._processes.items()
        }
        return {
            "store_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
            "pods_and_slices": keys,
            "memory_mb": memory,
        }

    @property
    def _config(self) -> str:
        return f"--kubeconfig={self._kubeconfig}"

    def _spawn(self, name: str, module: str, *options: str) -> None:
        log = self._directory / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as file:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"kproxy.{module}", *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            for name, process in self._processes.items():
                if process.poll() is not None:
                    log = self._directory / f"{name.replace(' ', '-')}.log"
                    last = log.read_text(errors="replace").splitlines()[-1:]
                    raise errors.MeasurementError(f"{name} has ended: {' '.join(last)}")
            if time.monotonic() > deadline:
                raise errors.MeasurementError(f"waited {PATIENCE_S:g} s in vain: {what}")
            time.sleep(_LOOK_AGAIN_S)

    def _answers(self) -> bool:
        try:
            self._rest.request("GET", "/readyz")
        except errors.KproxyError:
            return False
        return True

    def _ready(self, kind: kinds.Kind) -> int:
        return sum(map(is_ready, self._api.list_objects(kind)))

    def _endpoints(self) -> int:
        return sum(
            bool((endpoint.get("conditions") or {}).get("ready"))
            for one in self._api.list_objects(kinds.ENDPOINT_SLICE, NAMESPACE)
            for endpoint in one.get("endpoints") or ()
        )


def objects(size: Size) -> Iterator[tuple[kinds.Kind, Object]]:
    """Yield a Service and a Deployment for each number; the pods are spread over them."""
    for number in range(size.services):
        replicas = size.pods // size.services + (number < size.pods % size.services)
        name, labels = f"s{number}", {"app": f"s{number}"}
        container = {"name": "c", "image": "echo", "ports": [{"containerPort": 8080}]}
        meta = {"name": name, "namespace": NAMESPACE}
        ports = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
        spec: Object = {"selector": labels, "ports": ports}
        yield (
            kinds.SERVICE,
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec},
        )
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        yield (
            catalog.DEPLOYMENT,
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec},
        )


def _config_map(number: int) -> Object:
    annotations = {watchers.SENT: str(time.monotonic_ns())}
    meta = {"name": f"m{number}", "namespace": watchers.NAMESPACE, "annotations": annotations}
    data = {"text": "x" * 1000}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _expect(lines: Any, event: str) -> dict[str, Any]:
    """Return the line of that event. Raises MeasurementError if none comes."""
    if not select.select([lines], [], [], PATIENCE_S)[0]:
        raise errors.MeasurementError(f"the watchers did not tell {event!r} in time")
    line = lines.readline()
    if not line:
        raise errors.MeasurementError("the watchers have died")
    found: dict[str, Any] = json.loads(line)
    if found["event"] != event:
        raise errors.MeasurementError(f"the watchers told {found['event']!r}, not {event!r}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def commits(directory: Path) -> list[dict[str, Any]]:
    """Return how many commits per second the store takes from one writer, and from four."""
    rows = []
    for number in (1, 4):
        opened = locations.parse(f"sqlite:{directory / f'commits-{number}.db'}")
        found = measure.measure(opened, commits=_COMMITS, writers=number)
        rows.append(
            {
                "writers": number,
                "commits_per_s": round(found.commits_per_s, 1),
                "commit_ms_p50": _ms(percentile(found.commit_s, 50)),
                "commit_ms_p99": _ms(percentile(found.commit_s, 99)),
                "watch_ms_p50": _ms(percentile(found.watch_s, 50)),
            }
        )
    return rows


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def run(size: Size, directory: Path, tell: Told) -> dict[str, Any]:
    """Measure everything; return the document. Raises MeasurementError."""
    size.check()
    load: Sequence[float] = os.getloadavg()
    with Plane(size, directory, tell) as plane:
        start = plane.start()
        watch = plane.fan_out() if size.watchers else None
        sizes = plane.sizes()
    tell("commits of the store")
    return {
        "size": msgspec.to_builtins(size),
        "start_s": start,
        "watch": watch,
        **sizes,
        "commits": commits(directory),
        "load_average_before": list(load),
    }
