"""Forgetting tracked UDP flows that lead to endpoints which no longer serve.

A tracked flow keeps its translation for as long as packets come, whatever the rules say by then.
TCP notices that its peer has gone, UDP goes on for ever. So after a sync those flows are deleted
whose original destination is a place of a UDP service port of ours (ClusterIP, external IP, load
balancer's address, node port) and whose translated destination is not one of its serving
endpoints; their next packet takes a new way. All other flows are left alone: flows to healthy
endpoints must survive every restart.

A packet that the old rules have translated may still be under way when the table is listed, and
its flow is tracked only afterwards. So where an endpoint has left, it is looked for once more,
a moment later.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from kproxy.backends.base import Swept
from kproxy.desired import model
from kproxy.desired.diff import diff
from kproxy.desired.model import NodePorts, ServicePortName, ServiceState, State
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import inet
from kproxy.kernel.conntrack.types import ConntrackClient, Flow

Place = tuple[str, int]
"""Address, as canonical text, and port."""

AGAIN_S = 1.0
"""So long after flows were looked for it is looked again. A packet is under way for far less, also
on a busy machine."""

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


class _Touched(NamedTuple):
    """Places at which something has changed."""

    changed: set[Place]
    left: set[Place]
    """Those at which an endpoint served that does not any more."""


class _Serving:
    """Which endpoints serve at which place, kept up to date at the cost of what changes."""

    def __init__(self, node_ports: NodePorts) -> None:
        self.node_ports = node_ports
        self._services: Mapping[ServicePortName, ServiceState] = {}
        self._udp: dict[ServicePortName, ServiceState] = {}
        self._owners: dict[Place, set[ServicePortName]] = {}

    def update(self, services: Mapping[ServicePortName, ServiceState]) -> _Touched:
        """Take what is wanted now; return the places at which that makes a difference."""
        touched = _Touched(set(), set())
        if services is self._services:
            return touched
        changes = diff(self._services, services)
        self._services = services
        for name in (*changes.remove, *changes.change, *changes.add):
            if name.protocol is model.Protocol.UDP:
                self._replace(name, services.get(name), touched)
        return touched

    def places(self) -> Set[Place]:
        """Return all places of ours."""
        return self._owners.keys()

    def endpoints(self, place: Place) -> Set[Place]:
        """Return the endpoints that serve at a place of ours."""
        return {
            endpoint for name in self._owners[place] for endpoint in _endpoints(self._udp[name])
        }

    def _replace(
        self, name: ServicePortName, wanted: ServiceState | None, touched: _Touched
    ) -> None:
        before = self._udp.pop(name, None)
        for place in places(before, self.node_ports) if before is not None else ():
            touched.changed.add(place)
            owners = self._owners[place]
            owners.discard(name)
            if not owners:
                del self._owners[place]
            if _endpoints(before) - _endpoints(wanted):
                touched.left.add(place)
        if wanted is not None:
            self._udp[name] = wanted
            for place in places(wanted, self.node_ports):
                touched.changed.add(place)
                self._owners.setdefault(place, set()).add(name)


def _endpoints(service: ServiceState | None) -> Set[Place]:
    known = service.known if service is not None else ()
    return {(endpoint.address, endpoint.port) for endpoint in known}


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
        self._left: set[Place] = set()
        """Suspects because an endpoint has left: the only ones that are looked at again."""
        self._again: dict[Place, float] = {}
        """When to look at which places again."""
        self._again_in: float | None = None
        self._swept: Swept | None = None

    def take_swept(self) -> Swept | None:
        """Return what the last :meth:`sync` came to; None if it did not look, and from then on."""
        swept, self._swept = self._swept, None
        return swept

    def take_again_in(self) -> float | None:
        """Return in how many seconds after its ``now`` the last :meth:`sync` wants another one.

        None if it does not, and from then on.
        """
        again_in, self._again_in = self._again_in, None
        return again_in

    def forget(self) -> None:
        """Look at the table again at the next sync: others may have changed rules meanwhile."""
        self._suspect_all = True

    def find(self, state: State) -> list[Flow]:
        """Return what the first :meth:`sync` with this state would delete. Deletes nothing.

        To be called of one that has never synced. Raises KernelError.
        """
        self._suspect(state)
        return list(self._stale(self._conntrack.flows(self._family, inet.Protocol.UDP)))

    def sync(self, state: State, now: float) -> tuple[int, list[KernelError]]:
        """Delete what is stale now; return how many flows, and what failed (tried again later).

        ``now``: seconds on a clock that only goes forward.
        """
        self._suspect(state)
        due = {place for place, at in self._again.items() if at <= now}
        for place in due:
            del self._again[place]
        first = self._suspects.copy()
        self._suspects |= due
        deleted, failures = 0, list[KernelError]()
        if self._suspects:
            start = time.monotonic_ns()
            deleted, failures = self._sweep(first, now + AGAIN_S)
            self._swept = Swept(deleted, time.monotonic_ns() - start)
        self._again_in = min(self._again.values()) - now if self._again else None
        return deleted, failures

    def _suspect(self, state: State) -> None:
        """Find out at which places there may be stale flows."""
        if state.node_ports != self._serving.node_ports:
            if self._serving.places():  # nobody leaves at the start, which has no time to lose
                self._left |= self._serving.update(state.services).left
            self._serving = _Serving(state.node_ports)
        touched = self._serving.update(state.services)
        self._left |= touched.left
        self._suspects |= touched.changed
        if self._suspect_all:
            self._suspects.update(self._serving.places())
            self._suspect_all = False

    def _sweep(self, first: Set[Place], again_at: float) -> tuple[int, list[KernelError]]:
        """Delete the stale flows of all suspects.

        ``first`` are those that are not looked at for the second time.
        """
        try:
            doomed = list(self._stale(self._conntrack.flows(self._family, inet.Protocol.UDP)))
            results = self._conntrack.delete(doomed) if doomed else []
        except KernelError as error:
            return 0, [error]
        # Whose endpoint has left before this process began is known by what it has left.
        self._left.update(_place(flow) for flow in doomed if _place(flow) in first)
        failures = [e for e in results if e is not None and not isinstance(e, NotFound)]
        if not failures:
            self._again.update((place, again_at) for place in self._left if self._is_swept(place))
            self._left.clear()
            self._suspects.clear()
        return len(doomed) - len(failures), failures

    def _is_swept(self, place: Place) -> bool:
        """Return whether flows to a place are ever deleted, as things stand."""
        if place not in self._serving.places():
            return False
        return not self._keep_last or bool(self._serving.endpoints(place))

    def _stale(self, flows: Iterable[Flow]) -> Iterator[Flow]:
        """Yield the flows to forget."""
        suspects = self._suspects & self._serving.places()
        served: dict[Place, Set[Place]] = {}
        for flow in flows:
            place = _place(flow)
            if place not in suspects:
                continue
            if place not in served:
                served[place] = self._serving.endpoints(place)
            endpoints = served[place]
            if self._keep_last and not endpoints:
                continue
            if (str(flow.reply_source), flow.reply_source_port) not in endpoints:
                yield flow


def _place(flow: Flow) -> Place:
    return str(flow.destination), flow.destination_port
