"""Measures what a node's rules cost the first packet of a connection, and the connection.

A client connects to the first service, to the last, and past all services to a pod, one after the
other in changing order, over a node whose rules our proxy wrote before it was killed; and, in the
same turn, to a pod over a node on which no proxy has ever run: the peer
(:mod:`kproxy.lab.benchlab`). All sockets belong to one thread, so nobody has to be woken: the
kernel carries a packet through all namespaces before the system call that sent it returns.

* ``connect``: how long ``connect`` takes: three packets on the path;
* ``first-packet``: from before ``connect`` until the first packet comes out of the node towards
  the pods, by the kernel's own time stamp there.
"""

import contextlib
import gc
import math
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from kproxy.api import kinds
from kproxy.errors import KproxyError, MeasurementError
from kproxy.lab import benchlab, syncbench_proxy
from kproxy.lab.benchcluster import TCP, Cluster, Size
from netns.errors import NetnsError
from netns.host import LiveHost
from netns.lab import Lab

WARM_UP = 50
SEED = 1
TIMEOUT_S = 5.0
CONNECT, FIRST_PACKET = "connect", "first-packet"
FIRST, LAST, POD, NO_PROXY = "first service", "last service", "pod", "pod, no proxy"

_SO_TIMESTAMPNS = 35
_ETH_P_IP = 0x0800
_ETH_HEADER = 14
_TIMESPEC = struct.Struct("@ll")
_LINGER_NOT = struct.pack("ii", 1, 0)
_SYN, _FLAGS = 0x02, 13
_READ_SIZE = 2048


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds over ``n`` connections; ``seconds`` is the median.

    ``endpoints`` is of each service. ``ratio`` is of the medians.
    """

    mode: str
    services: int
    endpoints: int
    step: str
    target: str
    n: int
    seconds: float
    p99_seconds: float
    peer: str
    peer_seconds: float
    peer_p99_seconds: float
    ratio: float
    kernel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """To what is connected, and at which interface of ``pods`` its packets arrive."""

    name: str
    address: IPv4Address
    port: int
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure: ``samples`` connections to each target."""

    modes: tuple[str, ...]
    sizes: tuple[Size, ...]
    samples: int


Samples = dict[tuple[str, str], list[float]]
"""Seconds by target and step."""


