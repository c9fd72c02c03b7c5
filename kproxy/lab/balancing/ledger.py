"""From what informers tell of Services and Nodes to fronts, addresses and statuses.

Methods are called by informers, each from a thread of its own, and by the main thread.
"""

import threading
from collections.abc import Callable, Sequence

import msgspec

from kproxy.api import core
from kproxy.client.informer import Change
from kproxy.errors import InvalidObject

from . import fronts
from .addresses import Address, Key, Network, Pool, key_of, told
from .fronts import Front


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted by the newest objects."""

    fronts: dict[Key, Front]
    statuses: dict[Key, tuple[core.Service, tuple[Address, ...]]]
    """Services whose addresses are this balancer's business; without any: it takes them away."""
    problems: tuple[tuple[core.Service, InvalidObject], ...] = ()


class Ledger:
    """Keeps Services and Nodes; ``changed`` is called when there is something new."""

    def __init__(self, ranges: Sequence[Network], changed: Callable[[], None]) -> None:
        self._ranges = tuple(ranges)
        self._pool = Pool(self._ranges)
        self._changed = changed
        self._lock = threading.Lock()
        self._services: dict[Key, core.Service] = {}
        self._nodes: dict[str, core.Node] = {}

    def on_services(self, changes: Sequence[Change[core.Service]]) -> None:
        """Take changes of Services."""
        with self._lock:
            for old, new in changes:
                if new is not None:
                    self._services[key_of(new)] = new
                elif old is not None:
                    self._services.pop(key_of(old), None)
        self._changed()

    def on_nodes(self, changes: Sequence[Change[core.Node]]) -> None:
        """Take changes of Nodes; heartbeats are none that matter."""
        with self._lock:
            before = {name: _matters(node) for name, node in self._nodes.items()}
            for old, new in changes:
                if new is not None:
                    self._nodes[new.metadata.name] = new
                elif old is not None:
                    self._nodes.pop(old.metadata.name, None)
            after = {name: _matters(node) for name, node in self._nodes.items()}
        if before != after:
            self._changed()

    def picture(self) -> Picture:
        """Return what is wanted now. For one thread."""
        with self._lock:
            services = list(self._services.values())
            nodes = [self._nodes[name] for name in sorted(self._nodes)]
        ours = [service for service in services if fronts.is_ours(service)]
        assigned = self._pool.assign(ours)
        by_key = {key_of(service): service for service in services}
        problems = [(by_key[key], problem) for key, problem in assigned.problems]
        problems += [(one, problem) for one in ours if (problem := _unreachable(one)) is not None]
        statuses = {key: (by_key[key], given) for key, given in assigned.addresses.items()}
        # What is no longer of type LoadBalancer loses the address that it had from here.
        for service in services:
            if service.spec.type != "LoadBalancer" and self._has_of_ours(service):
                statuses[key_of(service)] = (service, ())
        return Picture(
            fronts=fronts.of_services(ours, assigned.addresses, nodes),
            statuses=statuses,
            problems=tuple(problems),
        )

    def _has_of_ours(self, service: core.Service) -> bool:
        return any(address in network for address in told(service) for network in self._ranges)


def _unreachable(service: core.Service) -> InvalidObject | None:
    """Return why the nodes cannot be reached for a Service; None: they can."""
    ports = service.spec.ports or []
    if not ports or any(port.node_port for port in ports):
        return None
    label = f"Service {service.metadata.namespace}/{service.metadata.name}"
    return InvalidObject(
        label,
        "spec.allocateLoadBalancerNodePorts",
        "this balancer reaches nodes by node ports, and there are none",
        remedy="leave it out or set it to true",
    )


def _matters(node: core.Node) -> object:
    addresses = node.status.addresses if node.status else None
    return addresses, node.spec.taints, node.metadata.labels
