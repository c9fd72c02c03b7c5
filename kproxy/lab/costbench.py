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
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy import costs
from kproxy.errors import MeasurementError, Unsupported
from kproxy.kernel.iptables.client import Iptables
from kproxy.lab import costcontrol, costmodel, modes
from kproxy.lab.benchcluster import (
    CLUSTER_CIDR,
    FIRST_PORT,
    PATIENCE_S,
    Cluster,
    Server,
    Size,
)
from kproxy.lab.costfit import Sample
from kproxy.lab.eventlog import Event
from netns.host import LiveHost
from netns.lab import Lab
from netns.topology import Host, Topology

HOST = "node"
SYNC_PLACES = (costs.SYNC_FULL, costs.SYNC_ADOPT, costs.SYNC_PARTIAL)
PLACES = (costs.START, costs.LIST, *SYNC_PLACES)


SIZES = (Size(1, 2), Size(100, 2), Size(100, 10), Size(1000, 10))
LARGE = Size(10_000, 10)


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
        with Cluster(Server(host=host, port=FIRST_PORT + len(sizes)), files / "control") as bare:
            samples += costcontrol.measure(host, files / "manager", bare.kubeconfig, runs)
        with contextlib.ExitStack() as stack:
            clusters = []
            for number, size in enumerate(sizes):
                progress(f"{size}: filling an API server")
                server = Server(host=host, port=FIRST_PORT + number)
                made = Cluster(server, files / f"size{number}", size)
                clusters.append(stack.enter_context(made))
            for run in range(runs + 1):
                for cluster, mode in itertools.product(clusters, modes):
                    progress(f"run {run} of {runs}: {cluster.size}, {mode}")
                    found = _Run(cluster, mode, run).samples()
                    samples += found if run else []
    return samples


class _Run:
    """One proxy in an empty kernel, a change, and its successor in a kernel that is right."""

    def __init__(self, cluster: Cluster, mode: str, number: int) -> None:
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
                    "clusterCIDR": CLUSTER_CIDR,
                    "conntrack": {"maxPerCore": 0, "min": 0},
                    **dict.fromkeys(modes.MODES, period),
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
