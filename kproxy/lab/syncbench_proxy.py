"""Measures a proxy as a process on one node: ours, or any that follows a Kubernetes API.

A node is a fresh network namespace, so every run begins with an empty kernel, and none takes rules
down. What has arrived is seen in the kernel (:mod:`kproxy.lab.syncbench_look`), for every proxy in
the same way. What our own proxy says in its log is used where the kernel cannot tell: that it has
found everything right.
"""

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

import psutil

from kproxy.api import kinds
from kproxy.errors import MeasurementError, UsageError
from kproxy.lab import benchcluster
from kproxy.lab.benchcluster import CLUSTER_CIDR, PATIENCE_S, TCP, Cluster
from kproxy.lab.syncbench_look import Look, service_key
from netns.host import LiveHost
from netns.process import Process

NODE = "node1"
CHANGES = 7
"""Endpoints added, each to another service, in one run."""

ADDED = 3
"""Services added in one run."""

PAUSE_S = 0.2
"""Between two changes: they must not be coalesced."""

OURS = "kproxy"
SEEN_LOG = "log"
SEEN_KERNEL = "kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One duration, and what the proxy's process had used when it was over."""

    step: str
    seconds: float
    seen: str
    """Where its end was seen: in the kernel, or in our own proxy's log."""
    rss_mb: float
    cpu_seconds: float
    """Of the process and the tools it has run, in this step."""
    writes: int | None = None
    """Kernel objects, as our own proxy tells."""
    look_seconds: float = 0.0
    """What looking once took; the step's end is known to about that and the interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyCommand:
    """How a proxy is started: words with {kubeconfig}, {mode}, {node} and {config} in them."""

    name: str
    words: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Return whether its log can be read."""
        return self.name == OURS

    def argv(self, **values: str) -> list[str]:
        """Return the command with its values."""
        return [word.format(**values) for word in self.words]


def ours() -> ProxyCommand:
    """Return the command of this project's proxy."""
    options = "--proxy-mode {mode} --kubeconfig {kubeconfig} --config {config}"
    words = (sys.executable, "-m", "kproxy", "proxy", *options.split())
    return ProxyCommand(name=OURS, words=(*words, "--hostname-override", "{node}"))


def parse_command(text: str) -> ProxyCommand:
    """Return the command that a user wrote. Raises UsageError."""
    what = f"--proxy-command {text!r}"
    try:
        words = tuple(shlex.split(text))
        command = ProxyCommand(name=Path(words[0]).name if words else "", words=words)
        command.argv(kubeconfig="k", mode="m", node="n", config="c")
    except (ValueError, KeyError, IndexError) as error:
        remedy = "only {kubeconfig}, {mode}, {node} and {config} stand in braces"
        raise UsageError(f"{what}: {error}", remedy=remedy) from None
    if not words:
        raise UsageError(f"{what}: no program")
    name = f"{command.name} (--proxy-command)" if command.ours else command.name
    return ProxyCommand(name=name, words=words)


