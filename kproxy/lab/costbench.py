"""Measures what the node proxy's work really takes: real processes, real kernel, real time.

In a network namespace of its own runs the project's API server, filled with generated Services
and EndpointSlices. The real proxy is started against it, killed and started again, and what it
says in its log, on the clock that all share, gives the durations:

* ``start``: from before its process is made to ``started``;
* ``list``: from there to ``listed``;
* ``sync-full``: from there to the first ``synced``, in a kernel that held nothing of ours;
* ``sync-adopt``: the same in a kernel that is right already (what is left of reading it, which
  goes on beside the list, is in it);
* ``sync-partial``: the duration in ``synced`` after one endpoint was replaced by another.

The services are UDP, so that reading the table of tracked flows is in every sync, as it is when a
pod behind a UDP service ends. What the control plane takes is measured in
:mod:`kproxy.lab.costcontrol`.

One run of each size comes before those that count: it fills the caches of compiled code. Sizes and
modes take turns run by run, so that whatever drifts (the machine's load) meets all of them alike.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from kproxy import costs
from kproxy.api import kinds
from kproxy.backends import base
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import Object, ObjectClient
from kproxy.client.rest import Rest
from kproxy.desired.model import Family
from kproxy.errors import KproxyError, MeasurementError, Unsupported
from kproxy.kernel.iptables.client import Iptables
from kproxy.lab import costcontrol, costmodel
from kproxy.lab.costfit import Sample
from kproxy.lab.eventlog import Event, EventLog
from netns.host import LiveHost
from netns.lab import Lab
from netns.topology import Host, Topology

HOST = "node"
NAMESPACE = "costs"
FIRST_POD = IPv4Address("10.128.0.1")
FIRST_PORT = 6443
PATIENCE_S = 300.0
SYNC_PLACES = (costs.SYNC_FULL, costs.SYNC_ADOPT, costs.SYNC_PARTIAL)
PLACES = (costs.START, costs.LIST, *SYNC_PLACES)


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """So many services with so many endpoints each."""

    services: int
    each: int

    @property
    def endpoints(self) -> int:
        """Return the number of endpoints of all services together."""
        return self.services * self.each

    def __str__(self) -> str:
        return f"{self.services} × {self.each}"


SIZES = (Size(1, 2), Size(100, 2), Size(100, 10), Size(1000, 10))
LARGE = Size(10_000, 10)


def objects(size: Size) -> Iterator[tuple[kinds.Kind, Object]]:
    """Yield the Services and EndpointSlices of a cluster of that size."""
    for number in range(size.services):
        name = f"s{number}"
        ports = [{"name": "p", "port": 53, "protocol": "UDP"}]
        yield (
            kinds.SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"namespace": NAMESPACE, "name": name},
                "spec": {"ports": ports, "selector": {"app": name}},
            },
        )
        yield kinds.ENDPOINT_SLICE, _slice(name, _endpoints(size, number))


def _slice(name: str, endpoints: list[Object]) -> Object:
    labels = {"kubernetes.io/service-name": name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": NAMESPACE, "name": f"{name}-a", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "p", "port": 5353, "protocol": "UDP"}],
    }


def _endpoints(size: Size, number: int, *, shift: int = 0) -> list[Object]:
    """Return the endpoints of a service; with a ``shift`` the first has an unused address."""
    first = FIRST_POD + number * size.each
    addresses = [first + at for at in range(size.each)]
    if shift:
        addresses[0] = FIRST_POD + size.endpoints + shift
    ready = {"ready": True}
    return [
        {"addresses": [str(one)], "conditions": ready, "nodeName": "another"} for one in addresses
    ]


def unsupported(mode: str) -> str | None:
    """Return None, or why the kernel of the current namespace cannot do this mode."""
    try:
        backend = base.loader(mode)(Family.IPV4, base.Options())
    except Unsupported as error:
        return str(error)
    try:
        return backend.supported()
    except KproxyError as error:
        return str(error)
    finally:
        backend.close()


def tools() -> str:
    """Return which variant of iptables the modes use on this kernel."""
    try:
        return f"iptables-{Iptables().tools().variant}"
    except Unsupported:
        return ""


def measure(
    modes: Sequence[str],
    sizes: Sequence[Size],
    runs: int,
    state_dir: Path,
    progress: Callable[[str], None],
) -> list[Sample]:
    """Measure modes which this kernel has. Raises MeasurementError if something goes wrong."""
    costmodel.apply(None)  # what is measured must not be lengthened by what was
    samples: list[Sample] = []
    topology = Topology(hosts=(Host(name=HOST),))
    with Lab(topology, name="kproxy-costs", state_dir=state_dir) as lab:
        host, files = lab.host(HOST), lab.scratch
        progress("start of pods")
        samples += _responder(host, runs)
        progress("a pod's end in the control plane")
        with _Cluster(host, files / "control", FIRST_PORT + len(sizes)) as bare:
            samples += costcontrol.measure(host, files / "manager", bare.kubeconfig, runs)
        with contextlib.ExitStack() as stack:
            clusters = []
            for number, size in enumerate(sizes):
                progress(f"{size}: filling an API server")
                made = _Cluster(host, files / f"size{number}", FIRST_PORT + number, size)
                clusters.append(stack.enter_context(made))
            for run in range(runs + 1):
                for cluster, mode in itertools.product(clusters, modes):
                    progress(f"run {run} of {runs}: {cluster.size}, {mode}")
                    found = _Run(cluster, mode, run).samples()
                    samples += found if run else []
    return samples


class _Cluster:
    """An API server with the objects of one size, or with none."""

    def __init__(
        self, host: LiveHost, directory: Path, port: int, size: Size = Size(0, 0)
    ) -> None:
        self.host = host
        self.size = size
        directory.mkdir()
        self.events = EventLog(directory)
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self._shift = 0
        address = f"127.0.0.1:{port}"
        cluster = {"name": "x", "cluster": {"server": f"http://{address}"}}
        context = {"name": "x", "context": {"cluster": "x", "user": ""}}
        config = {"current-context": "x", "clusters": [cluster], "contexts": [context]}
        self.kubeconfig.write_text(json.dumps(config))
        command = (sys.executable, "-m", "kproxy.controlplane.apiserver", "--bind", address)
        log = directory / "apiserver.log"
        self._server = host.spawn(command, stdout=log, stderr=log)
        self.await_event("apiserver", "listening")
        self._rest = Rest(load_kubeconfig(self.kubeconfig), agent="kproxy-bench")
        self._api = ObjectClient(self._rest)

    def __enter__(self) -> "_Cluster":
        if self.size.services:
            self.host.call(self._fill)
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.terminate()
        self._server.wait(PATIENCE_S)
        self._rest.close()
        self.events.close()

    def _fill(self) -> None:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self._api.create(kinds.NAMESPACE, space)
        for kind, obj in objects(self.size):
            self._api.create(kind, obj)

    def replace_endpoint(self) -> int:
        """Give the first service another endpoint; return when."""
        self._shift += 1
        changed = {"endpoints": _endpoints(self.size, 0, shift=self._shift)}
        now = time.monotonic_ns()
        self.host.call(self._api.patch, kinds.ENDPOINT_SLICE, NAMESPACE, "s0-a", changed)
        return now

    def await_event(self, source: str, msg: str, since: int = 0) -> Event:
        """Wait for what a process logs."""

        def accept(event: Event) -> bool:
            return event.source == source and event.msg in (msg, "sync failed")

        why = f"{source} to say {msg!r}"
        event = self.events.wait(accept, why=why, timeout=PATIENCE_S, since_ns=since)
        if event.msg != msg:
            raise MeasurementError(f"{source}: {event.msg}: {event.fields}")
        return event


class _Run:
    """One proxy in an empty kernel, a change, and its successor in a kernel that is right."""

    def __init__(self, cluster: _Cluster, mode: str, number: int) -> None:
        self._cluster = cluster
        self._mode = mode
        self._name = f"{mode}-{number}"
        config = cluster.directory / f"{mode}.conf"
        period = {"minSyncPeriod": "10ms"}
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                    "kind": "KubeProxyConfiguration",
                    "clusterCIDR": "10.128.0.0/9",
                    "conntrack": {"maxPerCore": 0, "min": 0},
                    "iptables": period,
                    "ipvs": period,
                }
            )
        )
        self._proxy = (sys.executable, "-m", "kproxy", "proxy")
        self._options = (
            *("--proxy-mode", mode, "--config", str(config)),
            *("--kubeconfig", str(cluster.kubeconfig), "--hostname-override", "node1"),
        )

    def samples(self) -> list[Sample]:
        """Measure everything once. Leaves the kernel empty."""
        found = self._restart("first", costs.SYNC_FULL, change=True)
        found += self._restart("second", costs.SYNC_ADOPT, change=False)
        self._cluster.host.run([*self._proxy, "--cleanup"], timeout=PATIENCE_S)
        return found

    def _restart(self, which: str, place: str, *, change: bool) -> list[Sample]:
        cluster, source = self._cluster, f"{self._name}-{which}"
        log = cluster.directory / f"{source}.log"
        begin = time.monotonic_ns()
        process = cluster.host.spawn((*self._proxy, *self._options), stdout=log, stderr=log)
        try:
            times = [begin]
            for msg in ("started", "listed", "synced"):
                event = cluster.await_event(source, msg, begin)
                times.append(event.mono_ns)
            self._check(event, place)
            found = [
                self._sample(name, (until - since) / 1e9)
                for name, since, until in zip(
                    (costs.START, costs.LIST, place), times, times[1:], strict=False
                )
            ]
            if change:
                since = cluster.replace_endpoint()
                synced = cluster.await_event(source, "synced", since)
                self._check(synced, costs.SYNC_PARTIAL)
                seconds = synced.fields["duration_ms"] / 1e3
                found.append(self._sample(costs.SYNC_PARTIAL, seconds))
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        return found

    def _check(self, synced: Event, place: str) -> None:
        """Raise MeasurementError unless this sync was of the kind that is measured."""
        fields, size = synced.fields, self._cluster.size
        have = (fields["services"], fields["endpoints"])
        kind = costs.sync_places(
            first=fields["first"], writes=fields["writes"], objects=size.services + size.endpoints
        )
        # The API server has a service of its own.
        if place not in kind or have[0] < size.services or have[1] < size.endpoints:
            raise MeasurementError(f"{size}, {self._mode}: no {place}: {fields}")

    def _sample(self, place: str, seconds: float) -> Sample:
        size = self._cluster.size
        sized = place != costs.START
        return Sample(
            process=costs.PROXY,
            place=place,
            mode=self._mode if place in SYNC_PLACES else "",
            services=size.services if sized else 0,
            endpoints=size.endpoints if sized else 0,
            seconds=seconds,
        )


def _responder(host: LiveHost, runs: int) -> list[Sample]:
    """Measure how long a pod's program takes until it serves."""
    command = (sys.executable, "-m", "kproxy.traffic.responder", "--udp", "5353", "--tcp", "8080")
    found = []
    for run in range(runs + 1):
        begin = time.monotonic()
        process = host.spawn(command, stdout=subprocess.PIPE)
        try:
            assert process.popen is not None
            assert process.popen.stdout is not None
            with process.popen.stdout as stream:
                ready = stream.readline()
            seconds = time.monotonic() - begin
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        if b"ready" not in ready:
            raise MeasurementError("the responder did not start")
        if run:
            found.append(
                Sample(
                    process=costs.RESPONDER,
                    place=costs.START,
                    mode="",
                    services=0,
                    endpoints=0,
                    seconds=seconds,
                )
            )
    return found
