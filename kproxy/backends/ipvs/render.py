"""What the kernel should hold for one service port, in ipvs mode. Pure: values in, values out."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kproxy.backends.ipvs.sets import SETS, Member, Sets
from kproxy.desired import model
from kproxy.desired.model import Address, Endpoint, Prefix, ServicePort, ServiceState, State
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPAddress, IPNetwork
from kproxy.kernel.ipset.types import Entry
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationKey,
    Forwarding,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
)

DEVICE = "kube-ipvs0"
"""The dummy device that carries the service addresses: it makes packets to them local."""

DESTINATION = DestinationConfig(weight=1, forwarding=Forwarding.MASQUERADE)
DRAINING = DestinationConfig(weight=0, forwarding=Forwarding.MASQUERADE)

PROTOCOLS: Mapping[model.Protocol, inet.Protocol] = {
    model.Protocol.TCP: inet.Protocol.TCP,
    model.Protocol.UDP: inet.Protocol.UDP,
    model.Protocol.SCTP: inet.Protocol.SCTP,
}

Destinations = tuple[DestinationKey, ...]


class Place(NamedTuple):
    """An address, protocol and port at which a service is served, and all that this takes."""

    key: ServiceKey
    config: ServiceConfig
    destinations: Destinations
    bind: bool
    """Whether the address goes on the device. The node's own addresses do not."""
    members: tuple[Member, ...]
    address: Address | None
    """The address as the Service has it; None: a node port."""
    denied: bool = False
    """Whether ``loadBalancerSourceRanges`` keep the node itself out."""


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

    @property
    def sets(self) -> Sets:
        """Return the names of the family's sets."""
        return SETS[self.family]


def family_of(state: State) -> Family:
    """Return the kernel's word for the state's IP family."""
    return Family.IPV4 if state.family is model.Family.IPV4 else Family.IPV6


def depends_on_node(service: ServicePort) -> bool:
    """Return whether its places depend on the node's addresses."""
    return bool(service.node_port or service.external_ips or service.load_balancer_vips)


def render(wanted: ServiceState, context: Context) -> Rendered:
    """Return what the kernel should hold for one service port."""
    service = wanted.service
    protocol = PROTOCOLS[service.protocol]
    config = _config(service, context.scheduler)
    inside = _destinations(_chosen(wanted, local=service.internal_local))
    address = parsed(service.cluster_ip)
    key = ServiceKey(protocol, address, service.port)
    member = (context.sets.cluster_ip, Entry(address, protocol, service.port))
    first = Place(key, config, inside, True, (member,), service.cluster_ip)
    common = tuple(_common(wanted, protocol, context.sets))
    if not depends_on_node(service):
        return Rendered((first,), common)
    outside = inside
    if service.external_local != service.internal_local:
        outside = _destinations(_chosen(wanted, local=service.external_local))
    places = {key: first}
    for key, bind, members, text, denied in _outside(service, protocol, context):
        place = Place(key, config, outside, bind, members, text, denied)
        # The same address as external and as a load balancer's is served once, and closed to all
        # whom either closes it to.
        places[key] = _merged(places[key], place) if key in places else place
    return Rendered(tuple(places.values()), common)


def _merged(one: Place, other: Place) -> Place:
    return one._replace(members=(*one.members, *other.members), denied=one.denied or other.denied)


def _chosen(wanted: ServiceState, *, local: bool) -> Sequence[Endpoint]:
    """Return the endpoints for a policy.

    Without a local one, all: pods of this node may then reach those elsewhere, while others get
    no answer, because nothing is masqueraded. kube-proxy does the same in this mode only.
    """
    return (wanted.local or wanted.cluster) if local else wanted.cluster


def _config(service: ServicePort, scheduler: str) -> ServiceConfig:
    flags = ServiceFlags.NONE
    if scheduler == "mh":
        # By address and port: else all connections of a client would have the same endpoint.
        flags |= ServiceFlags.MH_PORT
    if service.affinity_seconds is None:
        return ServiceConfig(scheduler, flags)
    return ServiceConfig(scheduler, flags | ServiceFlags.PERSISTENT, service.affinity_seconds)


def _destinations(endpoints: Sequence[Endpoint]) -> Destinations:
    keys = [
        DestinationKey.of(_packed(endpoint.address) + endpoint.port.to_bytes(2, "big"))
        for endpoint in endpoints
    ]
    return tuple(dict.fromkeys(keys)) if len(keys) > 1 else tuple(keys)


_Outside = tuple[ServiceKey, bool, tuple[Member, ...], Address | None, bool]


def _outside(
    service: ServicePort, protocol: inet.Protocol, context: Context
) -> Iterator[_Outside]:
    """Yield key, whether to bind, members, address and whether denied of each other place."""
    sets, local, own = context.sets, service.external_local, context.own
    for text in service.external_ips:
        address = parsed(text)
        name = sets.external_ip_local if local else sets.external_ip
        member = (name, Entry(address, protocol, service.port))
        key = ServiceKey(protocol, address, service.port)
        yield key, text not in own, (member,), text, False
    for text in service.load_balancer_vips:
        key = ServiceKey(protocol, parsed(text), service.port)
        denied = bool(service.source_ranges) and not _node_allowed(service, context)
        members = tuple(_load_balancer(service, key, sets, denied=denied))
        yield key, text not in own, members, text, denied
    if service.node_port:
        for text in context.node_ports:
            address = parsed(text)
            entry = Entry(None, None, service.node_port)
            if protocol is inet.Protocol.SCTP:
                entry = Entry(address, protocol, service.node_port)
            members = ((sets.node_port[protocol], entry),)
            if local:
                members = (*members, (sets.node_port_local[protocol], entry))
            key = ServiceKey(protocol, address, service.node_port)
            yield key, False, members, None, False


def _load_balancer(
    service: ServicePort, key: ServiceKey, sets: Sets, *, denied: bool
) -> Iterator[Member]:
    entry = Entry(key.address, key.protocol, key.port)
    yield sets.load_balancer, entry
    if service.external_local:
        yield sets.load_balancer_local, entry
    if service.source_ranges:
        for network in _source_ranges(service.source_ranges):
            yield sets.source_cidr, entry._replace(second=network)
        if not denied:
            yield sets.source_ip, entry._replace(second=key.address)
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
        for address in map(parsed, context.own)
    )


def _common(wanted: ServiceState, protocol: inet.Protocol, sets: Sets) -> Iterator[Member]:
    service = wanted.service
    endpoints = wanted.cluster
    if wanted.local and (service.internal_local or service.external_local):
        endpoints = (*endpoints, *wanted.local)
    for endpoint in endpoints:
        if endpoint.local:
            real = parsed(endpoint.address)
            yield sets.loop_back, Entry(real, protocol, endpoint.port, real)
    if service.health_check_node_port:
        yield sets.health_check, Entry(None, None, service.health_check_node_port)


def parsed(text: Address) -> IPAddress:
    """Parse an address. That it is canonical saves all the checks, and most of the time."""
    if ":" in text:
        return ipaddress.IPv6Address(text)
    a, b, c, d = text.split(".")
    return ipaddress.IPv4Address(int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d))


_OCTETS = {str(number): bytes((number,)) for number in range(256)}


def _packed(text: Address) -> bytes:
    """Return the bytes of a canonical address; 100,000 of them are packed at a large start."""
    if ":" in text:
        return ipaddress.IPv6Address(text).packed
    a, b, c, d = text.split(".")
    return _OCTETS[a] + _OCTETS[b] + _OCTETS[c] + _OCTETS[d]