def measure(
    plan: Plan, state_dir: Path, kernel: str, progress: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """Measure modes that this kernel has; return rows, and what could not be measured."""
    rows: list[Row] = []
    failures: list[str] = []
    with Lab(benchlab.topology(client=True), name="kproxy-path", state_dir=state_dir) as lab:
        for number, size in enumerate(plan.sizes):
            progress(f"{size}: filling an API server")
            with benchlab.cluster(lab, number, size) as cluster:
                for mode in plan.modes:
                    progress(f"{size}, {mode}: writing rules, connecting")
                    try:
                        found = _one(lab, cluster, mode, plan.samples)
                    except (KproxyError, NetnsError) as error:
                        failures.append(f"{size}, {mode}: {error}")
                        progress(f"FAILED: {failures[-1]}")
                    else:
                        rows += _rows(mode, size, kernel, found)
    return rows, failures


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _rows(mode: str, size: Size, kernel: str, found: Samples) -> Iterator[Row]:
    for (target, step), values in found.items():
        if target == NO_PROXY:
            continue
        peer = found[NO_PROXY, step]
        seconds, peer_seconds = percentile(values, 50), percentile(peer, 50)
        yield Row(
            mode=mode,
            services=size.services,
            endpoints=size.each,
            step=step,
            target=target,
            n=len(values),
            seconds=seconds,
            p99_seconds=percentile(values, 99),
            peer=NO_PROXY,
            peer_seconds=peer_seconds,
            peer_p99_seconds=percentile(peer, 99),
            ratio=seconds / peer_seconds,
            kernel=kernel,
        )


def _one(lab: Lab, cluster: Cluster, mode: str, samples: int) -> Samples:
    """Measure one mode at one size."""
    with benchlab.fresh_node(lab, client=True) as node:
        command = syncbench_proxy.ours()
        syncbench_proxy.Run(cluster, node, mode, command, f"path-{mode}").program()
        targets = _targets(cluster)
        with Wire(lab[benchlab.PODS], lab[benchlab.CLIENT], targets) as wire:
            return wire.measure(samples)


def _targets(cluster: Cluster) -> list[Target]:
    size = cluster.size

    def service(name: str, number: int) -> Target:
        spec = cluster.get(kinds.SERVICE, f"s{number}")["spec"]
        address = IPv4Address(spec["clusterIP"])
        return Target(name=name, address=address, port=TCP.port, interface=_BY_NODE)

    return [
        service(FIRST, 0),
        service(LAST, size.services - 1),
        Target(name=POD, address=benchlab.FREE_POD, port=TCP.target, interface=_BY_NODE),
        Target(name=NO_PROXY, address=benchlab.BARE_POD, port=TCP.target, interface=_BY_BARE),
    ]


_BY_NODE, _BY_BARE = f"to-{benchlab.NODE}", f"to-{benchlab.BARE}"


class Wire:
    """Connects from the client, and sees the packets arrive. A context manager; one thread."""

    def __init__(self, pods: LiveHost, client: LiveHost, targets: Sequence[Target]) -> None:
        self._client = client
        self._targets = targets
        self._listening = benchlab.listening(pods)
        self._listening.settimeout(TIMEOUT_S)
        interfaces = {target.interface for target in targets}
        with pods.entered():
            self._taps: Mapping[str, socket.socket] = {name: _tap(name) for name in interfaces}

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (self._listening, *self._taps.values()):
            sock.close()

    def measure(self, samples: int) -> Samples:
        """Connect to every target in turn, so often. MeasurementError: a target is silent."""
        found: Samples = {
            (target.name, step): [] for target in self._targets for step in (CONNECT, FIRST_PACKET)
        }
        # What comes after what matters to the CPU's caches, so no target has a fixed place.
        order, lots = list(self._targets), random.Random(SEED)  # noqa: S311  no secret
        with self._client.entered(), _collector_off():
            for number in range(WARM_UP + samples):
                lots.shuffle(order)
                for target in order:
                    connect, first = self._connect(target)
                    if number >= WARM_UP:
                        found[target.name, CONNECT].append(connect)
                        found[target.name, FIRST_PACKET].append(first)
        return found

    def _connect(self, target: Target) -> tuple[float, float]:
        tap = self._taps[target.interface]
        _drain(tap)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            # Ends by a reset: nothing stays behind, and no port is used up.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            sock.settimeout(TIMEOUT_S)
            place = (str(target.address), target.port)
            sent = time.time_ns()
            begin = time.monotonic_ns()
            try:
                sock.connect(place)
            except OSError as error:
                raise MeasurementError(f"{target.name}: {place[0]}:{place[1]}: {error}") from None
            connected = time.monotonic_ns() - begin
            self._listening.accept()[0].close()
        return connected / 1e9, (_first_syn(tap, target) - sent) / 1e9


def _tap(interface: str) -> socket.socket:
    """Return a socket that sees what comes in by an interface, with the kernel's time."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.bind((interface, _ETH_P_IP))
    return sock


def _drain(tap: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            tap.recv(_READ_SIZE)


def _first_syn(tap: socket.socket, target: Target) -> int:
    """Return when a connection's first packet arrived (nanoseconds since the epoch)."""
    try:
        while True:
            frame, control, _flags, origin = tap.recvmsg(_READ_SIZE, 64)
            if origin[2] == socket.PACKET_OUTGOING or not _is_syn(frame):
                continue
            for _level, kind, data in control:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = _TIMESPEC.unpack(data)
                    return int(seconds) * 1_000_000_000 + int(nanoseconds)
    except BlockingIOError:
        raise MeasurementError(f"{target.name}: its first packet was not seen") from None


def _is_syn(frame: bytes) -> bool:
    header = (frame[_ETH_HEADER] & 0xF) * 4
    protocol = frame[_ETH_HEADER + 9]
    return protocol == socket.IPPROTO_TCP and frame[_ETH_HEADER + header + _FLAGS] == _SYN


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
