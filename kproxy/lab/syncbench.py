"""Measures how fast a node proxy programs a kernel, beside peers in the same kernel and run.

For every size there is a cluster (:mod:`kproxy.lab.benchlab`), and a node made anew for each run.
Two processes measure there, one after the other: :mod:`kproxy.lab.syncbench_program` (programming
alone, and the peers) and the proxy itself (:mod:`kproxy.lab.syncbench_proxy`). Modes and proxies
take turns run by run, so that what drifts meets all of them alike.

Steps of a :class:`Row`:

* ``cold``: from the finished State to the last acknowledgement, in an empty kernel;
* ``noop``: a sync in which nothing has changed;
* ``resync``: the same after reading the kernel anew;
* ``start``: from before the process is made to synced, in an empty kernel;
* ``endpoint``, ``service``: from the request to the API server until it is in the kernel;
* ``restart``: SIGKILL, started again, until synced; nothing has changed, nothing is written;
* ``restart-changed``: the same, but one service was added meanwhile; until that works. Of a proxy
  whose log we cannot read this is ``restart``: the kernel tells no other end.
"""

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import kproxy
from kproxy.errors import KproxyError, MeasurementError
from kproxy.lab import benchlab, syncbench_proxy
from kproxy.lab.benchcluster import PATIENCE_S, Cluster, Size
from kproxy.lab.syncbench_peers import Peer
from kproxy.lab.syncbench_program import Programming
from kproxy.lab.syncbench_proxy import Observation, ProxyCommand
from netns.errors import NetnsError
from netns.host import LiveHost
from netns.kernels import bytecode
from netns.lab import Lab

PACKAGE = Path(kproxy.__file__).parent
INTERPRETERS = 3
PROGRAM_TIMEOUT_S = 3600.0

SEEN_CALL = "return of the call"
START_PEER = "interpreter start + list and decode + "
IDLE_STEPS = ("noop", "resync", "restart")
"""Steps in which nothing has changed, so that nothing should be written."""

STEPS = (
    *("cold", "noop", "resync", "start", "endpoint", "service", "restart", "restart-changed"),
)


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One figure beside one peer; all durations in seconds, medians over ``n`` samples.

    ``endpoints`` is of each service. ``ratio`` is ``seconds`` divided by ``peer_seconds``.
    ``writes`` and ``rss_mb`` are the most of all samples.
    """

    proxy: str
    mode: str
    services: int
    endpoints: int
    step: str
    seconds: float
    seconds_min: float
    seconds_max: float
    n: int
    peer: str | None
    peer_seconds: float | None
    ratio: float | None
    rss_mb: float
    cpu_seconds: float
    writes: int | None
    seen: str
    look_ms: float
    kernel: str


@dataclass(slots=True)
class _Figures:
    """What was measured of one proxy in one mode at one size."""

    observations: dict[str, list[Observation]] = field(default_factory=dict)

    def add(self, found: Sequence[Observation]) -> None:
        """Take what one run gave."""
        for one in found:
            self.observations.setdefault(one.step, []).append(one)


@dataclass(slots=True)
class _Peers:
    """What was measured beside, in one mode at one size."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """By step and name."""
    lists: list[float] = field(default_factory=list)
    interpreters: list[float] = field(default_factory=list)

    def add(self, found: Programming) -> None:
        """Take what one run gave."""
        self.lists.append(found.list_seconds)
        for step, peers in found.peers.items():
            for peer in peers:
                self.seconds.setdefault((step, peer.name), []).extend(peer.seconds)

    def of(self, step: str) -> list[Peer]:
        """Return the peers of a step, the most telling one first."""
        base = {"start": "cold", "restart": "resync", "restart-changed": "resync"}.get(step, step)
        found = [
            Peer(name=name, seconds=taken)
            for (at, name), taken in self.seconds.items()
            if at == base
        ]
        if base == step:
            return found
        before = statistics.median(self.interpreters) + statistics.median(self.lists)
        return [
            Peer(name=START_PEER + peer.name, seconds=[before + one for one in peer.seconds])
            for peer in found
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    modes: tuple[str, ...]
    sizes: tuple[Size, ...]
    commands: tuple[ProxyCommand, ...]
    runs: int


def measure(
    plan: Plan, state_dir: Path, kernel: str, progress: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """Measure modes that this kernel has; return rows, and what could not be measured."""
    # As after an installation: otherwise every start would compile what it imports.
    bytecode.compile_packages([PACKAGE])
    with (
        Lab(benchlab.topology(), name="kproxy-sync", state_dir=state_dir) as lab,
        benchlab.answering(lab[benchlab.PODS]),
    ):
        bench = _Bench(lab, plan, progress)
        for number, size in enumerate(plan.sizes):
            progress(f"{size}: filling an API server")
            with benchlab.cluster(lab, number, size) as cluster:
                for run, mode in itertools.product(range(plan.runs), plan.modes):
                    bench.run(cluster, mode, run)
    return list(bench.rows(kernel)), bench.failures


@dataclass(slots=True)
class _Bench:
    """Everything that was measured so far."""

    lab: Lab
    plan: Plan
    progress: Callable[[str], None]
    figures: dict[tuple[str, str, Size], _Figures] = field(default_factory=dict)
    """By proxy, mode and size."""
    failures: list[str] = field(default_factory=list)
    peers: dict[tuple[str, Size], _Peers] = field(default_factory=dict)

    def run(self, cluster: Cluster, mode: str, number: int) -> None:
        """Measure one mode once. What fails is noted: the others go on."""
        told = f"{cluster.size}, {mode}, run {number + 1} of {self.plan.runs}"
        try:
            self.progress(f"{told}: programming, and its peers")
            self._program(cluster, mode)
            for place, command in enumerate(self.plan.commands):
                self.progress(f"{told}: {command.name}")
                self._proxy(cluster, mode, command, f"{mode}-{number}-{place}")
        except (KproxyError, NetnsError) as error:
            self.failures.append(f"{told}: {error}")
            self.progress(f"FAILED: {self.failures[-1]}")

    def _program(self, cluster: Cluster, mode: str) -> None:
        with benchlab.fresh_node(self.lab) as node:
            found = _program(cluster, node, mode)
        self.peers.setdefault((mode, cluster.size), _Peers()).add(found)
        self._add(syncbench_proxy.OURS, mode, cluster.size, _programmed(found))

    def _proxy(self, cluster: Cluster, mode: str, command: ProxyCommand, label: str) -> None:
        self.peers[mode, cluster.size].interpreters += _interpreter(self.lab[benchlab.PODS])
        with benchlab.fresh_node(self.lab) as node:
            observed = syncbench_proxy.Run(cluster, node, mode, command, label).measure()
        self._add(command.name, mode, cluster.size, observed)

    def _add(self, proxy: str, mode: str, size: Size, found: Sequence[Observation]) -> None:
        self.figures.setdefault((proxy, mode, size), _Figures()).add(found)

    def rows(self, kernel: str) -> Iterator[Row]:
        """Yield what came of it."""
        for (proxy, mode, size), found in self.figures.items():
            place = _Place(proxy=proxy, mode=mode, size=size, kernel=kernel)
            for step, observations in found.observations.items():
                yield from _rows(place, step, observations, self.peers[mode, size].of(step))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a row belongs."""

    proxy: str
    mode: str
    size: Size
    kernel: str


