"""What the kernel should hold for one service port, in ipvs mode. Pure: values in, values out."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kproxy.backends.ipvs.sets import SETS, Member, Sets
from kproxy.desired import model
from kproxy.desired.model import (
    Address,
    Endpoint,
    Prefix,
    ServicePort,
    ServicePortName,
    ServiceState,
)
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPNetwork
from kproxy.kernel.ipset.types import Entry
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationKey,
    Forwarding,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    keys,
)

DEVICE = "kube-ipvs0"
"""The dummy device that carries the service addresses: it makes packets to them local."""

DESTINATION = DestinationConfig(weight=1, forwarding=Forwarding.MASQUERADE)
DRAINING = DestinationConfig(weight=0, forwarding=Forwarding.MASQUERADE)

_NUMBERS: Mapping[str, int] = {
    model.Protocol.TCP: inet.Protocol.TCP.number,
    model.Protocol.UDP: inet.Protocol.UDP.number,
    model.Protocol.SCTP: inet.Protocol.SCTP.number,
}


class Place(NamedTuple):
    """An address, protocol and port at which a service is served, and all that this takes."""

    key: ServiceKey
    config: ServiceConfig
    destinations: bytes
    """The keys of its real servers in a row: a large node has 100,000."""
    bind: bool
    """Whether the address goes on the device. The node's own addresses do not."""
    members: tuple[Member, ...]
    address: Address | None
    """The address as the Service has it; None: a node port."""
    owner: ServicePortName
    denied: bool = False
    """Whether ``loadBalancerSourceRanges`` keep the node itself out."""

    @property
    def real_servers(self) -> list[DestinationKey]:
        """The keys of its real servers."""
        return keys(self.key, self.destinations)


_Outside = tuple[ServiceKey, bool, tuple[Member, ...], Address | None, bool]


class Rendered(NamedTuple):
    """What one service port comes to."""

    places: tuple[Place, ...]
    members: tuple[Member, ...]
    """Entries that are no single place's."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the places of a service depend on beside the service itself."""

    family: Family
    scheduler: str
    node_ports: tuple[Address, ...] = ()
    """Where node ports are served."""
    own: frozenset[Address] = frozenset()
    """The node's own addresses."""
    pods: tuple[Prefix, ...] = ()


def depends_on_node(service: ServicePort) -> bool:
    """Return whether its places depend on the node's addresses."""
    return bool(service.node_port or service.external_ips or service.load_balancer_vips)


def packed(text: str) -> bytes:
    """Return the bytes of a canonical address."""
    return ipaddress.ip_address(text).packed


