"""Health check node ports: load balancers ask them whether this node has endpoints of a Service.

A Service with ``externalTrafficPolicy: Local`` gets its traffic only at nodes that have endpoints
of it. Its load balancer finds them by asking ``healthCheckNodePort`` of every node: 200 if this
node has ready endpoints and the proxy is healthy, else 503. Terminating endpoints do not count, so
that the load balancer leaves while they still serve.

One thread waits for connections at all ports; each answer has a short-lived one of its own.
"""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kproxy.agent.http import Answer, Find, serve
from kproxy.agent.listeners import Address, Listeners
from kproxy.api.addresses import with_port
from kproxy.desired.model import Family, NodePorts, State
from kproxy.logs import Log

RETRY_S = 5.0
"""So often it is tried again to listen at ports that were taken."""

_ANYWHERE = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104  as kube-proxy
_BODY = """{{
\t"service": {{
\t\t"namespace": {namespace},
\t\t"name": {name}
\t}},
\t"localEndpoints": {count},
\t"serviceProxyHealthy": {healthy}
}}"""


class Checked(NamedTuple):
    """A Service as its health check sees it, in one IP family."""

    namespace: str
    name: str
    local_endpoints: int
    """Ready endpoints on this node; one that serves at several ports is one."""

    def answer(self, *, healthy: bool) -> Answer:
        """Return what a load balancer is told."""
        body = _BODY.format(
            namespace=json.dumps(self.namespace),
            name=json.dumps(self.name),
            count=self.local_endpoints,
            healthy="true" if healthy else "false",
        )
        code = 200 if healthy and self.local_endpoints else 503
        weight = {"X-Load-Balancing-Endpoint-Weight": str(self.local_endpoints)}
        return Answer(code, body, headers=weight)


def wanted(state: State) -> dict[Address, Checked]:
    """Return where to listen, and for which Service.

    Where two Services have the same port, which an API server does not let happen, the first one
    by name has it.
    """
    local: dict[tuple[int, str, str], set[str]] = {}
    for one in state.services.values():
        if port := one.service.health_check_node_port:
            owner = one.service.name
            found = local.setdefault((port, owner.namespace, owner.name), set())
            found.update(known.address for known in one.known if known.local and known.ready)
    places: dict[Address, Checked] = {}
    for (port, namespace, name), endpoints in sorted(local.items()):
        checked = Checked(namespace, name, len(endpoints))
        for host in _hosts(state.family, state.node_ports):
            places.setdefault((host, port), checked)
    return places


def _hosts(family: Family, node_ports: NodePorts) -> Iterable[str]:
    return (_ANYWHERE[family],) if node_ports.everywhere else node_ports.addresses


class ServiceHealth:
    """Listens at health check node ports. Its thread ends with the process.

    ``healthy`` says whether the proxy keeps up; ``report`` is told once of a port that cannot be
    had: namespace and name of the Service, and why.
    """

    def __init__(
        self,
        listeners: Listeners,
        log: Log,
        *,
        healthy: Callable[[], bool],
        report: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        self._listeners = listeners
        self._log = log
        self._healthy = healthy
        self._report = report
        self._lock = threading.Lock()
        self._states: dict[Family, State] = {}
        self._by_family: dict[Family, dict[Address, Checked]] = {}
        self._wanted: Mapping[Address, Checked] = {}
        self._open: dict[Address, socket.socket] = {}
        self._failed: set[Address] = set()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._started = False

    def update(self, states: Iterable[State]) -> None:
        """Listen and answer as the newest states want it; from one thread only."""
        changed = False
        for state in states:
            if self._states.get(state.family) is not state:
                self._states[state.family] = state
                places = wanted(state)
                changed = changed or places != self._by_family.get(state.family, {})
                self._by_family[state.family] = places
        if not changed:
            return
        with self._lock:
            self._wanted = {
                at: one for each in self._by_family.values() for at, one in each.items()
            }
            self._open_and_close()
        if self._open or self._failed:
            self._start()
            os.eventfd_write(self._wake, 1)

    def _open_and_close(self) -> None:
        """Listen where it is wanted, as far as possible. The lock is held."""
        for at in self._open.keys() - self._wanted.keys():
            self._listeners.close(self._open.pop(at))
        self._failed &= self._wanted.keys()
        for at in sorted(self._wanted.keys() - self._open.keys()):
            try:
                self._open[at] = self._listeners.listen(at, only_ipv6=True)
            except OSError as error:
                if at not in self._failed:
                    self._failed.add(at)
                    self._tell(at, error.strerror or str(error))
            else:
                self._failed.discard(at)

    def _tell(self, at: Address, reason: str) -> None:
        checked = self._wanted[at]
        name = f"{checked.namespace}/{checked.name}"
        where = with_port(*at)
        self._log.warning(
            "health check node port failed", service=name, address=where, error=reason
        )
        self._report(checked.namespace, checked.name, f"cannot listen at {where}: {reason}")

    def _start(self) -> None:
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, name="servicehealth", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._failed:
                    self._open_and_close()
                by_listener = {listener: at for at, listener in self._open.items()}
                timeout_s = RETRY_S if self._failed else None
            accepted = self._listeners.accept_any(by_listener, self._wake, timeout_s)
            if accepted is not None:
                connection, listener = accepted
                serve(connection, self._find(by_listener[listener]), self._listeners)

    def _find(self, at: Address) -> Find:
        """Return what answers at an address: any path, as kube-proxy."""

        def answer() -> Answer:
            checked = self._wanted.get(at)
            if checked is None:
                return Answer(404, "404 page not found\n")
            return checked.answer(healthy=self._healthy())

        return lambda _path: answer
