"""Gives Services of type LoadBalancer their addresses, out of one range for each family. Pure.

What a Service's status says already is taken over, so a restarted balancer goes on where another
one was. Of two Services that claim one address the one that was made first keeps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from kproxy.api import addresses, core
from kproxy.errors import InvalidObject

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Key = tuple[str, str]
FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True)
class Assigned:
    """The addresses of all Services, and why some have none."""

    addresses: Mapping[Key, tuple[Address, ...]]
    """In the order of the Service's families."""
    problems: tuple[tuple[Key, InvalidObject], ...] = ()


@dataclass(slots=True)
class Pool:
    """The ranges, and who has what of them."""

    ranges: tuple[Network, ...]
    _owner: dict[Address, Key] = field(default_factory=dict)

    def assign(self, services: Iterable[core.Service]) -> Assigned:
        """Return the addresses of these Services, which are all that there are.

        Others lose theirs. Nobody's address changes unless ``spec.loadBalancerIP`` does; where
        what that asks for cannot be had, a Service keeps what it has.
        """
        ordered = sorted(services, key=_age)
        wanted = {key_of(service) for service in ordered}
        self._owner = {one: key for one, key in self._owner.items() if key in wanted}
        for service in ordered:
            for address in told(service):
                if self._range_of(address) is not None:
                    self._owner.setdefault(address, key_of(service))
        given: dict[Key, tuple[Address, ...]] = {}
        problems: list[tuple[Key, InvalidObject]] = []
        for service in ordered:
            try:
                given[key_of(service)] = self._give(service)
            except InvalidObject as problem:
                problems.append((key_of(service), problem))
                if kept := self._all_of(key_of(service)):
                    given[key_of(service)] = kept
        return Assigned(given, tuple(problems))

    def _give(self, service: core.Service) -> tuple[Address, ...]:
        key = key_of(service)
        asked = self._asked(service)
        found: list[Address] = []
        for version in _versions(service):
            own = asked if asked is not None and asked.version == version else None
            if own is None:
                own = self._kept(key, version) or self._free(service, version)
            found.append(own)
        # Only now: what it had is given up when it has got the other one.
        self._owner = {
            one: owner for one, owner in self._owner.items() if owner != key or one in found
        }
        self._owner |= dict.fromkeys(found, key)
        return tuple(found)

    def _asked(self, service: core.Service) -> Address | None:
        """Return what ``spec.loadBalancerIP`` asks for. Raises InvalidObject if it cannot be."""
        text = service.spec.load_balancer_ip
        if not text:
            return None
        parsed = addresses.parse_address(text)
        address = ip_address(parsed.text) if parsed else None
        if address is None or self._range_of(address) is None:
            ranges = ", ".join(map(str, self.ranges))
            raise _fault(service, f"{text!r} is not in {ranges}", "take one of these")
        if address.version not in _versions(service):
            raise _fault(service, f"{text} is of no family of this Service", "take another one")
        owner = self._owner.get(address, key_of(service))
        if owner != key_of(service):
            taken = f"{text} belongs to Service {owner[0]}/{owner[1]}"
            raise _fault(service, taken, "take another one, or none")
        return address

    def _kept(self, key: Key, version: int) -> Address | None:
        for address, owner in self._owner.items():
            if owner == key and address.version == version:
                return address
        return None

    def _all_of(self, key: Key) -> tuple[Address, ...]:
        return tuple(address for address, owner in self._owner.items() if owner == key)

    def _free(self, service: core.Service, version: int) -> Address:
        """Return the lowest address that nobody has."""
        for network in self.ranges:
            if network.version == version:
                for address in network.hosts():
                    if address not in self._owner:
                        return address
        problem = f"no IPv{version} address is free in {', '.join(map(str, self.ranges))}"
        raise _fault(service, problem, "delete a Service of type LoadBalancer")

    def _range_of(self, address: Address) -> Network | None:
        for network in self.ranges:
            # Neither the network's own address nor the broadcast address is anybody's.
            broadcast = network.broadcast_address if network.version == 4 else None
            if address in network and address not in (network.network_address, broadcast):
                return network
        return None


def _fault(service: core.Service, problem: str, remedy: str) -> InvalidObject:
    label = f"Service {service.metadata.namespace}/{service.metadata.name}"
    return InvalidObject(label, "spec.loadBalancerIP", problem, remedy=remedy)


def told(service: core.Service) -> list[Address]:
    """Return the addresses that a Service's status tells."""
    balancer = service.status.load_balancer if service.status else None
    texts = [one.ip for one in (balancer.ingress if balancer else None) or ()]
    return [ip_address(parsed.text) for text in texts if (parsed := addresses.parse_address(text))]


def _versions(service: core.Service) -> list[int]:
    """Return the families of a Service, as version numbers."""
    listed = [FAMILIES[one] for one in service.spec.ip_families or () if one in FAMILIES]
    if listed:
        return listed
    texts = service.spec.cluster_ips or [service.spec.cluster_ip]
    parsed = [addresses.parse_address(text) for text in texts]
    return [one.version for one in parsed if one] or [4]


def _age(service: core.Service) -> tuple[str, Key]:
    return service.metadata.creation_timestamp or "", key_of(service)


def key_of(service: core.Service) -> Key:
    """Return namespace and name of a Service."""
    return service.metadata.namespace, service.metadata.name
