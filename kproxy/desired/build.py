"""From objects to :class:`State`: marks what changed, and puts together only that.

The cost of a change is that of its Service, plus one copy of a dictionary of references (0.1 ms
for 10,000 service ports). Every State is a snapshot that nothing changes afterwards; consecutive
States share the very same :class:`ServiceState` objects for what did not change, so a backend may
compare by identity first (:func:`kproxy.desired.diff.diff` does).
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from kproxy.api import core, discovery
from kproxy.errors import InvalidObject

from .model import Family, NodePorts, Prefix, ServicePortName, ServiceState, State
from .servicetracker import ServiceTracker
from .topology import Place, categorize_endpoints
from .trackers import EndpointSliceTracker, ObjectKey

T = TypeVar("T", core.Service, discovery.EndpointSlice)


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the State of a node depends on beside the objects."""

    family: Family
    node: str
    cluster_cidrs: tuple[Prefix, ...] = ()
    masquerade_all: bool = False
    masquerade_bit: int = 14
    local_interface: str = ""
    proxy_name: str = ""
    """Ours are the Services with this label ``service-proxy-name``; empty: those without it."""


class StateBuilder:
    """Keeps the wanted state of one node in one IP family.

    What notes (``on_…``) and tells (``set_…``) only keeps what is newest, and may be called from
    other threads than the one that calls everything else. What is noted in one call is in one
    :meth:`build`, all of it: nobody ever sees half of a list.
    """

    def __init__(self, settings: NodeSettings, zone: str = "") -> None:
        self._settings = settings
        self._place = Place(settings.node, zone)
        self._zone = zone
        self._problems: list[InvalidObject] = []
        self._services = ServiceTracker(
            settings.family, self._problems.append, settings.proxy_name
        )
        self._slices = EndpointSliceTracker(settings.family, settings.node, self._problems.append)
        self._new_services: dict[ObjectKey, core.Service | None] = {}
        self._new_slices: dict[ObjectKey, discovery.EndpointSlice | None] = {}
        self._dirty: set[ObjectKey] = set()
        self._built: dict[ObjectKey, tuple[ServicePortName, ...]] = {}
        self._node_ports = NodePorts()
        self._service_cidrs: tuple[Prefix, ...] = ()
        self._cluster_cidrs = settings.cluster_cidrs
        self._state = self._make({})

    @property
    def dirty(self) -> bool:
        """Return whether anything was noted since the last :meth:`build`."""
        moved = self._zone != self._place.zone or self._node_has_changed()
        return bool(moved or self._new_services or self._new_slices or self._dirty)

    def on_service(self, old: core.Service | None, new: core.Service | None) -> None:
        """Note that a Service is new, changed or gone (``new`` is None)."""
        self.on_services([(old, new)])

    def on_services(
        self, changes: Iterable[tuple[core.Service | None, core.Service | None]]
    ) -> None:
        """Note several Services at once."""
        self._new_services.update(_newest(changes))

    def on_slice(
        self, old: discovery.EndpointSlice | None, new: discovery.EndpointSlice | None
    ) -> None:
        """Note that an EndpointSlice is new, changed or gone (``new`` is None)."""
        self.on_slices([(old, new)])

    def on_slices(
        self,
        changes: Iterable[tuple[discovery.EndpointSlice | None, discovery.EndpointSlice | None]],
    ) -> None:
        """Note several EndpointSlices at once."""
        self._new_slices.update(_newest(changes))

    def set_zone(self, zone: str) -> None:
        """Tell the zone of this node (label ``topology.kubernetes.io/zone`` of its Node)."""
        self._zone = zone

    def set_node_ports(self, node_ports: NodePorts) -> None:
        """Tell where node ports are served now."""
        self._node_ports = node_ports

    def set_service_cidrs(self, cidrs: tuple[Prefix, ...]) -> None:
        """Tell the networks of this family from which ClusterIPs come (ServiceCIDR objects)."""
        self._service_cidrs = cidrs

    def set_cluster_cidrs(self, cidrs: tuple[Prefix, ...]) -> None:
        """Tell the networks of pods of this family, where they come from the Node object."""
        self._cluster_cidrs = cidrs

    def take_problems(self) -> list[InvalidObject]:
        """Return what was found wrong in objects since the last call."""
        taken = self._problems.copy()
        self._problems.clear()
        return taken

    def build(self) -> State:
        """Return the wanted state by all that was noted; the same object if nothing changed."""
        self._digest()
        services: dict[ServicePortName, ServiceState] | None = None
        before = self._state.services
        # Sorted, so that what is written does not depend on the order that a set happens to have.
        for key in sorted(self._dirty):
            now = self._states(key)
            names = tuple(now)
            gone = [name for name in self._built.get(key, ()) if name not in now]
            changed = {name: one for name, one in now.items() if before.get(name) is not one}
            if gone or changed:
                services = dict(before) if services is None else services
                for name in gone:
                    del services[name]
                services.update(changed)
            if names:
                self._built[key] = names
            else:
                self._built.pop(key, None)
        self._dirty.clear()
        if services is not None:
            self._state = self._make(services)
        elif self._node_has_changed():
            self._state = self._make(before)
        return self._state

    def _node_has_changed(self) -> bool:
        state = self._state
        known = (state.node_ports, state.service_cidrs, state.cluster_cidrs)
        return known != (self._node_ports, self._service_cidrs, self._cluster_cidrs)

    def _make(self, services: Mapping[ServicePortName, ServiceState]) -> State:
        settings = self._settings
        return State(
            family=settings.family,
            services=services,
            cluster_cidrs=self._cluster_cidrs,
            masquerade_all=settings.masquerade_all,
            masquerade_bit=settings.masquerade_bit,
            local_interface=settings.local_interface,
            node_ports=self._node_ports,
            service_cidrs=self._service_cidrs,
        )

    def _digest(self) -> None:
        """Hand everything noted to the trackers."""
        # popitem is atomic, and so is updating one dictionary by another, so another thread may
        # note objects meanwhile; iterating is not.
        if (zone := self._zone) != self._place.zone:
            self._place = Place(self._settings.node, zone)
            self._dirty.update(self._services.keys())
        while self._new_services:
            key, service = self._new_services.popitem()
            if self._services.update(key, service):
                self._dirty.add(key)
        while self._new_slices:
            key, item = self._new_slices.popitem()
            self._dirty |= self._slices.update(key, item)

    def _states(self, key: ObjectKey) -> dict[ServicePortName, ServiceState]:
        """Return the states of a Service's ports; the former objects where they are equal."""
        ports = self._services.ports(key)
        endpoints = self._slices.endpoints(key) if ports else {}
        states = {}
        for port_key, port in ports.items():
            now = categorize_endpoints(port, endpoints.get(port_key, ()), self._place)
            before = self._state.services.get(port.name)
            states[port.name] = before if before is not None and before == now else now
        return states


def _newest(changes: Iterable[tuple[T | None, T | None]]) -> dict[ObjectKey, T | None]:
    return {_key(known): new for old, new in changes if (known := new or old) is not None}


def _key(obj: core.Service | discovery.EndpointSlice) -> ObjectKey:
    return ObjectKey(obj.metadata.namespace, obj.metadata.name)