class Renderer:
    """Turns service ports into what the kernel should hold for them.

    ``pack`` does what :func:`packed` does; 100,000 addresses are packed at a large start, and the
    fast way to do that is not open to a pure module.
    """

    def __init__(self, context: Context, pack: Callable[[str], bytes] = packed) -> None:
        self.context = context
        self._sets = SETS[context.family]
        self._pack = pack
        self._configs: dict[int | None, ServiceConfig] = {}

    def render(self, wanted: ServiceState) -> Rendered:
        """Return what the kernel should hold for one service port."""
        service = wanted.service
        number = _NUMBERS[service.name.protocol]
        config = self._config(service.affinity_seconds)
        inside = self._destinations(_chosen(wanted, local=service.internal_local))
        address, port = self._pack(service.cluster_ip), service.port.to_bytes(2, "big")
        key = ServiceKey.of(number, address, port)
        member = (self._sets.cluster_ip, Entry.of_place(address, number, port))
        first = Place(key, config, inside, True, (member,), service.cluster_ip, service.name)
        common = tuple(self._common(wanted, number))
        if not depends_on_node(service):
            return Rendered((first,), common)
        outside = inside
        if service.external_local != service.internal_local:
            outside = self._destinations(_chosen(wanted, local=service.external_local))
        places = {key: first}
        for key, bind, members, text, denied in self._outside(service):
            place = Place(key, config, outside, bind, members, text, service.name, denied)
            # The same address as external and as a load balancer's is served once, and closed to
            # all whom either closes it to.
            places[key] = _merged(places[key], place) if key in places else place
        return Rendered(tuple(places.values()), common)

    def _config(self, affinity_seconds: int | None) -> ServiceConfig:
        config = self._configs.get(affinity_seconds)
        if config is None:
            scheduler = self.context.scheduler
            # By address and port: else all connections of a client would have the same endpoint.
            flags = ServiceFlags.MH_PORT if scheduler == "mh" else ServiceFlags.NONE
            if affinity_seconds is None:
                config = ServiceConfig(scheduler, flags)
            else:
                flags |= ServiceFlags.PERSISTENT
                config = ServiceConfig(scheduler, flags, affinity_seconds)
            self._configs[affinity_seconds] = config
        return config

    def _destinations(self, endpoints: Sequence[Endpoint]) -> bytes:
        pack = self._pack
        found = [pack(one.address) + one.port.to_bytes(2, "big") for one in endpoints]
        return b"".join(found if len(set(found)) == len(found) else dict.fromkeys(found))

    def _outside(self, service: ServicePort) -> Iterator[_Outside]:
        """Yield key, whether to bind, members, address and whether denied of each other place."""
        sets, local, own = self._sets, service.external_local, self.context.own
        number, port = _NUMBERS[service.protocol], service.port.to_bytes(2, "big")
        for text in service.external_ips:
            address = self._pack(text)
            name = sets.external_ip_local if local else sets.external_ip
            member = (name, Entry.of_place(address, number, port))
            key = ServiceKey.of(number, address, port)
            yield key, text not in own, (member,), text, False
        for text in service.load_balancer_vips:
            key = ServiceKey.of(number, self._pack(text), port)
            denied = bool(service.source_ranges) and not _node_allowed(service, self.context)
            members = tuple(_load_balancer(service, key, sets, denied=denied))
            yield key, text not in own, members, text, denied
        if service.node_port:
            for text in self.context.node_ports:
                key = ServiceKey.of(number, self._pack(text), service.node_port.to_bytes(2, "big"))
                yield key, False, tuple(_node_port(service, key, sets)), None, False

    def _common(self, wanted: ServiceState, number: int) -> Iterator[Member]:
        service = wanted.service
        endpoints = wanted.cluster
        if wanted.local and (service.internal_local or service.external_local):
            endpoints = (*endpoints, *wanted.local)
        for endpoint in endpoints:
            if endpoint.local:
                real, port = self._pack(endpoint.address), endpoint.port.to_bytes(2, "big")
                yield self._sets.loop_back, Entry.of_place(real, number, port, real)
        if service.health_check_node_port:
            yield self._sets.health_check, Entry(None, None, service.health_check_node_port)


def _chosen(wanted: ServiceState, *, local: bool) -> Sequence[Endpoint]:
    """Return the endpoints for a policy.

    Without a local one, all: pods of this node may then reach those elsewhere, while others get
    no answer, because nothing is masqueraded. kube-proxy does the same in this mode only.
    """
    return (wanted.local or wanted.cluster) if local else wanted.cluster


def _merged(one: Place, other: Place) -> Place:
    return one._replace(members=(*one.members, *other.members), denied=one.denied or other.denied)


def _node_port(service: ServicePort, key: ServiceKey, sets: Sets) -> Iterator[Member]:
    protocol = key.protocol
    entry = Entry(None, None, service.node_port)
    if protocol is inet.Protocol.SCTP:
        entry = Entry.of_place(key[1:-2], key[0], key[-2:])
    yield sets.node_port[protocol], entry
    if service.external_local:
        yield sets.node_port_local[protocol], entry


def _load_balancer(
    service: ServicePort, key: ServiceKey, sets: Sets, *, denied: bool
) -> Iterator[Member]:
    entry = Entry.of_place(key[1:-2], key[0], key[-2:])
    yield sets.load_balancer, entry
    if service.external_local:
        yield sets.load_balancer_local, entry
    if service.source_ranges:
        address, protocol, port = key.address, key.protocol, key.port
        for network in _source_ranges(service.source_ranges):
            yield sets.source_cidr, Entry(address, protocol, port, network)
        if not denied:
            yield sets.source_ip, Entry(address, protocol, port, address)
        yield sets.firewall, entry


def _source_ranges(ranges: Sequence[Prefix]) -> Iterator[IPNetwork]:
    """Yield networks that a set takes: it has no entry for everybody, but one for each half."""
    for text in ranges:
        network = ipaddress.ip_network(text)
        if network.prefixlen:
            yield network
        else:
            yield from network.subnets()


def _node_allowed(service: ServicePort, context: Context) -> bool:
    """Return whether source ranges let the node in, by any address that is no pod's gateway."""
    ranges = [ipaddress.ip_network(text) for text in service.source_ranges]
    pods = [ipaddress.ip_network(text) for text in context.pods]
    return any(
        any(address in network for network in ranges)
        and not any(address in network for network in pods)
        for address in map(ipaddress.ip_address, context.own)
    )
