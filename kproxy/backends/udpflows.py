"""Forgetting tracked UDP flows that lead to endpoints which no longer serve.

A tracked flow keeps its translation for as long as packets come, whatever the rules say by then.
TCP notices that its peer has gone, UDP goes on for ever. So after a sync those flows are deleted
whose original destination is a place of a UDP service port of ours (ClusterIP, external IP, load
balancer's address, node port) and whose translated destination is not one of its serving
endpoints; their next packet takes a new way. All other flows are left alone: flows to healthy
endpoints must survive every restart.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Set

from kproxy.backends.base import Swept
from kproxy.desired import model
from kproxy.desired.diff import diff
from kproxy.desired.model import NodePorts, ServicePortName, ServiceState, State
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import ConntrackClient, Flow

Place = tuple[str, int]
"""Address, as canonical text, and port."""

_LOCALHOST = "127.0.0.1"


def places(wanted: ServiceState, node_ports: NodePorts) -> set[Place]:
    """Return where clients send to in order to reach a service port."""
    service = wanted.service
    found: set[Place] = {(service.cluster_ip, service.port)}
    for address in (*service.external_ips, *service.load_balancer_vips):
        found.add((address, service.port))
    if service.node_port:
        found.update((address, service.node_port) for address in node_ports.addresses)
        if node_ports.localhost:
            found.add((_LOCALHOST, service.node_port))
    return found


class _Serving:
    """Which endpoints serve at which place, kept up to date at the cost of what changes."""

    def __init__(self, node_ports: NodePorts) -> None:
        self.node_ports = node_ports
        self._services: Mapping[ServicePortName, ServiceState] = {}
        self._udp: dict[ServicePortName, ServiceState] = {}
        self._owners: dict[Place, set[ServicePortName]] = {}

    def update(self, services: Mapping[ServicePortName, ServiceState]) -> set[Place]:
        """Take what is wanted now; return the places at which that makes a difference."""
        if services is self._services:
            return set()
        changes = diff(self._services, services)
        self._services = services
        changed: set[Place] = set()
        for name in (*changes.remove, *changes.change, *changes.add):
            if name.protocol is model.Protocol.UDP:
                changed |= self._replace(name, services.get(name))
        return changed

    def places(self) -> Set[Place]:
        """Return all places of ours."""
        return self._owners.keys()

    def endpoints(self, place: Place) -> Set[Place]:
        """Return the endpoints that serve at a place of ours."""
        return {
            (endpoint.address, endpoint.port)
            for name in self._owners[place]
            for endpoint in self._udp[name].known
        }

    def _replace(self, name: ServicePortName, wanted: ServiceState | None) -> set[Place]:
        changed: set[Place] = set()
        before = self._udp.pop(name, None)
        for place in places(before, self.node_ports) if before is not None else ():
            changed.add(place)
            owners = self._owners[place]
            owners.discard(name)
            if not owners:
                del self._owners[place]
        if wanted is not None:
            self._udp[name] = wanted
            for place in places(wanted, self.node_ports):
                changed.add(place)
                self._owners.setdefault(place, set()).add(name)
        return changed


class StaleFlows:
    """Deletes stale flows of one family; lists the table only when it may hold any.

    ``keep_last``: flows of services without any serving endpoint go on to the one that was removed
    last. kube-proxy does so in iptables and nftables mode; in ipvs mode such flows are refused.
    """

    def __init__(
        self, conntrack: ConntrackClient, family: inet.Family, *, keep_last: bool
    ) -> None:
        self._conntrack = conntrack
        self._family = family
        self._keep_last = keep_last
        self._serving = _Serving(NodePorts())
        self._suspects: set[Place] = set()
        self._suspect_all = True
        self._swept: Swept | None = None

    def take_swept(self) -> Swept | None:
        """Return what the last :meth:`sync` came to; None if it did not look, and from then on."""
        swept, self._swept = self._swept, None
        return swept

    def forget(self) -> None:
        """Look at the table again at the next sync: others may have changed rules meanwhile."""
        self._suspect_all = True

    def sync(self, state: State) -> tuple[int, list[KernelError]]:
        """Delete what is stale now; return how many flows, and what failed (tried again later)."""
        if state.node_ports != self._serving.node_ports:
            self._serving = _Serving(state.node_ports)
        self._suspects |= self._serving.update(state.services)
        if self._suspect_all:
            self._suspects.update(self._serving.places())
            self._suspect_all = False
        if not self._suspects:
            return 0, []
        start = time.monotonic_ns()
        deleted, failures = self._sweep()
        self._swept = Swept(deleted, time.monotonic_ns() - start)
        return deleted, failures

    def _sweep(self) -> tuple[int, list[KernelError]]:
        try:
            doomed = list(self._stale(self._conntrack.flows(self._family, inet.Protocol.UDP)))
            results = self._conntrack.delete(doomed) if doomed else []
        except KernelError as error:
            return 0, [error]
        failures = [e for e in results if e is not None and not isinstance(e, NotFound)]
        if not failures:
            self._suspects.clear()
        return len(doomed) - len(failures), failures

    def _stale(self, flows: Iterable[Flow]) -> Iterator[Flow]:
        """Yield the flows to forget."""
        suspects = self._suspects & self._serving.places()
        served: dict[Place, Set[Place]] = {}
        for flow in flows:
            place = str(flow.destination), flow.destination_port
            if place not in suspects:
                continue
            if place not in served:
                served[place] = self._serving.endpoints(place)
            endpoints = served[place]
            if self._keep_last and not endpoints:
                continue
            if (str(flow.reply_source), flow.reply_source_port) not in endpoints:
                yield flow