def _rows(
    place: _Place, step: str, found: Sequence[Observation], peers: Sequence[Peer]
) -> Iterator[Row]:
    """Yield a row for each peer; one without a peer if there is none."""
    seconds = statistics.median(one.seconds for one in found)
    known: list[tuple[str | None, float | None]] = [
        (peer.name, statistics.median(peer.seconds)) for peer in peers
    ]
    for name, peer_seconds in known or [(None, None)]:
        yield Row(
            proxy=place.proxy,
            mode=place.mode,
            services=place.size.services,
            endpoints=place.size.each,
            step=step,
            seconds=seconds,
            seconds_min=min(one.seconds for one in found),
            seconds_max=max(one.seconds for one in found),
            n=len(found),
            peer=name,
            peer_seconds=peer_seconds,
            ratio=seconds / peer_seconds if peer_seconds else None,
            rss_mb=max(one.rss_mb for one in found),
            cpu_seconds=statistics.median(one.cpu_seconds for one in found),
            writes=max((one.writes for one in found if one.writes is not None), default=None),
            seen=found[-1].seen,
            look_ms=statistics.median(one.look_seconds for one in found) * 1e3,
            kernel=place.kernel,
        )


def _interpreter(host: LiveHost) -> list[float]:
    """Measure how long the interpreter takes to start and end, with nothing to do.

    Just before what is compared with it: a machine's load changes.
    """
    found = []
    for _ in range(INTERPRETERS):
        begin = time.monotonic()
        host.spawn((sys.executable, "-c", "pass")).wait(PATIENCE_S)
        found.append(time.monotonic() - begin)
    return found


def _program(cluster: Cluster, node: LiveHost, mode: str) -> Programming:
    words = ("--mode", mode, "--kubeconfig", str(cluster.kubeconfig))
    command = (sys.executable, "-m", "kproxy.lab.syncbench_program", *words)
    process = node.spawn(command, stdout=subprocess.PIPE)
    assert process.popen is not None
    try:
        out, _none = process.popen.communicate(timeout=PROGRAM_TIMEOUT_S)
    finally:
        process.kill(group=True)
    try:
        return msgspec.json.decode(out, type=Programming)
    except msgspec.MsgspecError:
        said = msgspec.json.decode(out).get("error", "") if out.startswith(b"{") else ""
        raise MeasurementError(f"{mode}, {cluster.size}: {said or 'no answer'}") from None


def _programmed(found: Programming) -> list[Observation]:
    """Return what was measured inside one process, as observations of our proxy."""
    return [
        Observation(
            step=name,
            seconds=seconds,
            seen=SEEN_CALL,
            rss_mb=step.rss_mb,
            cpu_seconds=step.cpu_seconds,
            writes=step.writes,
        )
        for name, step in found.steps.items()
        for seconds in step.seconds
    ]