@dataclass(slots=True)
class Run:
    """One proxy on one node, from an empty kernel to its second restart."""

    cluster: Cluster
    node: LiveHost
    mode: str
    command: ProxyCommand
    label: str
    """Names its files."""
    _cpu: float = 0.0
    _started: int = 0
    _begin: int = 0
    _found: list[Observation] = field(default_factory=list)

    def measure(self) -> list[Observation]:
        """Measure every step. MeasurementError: the proxy ended, or something never happened."""
        size = self.cluster.size
        last = self._address(f"s{size.services - 1}")
        with contextlib.ExitStack() as stack:
            look = stack.enter_context(Look(self.node, self.mode, self.cluster.patience_s))
            with self._proxy() as process:
                self._await_start(process, look, last, "start")
                self._add_endpoints(process, look)
                for number in range(ADDED):
                    self._add_service(process, look, f"x{number}")
            if self.command.ours:
                with self._proxy() as process:
                    self._await_log(process, "restart")
            # Whatever it finds right: when one more service works, all have been looked at.
            address = self._create_service("late")
            with self._proxy() as process:
                step = "restart-changed" if self.command.ours else "restart"
                self._await_start(process, look, address, step)
        return self._found

    def program(self) -> None:
        """Let our proxy write its rules, and kill it: the rules stay."""
        with self._proxy() as process:
            self._await_log(process, "start")

    @contextlib.contextmanager
    def _proxy(self) -> Iterator[Process]:
        """Start the proxy; kill it with SIGKILL in the end."""
        directory = self.cluster.directory
        values = {
            "kubeconfig": str(self.cluster.kubeconfig),
            "mode": self.mode,
            "node": NODE,
            "config": str(_configuration(directory, self.mode, self.cluster.kubeconfig)),
        }
        self._started += 1
        log = directory / f"{self.label}-{self._started}.log"
        self._cpu = 0.0
        self._begin = time.monotonic_ns()
        process = self.node.spawn(self.command.argv(**values), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill(group=True)
            process.wait(PATIENCE_S)

    def _await_start(self, process: Process, look: Look, service: IPv4Address, step: str) -> None:
        seen = look.wait_service(service, TCP.port, alive=lambda: self._alive(process))
        if step == "start" and self.command.ours:
            self._await_log(process, step)
            return
        self._note(process, step, seen - self._begin, SEEN_KERNEL, look=look.cost_seconds)

    def _await_log(self, process: Process, step: str) -> None:
        source = f"{self.label}-{self._started}"
        event = self.cluster.await_event(source, "synced", self._begin)
        passed = event.mono_ns - self._begin
        self._note(process, step, passed, SEEN_LOG, writes=event.fields["writes"])

    def _add_endpoints(self, process: Process, look: Look) -> None:
        size = self.cluster.size
        for change in range(1, min(CHANGES, size.services) + 1):
            number = (change - 1) * size.services // CHANGES if size.services > CHANGES else 0
            time.sleep(PAUSE_S)
            self._cpu_passed(process)
            name, address = f"s{number}", benchcluster.unused_pod(size, self._next_pod())
            listed = benchcluster.endpoints(size, number)
            listed.append({**listed[0], "addresses": [str(address)]} if listed else _one(address))
            look.expect(service_key(self._address(name), TCP.port), address)
            begin = self.cluster.change_slice(name, listed)
            seen = look.wait_endpoint()
            self._note(process, "endpoint", seen - begin, SEEN_KERNEL, look=look.cost_seconds)

    def _add_service(self, process: Process, look: Look, name: str) -> None:
        time.sleep(PAUSE_S)
        self._cpu_passed(process)
        begin = time.monotonic_ns()
        address = self._create_service(name)
        seen = look.wait_service(address, TCP.port, alive=lambda: self._alive(process))
        self._note(process, "service", seen - begin, SEEN_KERNEL, look=look.cost_seconds)

    def _create_service(self, name: str) -> IPv4Address:
        """Create a service whose endpoint is there already; return its address."""
        name = f"{self.label}-{name}"
        listed = [_one(benchcluster.unused_pod(self.cluster.size, self._next_pod()))]
        self.cluster.create(
            kinds.ENDPOINT_SLICE, benchcluster.slice_of(name, listed, self.cluster.ports)
        )
        made = self.cluster.create(kinds.SERVICE, benchcluster.service(name, self.cluster.ports))
        return IPv4Address(made["spec"]["clusterIP"])

    def _address(self, name: str) -> IPv4Address:
        return IPv4Address(self.cluster.get(kinds.SERVICE, name)["spec"]["clusterIP"])

    def _next_pod(self) -> int:
        self.cluster.pods_added += 1
        return self.cluster.pods_added

    def _alive(self, process: Process) -> None:
        if not process.alive:
            log = self.cluster.directory / f"{self.label}-{self._started}.log"
            words = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise MeasurementError(f"{self.command.name} has ended: {' / '.join(words)}")

    def _note(
        self,
        process: Process,
        step: str,
        passed_ns: int,
        seen: str,
        *,
        look: float = 0.0,
        writes: int | None = None,
    ) -> None:
        self._alive(process)
        self._found.append(
            Observation(
                step=step,
                seconds=passed_ns / 1e9,
                seen=seen,
                rss_mb=_rss_mb(process),
                cpu_seconds=self._cpu_passed(process),
                writes=writes,
                look_seconds=look,
            )
        )

    def _cpu_passed(self, process: Process) -> float:
        """Return the CPU time since the last call."""
        times = psutil.Process(process.pid).cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        passed, self._cpu = total - self._cpu, total
        return float(passed)


def _one(address: IPv4Address) -> dict[str, object]:
    return {"addresses": [str(address)], "conditions": {"ready": True}, "nodeName": "another"}


def _rss_mb(process: Process) -> float:
    """Return the memory of the process and of the programs that it has running."""
    whole = psutil.Process(process.pid)
    found = 0
    for one in (whole, *whole.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += one.memory_info().rss
    return found / 1e6


def _configuration(directory: Path, mode: str, kubeconfig: Path) -> Path:
    """Write what both proxies are configured by; return its path.

    Every change is synced at once (1 ms is the shortest that means that to both), conntrack's
    sizes are left alone.
    """
    path = directory / f"{mode}.conf"
    period = {"minSyncPeriod": "1ms"}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": mode,
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "hostnameOverride": NODE,
                "clusterCIDR": CLUSTER_CIDR,
                "conntrack": {"maxPerCore": 0, "min": 0},
                "iptables": period,
                "ipvs": period,
                "nftables": period,
            }
        )
    )
    return path
