"""EndpointSlices of one IP family, taken apart into what a proxy needs of them.

A tracker is given whole objects and keeps, per Service, the parts that :mod:`kproxy.desired.build`
puts together. An object that is wrong in part loses that part only, and the part is reported. That
of Services is in :mod:`kproxy.desired.servicetracker`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kproxy.api import addresses, discovery
from kproxy.errors import InvalidObject

from .model import Address, Endpoint, Family, Protocol

Report = Callable[[InvalidObject], None]
Endpoints = dict["PortKey", tuple[Endpoint, ...]]
PROTOCOLS = {protocol.value: protocol for protocol in Protocol}
FAMILIES = {4: Family.IPV4, 6: Family.IPV6}


class ObjectKey(NamedTuple):
    """Identity of a namespaced object of a known kind."""

    namespace: str
    name: str


class PortKey(NamedTuple):
    """Identity of a port within one Service, and what joins it with ports of EndpointSlices."""

    name: str
    protocol: Protocol


class EndpointSliceTracker:
    """The endpoints of all Services in one family, merged from their EndpointSlices."""

    def __init__(self, family: Family, node: str, report: Report) -> None:
        self._family = family
        self._node = node
        self._report = report
        # Per Service and slice, so that a changed slice costs no more than its Service.
        self._slices: dict[ObjectKey, dict[str, Endpoints]] = {}
        self._owner: dict[ObjectKey, ObjectKey] = {}

    def update(self, key: ObjectKey, item: discovery.EndpointSlice | None) -> set[ObjectKey]:
        """Take a slice's newest version, or None if it is gone; return the Services affected."""
        affected: set[ObjectKey] = set()
        owner = self._owner_of(key, item)
        before = self._owner.get(key)
        if before is not None and before != owner:
            self._forget(key, before)
            affected.add(before)
        if owner is None or item is None:
            return affected
        parsed = self._parse(key, item)
        slices = self._slices.setdefault(owner, {})
        if slices.get(key.name) != parsed:
            slices[key.name] = parsed
            affected.add(owner)
        self._owner[key] = owner
        return affected

    def endpoints(self, service: ObjectKey) -> Endpoints:
        """Return the endpoints of a Service by port, each address and port once, in order."""
        slices = self._slices.get(service)
        if not slices:
            return {}
        if len(slices) == 1:
            return next(iter(slices.values()))
        ports: dict[PortKey, list[Endpoint]] = {}
        for name in sorted(slices):
            for port, endpoints in slices[name].items():
                ports.setdefault(port, []).extend(endpoints)
        return {port: _each_once(endpoints) for port, endpoints in ports.items()}

    def _owner_of(self, key: ObjectKey, item: discovery.EndpointSlice | None) -> ObjectKey | None:
        if item is None or item.address_type != self._family:
            if item is not None and self._family is Family.IPV4:
                self._check_type(key, item.address_type)
            return None
        service = (item.metadata.labels or {}).get(discovery.SERVICE_NAME_LABEL)
        return ObjectKey(key.namespace, service) if service else None

    def _forget(self, key: ObjectKey, owner: ObjectKey) -> None:
        del self._owner[key]
        slices = self._slices[owner]
        del slices[key.name]
        if not slices:
            del self._slices[owner]

    def _parse(self, key: ObjectKey, item: discovery.EndpointSlice) -> Endpoints:
        usable = self._usable(key, item)
        parsed: dict[PortKey, list[Endpoint]] = {}
        for index, port in enumerate(item.ports or ()):
            protocol = PROTOCOLS.get(port.protocol or "TCP")
            # No port number means "all ports", which has no meaning for a Service.
            if port.port is None:
                continue
            if protocol is None:
                problem = f"unknown protocol {port.protocol!r}"
                self._complain(key, f"ports[{index}].protocol", problem)
                continue
            if not 0 < port.port < 65536:
                self._complain(key, f"ports[{index}].port", f"{port.port} is out of range")
                continue
            made = [self._endpoint(address, port.port, known) for address, known in usable]
            parsed.setdefault(PortKey(port.name or "", protocol), []).extend(made)
        return {port: _each_once(endpoints) for port, endpoints in parsed.items()}

    def _usable(
        self, key: ObjectKey, item: discovery.EndpointSlice
    ) -> list[tuple[Address, discovery.Endpoint]]:
        """Return the endpoints with an address of this family that a pod may have, canonical."""
        usable = []
        ordinary = addresses.is_ordinary_ipv4 if self._family is Family.IPV4 else _never
        for index, endpoint in enumerate(item.endpoints or ()):
            if endpoint.addresses and ordinary(endpoint.addresses[0]):  # nearly all of 100,000
                usable.append((Address(endpoint.addresses[0]), endpoint))
                continue
            if not endpoint.addresses:
                self._complain(key, f"endpoints[{index}].addresses", "is empty")
                continue
            text = endpoint.addresses[0]
            parsed = addresses.parse_address(text)
            if parsed is None or FAMILIES[parsed.version] is not self._family:
                field = f"endpoints[{index}].addresses[0]"
                self._complain(key, field, f"{text!r} is not an {self._family} address")
                continue
            if use := addresses.special_use(parsed.text):
                field = f"endpoints[{index}].addresses[0]"
                self._complain(key, field, f"{text!r} is {use}: no pod has such an address")
                continue
            usable.append((Address(parsed.text), endpoint))
        return usable

    def _endpoint(self, address: Address, port: int, known: discovery.Endpoint) -> Endpoint:
        conditions = known.conditions or _NO_CONDITIONS
        hints = known.hints
        ready, serving = conditions.ready is not False, conditions.serving is not False
        if ready and serving and hints is None and not conditions.terminating:
            # Nearly all of 100,000: the fewer fields are named, the faster one is made.
            return Endpoint(address=address, port=port, local=known.node_name == self._node)
        return Endpoint(
            address=address,
            port=port,
            ready=ready,
            serving=serving,
            terminating=conditions.terminating is True,
            local=known.node_name == self._node,
            zone_hints=_names(hints.for_zones) if hints else _NO_NAMES,
            node_hints=_names(hints.for_nodes) if hints else _NO_NAMES,
        )

    def _check_type(self, key: ObjectKey, kind: str) -> None:
        """Report a kind of addresses that does not exist; by one of the two trackers."""
        if kind not in _ADDRESS_TYPES:
            known = ", ".join(_ADDRESS_TYPES)
            self._complain(key, "addressType", f"{kind!r} is none of {known}")

    def _complain(self, key: ObjectKey, field: str, problem: str) -> None:
        label = f"EndpointSlice {key.namespace}/{key.name}"
        self._report(InvalidObject(label, field, problem, remedy="correct the EndpointSlice"))


_ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
_NO_CONDITIONS = discovery.EndpointConditions()
_NO_NAMES: frozenset[str] = frozenset()


def _never(text: str) -> bool:
    return False


def _names(hints: Sequence[discovery.ForZone | discovery.ForNode] | None) -> frozenset[str]:
    return frozenset([hint.name for hint in hints]) if hints else _NO_NAMES


def _each_once(endpoints: list[Endpoint]) -> tuple[Endpoint, ...]:
    """Return endpoints in the order of their addresses, of doubles the preferred one."""
    if len({endpoint.port for endpoint in endpoints}) == 1:
        by_address = {endpoint.address: endpoint for endpoint in endpoints}
        if len(by_address) == len(endpoints):  # no doubles: nothing to prefer
            return tuple([by_address[address] for address in sorted(by_address)])
    chosen: dict[tuple[Address, int], Endpoint] = {}
    for endpoint in endpoints:
        place = (endpoint.address, endpoint.port)
        known = chosen.get(place)
        if known is None or _preferred(endpoint, known):
            chosen[place] = endpoint
    return tuple([chosen[place] for place in sorted(chosen)])


def _preferred(new: Endpoint, known: Endpoint) -> bool:
    """Return whether to replace an endpoint by its double from a later slice.

    While an endpoint moves between slices both tell of it, and one of them may be out of date.
    Ready beats serving beats the rest, so that the move never takes it out of service; of equals
    the local one counts, as for kube-proxy.
    """
    return (new.ready, new.serving, new.local) > (known.ready, known.serving, known.local)
