"""A cluster to measure a node proxy on: an API server in a lab, filled with generated objects.

Sizes and objects are alike for every bench, so that their figures can be compared. No endpoint
serves two services. The API server is the project's own, a process in a host of the lab.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from kproxy.api import kinds
from kproxy.client.kubeconfig import load_kubeconfig
from kproxy.client.objects import Object, ObjectClient
from kproxy.client.rest import Rest
from kproxy.errors import MeasurementError
from kproxy.lab.eventlog import Event, EventLog
from netns.host import LiveHost

NAMESPACE = "bench"
FIRST_POD = IPv4Address("10.128.0.1")
CLUSTER_CIDR = "10.128.0.0/9"
FIRST_PORT = 6443
PATIENCE_S = 300.0
PATIENCE_FOR_EACH_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What every service offers: a port, and the one behind it at its endpoints."""

    protocol: str
    port: int
    target: int


UDP = Ports(protocol="UDP", port=53, target=5353)
TCP = Ports(protocol="TCP", port=80, target=8080)


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


def objects(size: Size, ports: Ports = UDP) -> Iterator[tuple[kinds.Kind, Object]]:
    """Yield the Services and EndpointSlices of a cluster of that size."""
    for number in range(size.services):
        yield kinds.SERVICE, service(f"s{number}", ports)
        yield kinds.ENDPOINT_SLICE, slice_of(f"s{number}", endpoints(size, number), ports)


def service(name: str, ports: Ports) -> Object:
    """Return a Service; the API server gives it an address."""
    offered = [{"name": "p", "port": ports.port, "protocol": ports.protocol}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {"ports": offered, "selector": {"app": name}},
    }


def slice_of(name: str, listed: list[Object], ports: Ports) -> Object:
    """Return the EndpointSlice of a service."""
    labels = {"kubernetes.io/service-name": name}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": NAMESPACE, "name": f"{name}-a", "labels": labels},
        "addressType": "IPv4",
        "endpoints": listed,
        "ports": [{"name": "p", "port": ports.target, "protocol": ports.protocol}],
    }


def endpoints(size: Size, number: int, *, shift: int = 0) -> list[Object]:
    """Return the endpoints of a service; with a ``shift`` the first has an unused address."""
    addresses = [pod(size, number, at) for at in range(size.each)]
    if shift:
        addresses[0] = unused_pod(size, shift)
    ready = {"ready": True}
    return [
        {"addresses": [str(one)], "conditions": ready, "nodeName": "another"} for one in addresses
    ]


def pod(size: Size, number: int, at: int = 0) -> IPv4Address:
    """Return the address of an endpoint of a service, as :func:`endpoints` gives it."""
    return FIRST_POD + number * size.each + at


def unused_pod(size: Size, number: int) -> IPv4Address:
    """Return an address that no service's endpoints have at first; the first has number 1."""
    return FIRST_POD + size.endpoints + number


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the API server is to listen."""

    host: LiveHost
    address: str = "127.0.0.1"
    port: int = 6443


class Cluster:
    """An API server with the objects of one size, or with none.

    MeasurementError from the methods if something does not happen in :attr:`patience_s`.
    """

    def __init__(
        self, server: Server, directory: Path, size: Size = Size(0, 0), ports: Ports = UDP
    ) -> None:
        self.host = server.host
        self.size = size
        self.ports = ports
        directory.mkdir()
        self.events = EventLog(directory)
        self.directory = directory
        self.pods_added = 0
        """How many addresses of :func:`unused_pod` are in use."""
        self.kubeconfig = directory / "kubeconfig"
        bind = f"{server.address}:{server.port}"
        cluster = {"name": "x", "cluster": {"server": f"http://{bind}"}}
        user = {"name": "x", "user": {}}
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": [cluster],
            "users": [user],
            "contexts": [context],
        }
        self.kubeconfig.write_text(json.dumps(config))
        module = "kproxy.controlplane.apiserver"
        command = (sys.executable, "-m", module, "--insecure", "--bind", bind)
        log = directory / "apiserver.log"
        self._server = self.host.spawn(command, stdout=log, stderr=log)
        self.await_event("apiserver", "listening")
        self._rest = Rest(load_kubeconfig(self.kubeconfig), agent="kproxy-bench")
        self.api = ObjectClient(self._rest)

    def __enter__(self) -> "Cluster":
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
        self.api.create(kinds.NAMESPACE, space)
        for kind, obj in objects(self.size, self.ports):
            self.api.create(kind, obj)

    def create(self, kind: kinds.Kind, obj: Object) -> Object:
        """Create an object; return it as the server keeps it."""
        return self.host.call(self.api.create, kind, obj)

    def get(self, kind: kinds.Kind, name: str) -> Object:
        """Return an object of the bench. MeasurementError: there is none."""
        found = self.host.call(self.api.get, kind, NAMESPACE, name)
        if found is None:
            raise MeasurementError(f"the API server has lost {kind.label(NAMESPACE, name)}")
        return found

    def replace_endpoint(self) -> int:
        """Give the first service another endpoint instead of its first; return when."""
        self.pods_added += 1
        changed = endpoints(self.size, 0, shift=self.pods_added)
        return self.change_slice("s0", changed)

    def change_slice(self, name: str, listed: list[Object]) -> int:
        """Give a service these endpoints; return when the server was asked to."""
        changed = {"endpoints": listed}
        now = time.monotonic_ns()
        self.host.call(self.api.patch, kinds.ENDPOINT_SLICE, NAMESPACE, f"{name}-a", changed)
        return now

    @property
    def patience_s(self) -> float:
        """Return for how long a sync of everything is waited for: tools may take minutes."""
        return PATIENCE_S + PATIENCE_FOR_EACH_S * self.size.services

    def await_event(self, source: str, msg: str, since: int = 0) -> Event:
        """Wait for what a process logs."""

        def accept(event: Event) -> bool:
            return event.source == source and event.msg in (msg, "sync failed")

        why = f"{source} to say {msg!r}"
        event = self.events.wait(accept, why=why, timeout=self.patience_s, since_ns=since)
        if event.msg != msg:
            raise MeasurementError(f"{source}: {event.msg}: {event.fields}")
        return event
