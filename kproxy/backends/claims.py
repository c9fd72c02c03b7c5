"""Which service port has an address and port that several claim: the first by name. Pure.

Kept from one state to the next, so that a change costs what it touches.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from kproxy.backends.base import taken
from kproxy.desired.model import Protocol, ServicePort, ServicePortName
from kproxy.errors import InvalidObject


class Place(NamedTuple):
    """What clients send to, and only one service port can have."""

    address: str
    """Empty: the node port of this number, on whatever addresses."""
    protocol: Protocol
    port: int


def places(service: ServicePort) -> tuple[Place, ...]:
    """Return all that a service port claims."""
    addresses = (service.cluster_ip, *service.external_ips, *service.load_balancer_vips)
    found = [Place(address, service.protocol, service.port) for address in addresses]
    if service.node_port:
        found.append(Place("", service.protocol, service.node_port))
    return tuple(found)


class Claims:
    """What each service port claims, has, and has not got."""

    def __init__(self) -> None:
        self._claimed: dict[ServicePortName, ServicePort] = {}
        self._claimants: dict[Place, tuple[ServicePortName, ...]] = {}
        self._contested: set[Place] = set()

    def update(
        self, changes: Iterable[tuple[ServicePortName, ServicePort | None]]
    ) -> set[ServicePortName]:
        """Note claims that are new, other or gone; return whose share that changes besides."""
        touched: set[ServicePortName] = set()
        for name, service in changes:
            old = self._claimed.get(name)
            if old is service or old == service:
                continue
            before = places(old) if old is not None else ()
            after = places(service) if service is not None else ()
            if service is None:
                self._claimed.pop(name, None)
            else:
                self._claimed[name] = service
            for place in before:
                if place not in after:
                    touched.update(self._leave(place, name))
            for place in after:
                touched.update(self._enter(place, name))
        return touched

    def granted(self, service: ServicePort) -> ServicePort:
        """Return the service port with what it has got; the same object if that is all."""
        lost = self._lost(service)
        if not lost:
            return service
        protocol, port = service.protocol, service.port

        def kept(addresses: Iterable[str]) -> tuple[str, ...]:
            return tuple(one for one in addresses if Place(one, protocol, port) not in lost)

        changed: Mapping[str, object] = {
            "cluster_ip": "".join(kept([service.cluster_ip])),
            "external_ips": kept(service.external_ips),
            "load_balancer_vips": kept(service.load_balancer_vips),
            "node_port": 0
            if Place("", protocol, service.node_port) in lost
            else service.node_port,
        }
        return msgspec.structs.replace(service, **changed)

    def problems(self) -> tuple[InvalidObject, ...]:
        """Return who has not got what, by name."""
        if not self._contested:
            return ()
        losers = {name for place in self._contested for name in self._claimants[place][1:]}
        found = []
        for name in sorted(losers):
            service = self._claimed[name]
            for place, owner in self._lost(service).items():
                found.append(taken(service, owner, place.address or None, place.port))
        return tuple(found)

    def _lost(self, service: ServicePort) -> dict[Place, ServicePortName]:
        if not self._contested:
            return {}
        contested = [place for place in places(service) if place in self._contested]
        owners = {place: self._claimants[place][0] for place in contested}
        return {place: owner for place, owner in owners.items() if owner != service.name}

    def _enter(self, place: Place, name: ServicePortName) -> tuple[ServicePortName, ...]:
        claimants = self._claimants.get(place, ())
        if not claimants:
            self._claimants[place] = (name,)
            return ()
        if name in claimants:
            return ()
        self._contested.add(place)
        self._claimants[place] = tuple(sorted((*claimants, name)))
        return self._claimants[place]

    def _leave(self, place: Place, name: ServicePortName) -> tuple[ServicePortName, ...]:
        left = tuple(one for one in self._claimants.get(place, ()) if one != name)
        if left:
            self._claimants[place] = left
        else:
            self._claimants.pop(place, None)
        if len(left) < 2:
            self._contested.discard(place)
        return left
