"""Which service port is meant by an address, and which one may have been meant. Pure."""

from collections.abc import Iterator

from kproxy.api import addresses
from kproxy.api.addresses import with_port
from kproxy.desired.model import Address, Protocol, ServiceState
from kproxy.errors import UsageError

from .flows import addresses_of
from .world import Kind, Origin, Source, Target, World, is_loopback, within

PORT_MAX = 65535
NEAR_MAX = 5
"""So many near misses are told."""


def parse_target(text: str) -> Target:
    """Read ``10.96.0.10:80``, ``10.96.0.10:80/UDP`` or ``[fd00::1]:80``. Raises UsageError."""
    where, slash, protocol = text.partition("/")
    host, _, port = where.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(
            f"{text!r}: an IPv6 address needs brackets", remedy="write [ADDRESS]:PORT"
        )
    parsed = addresses.parse_address(host)
    if parsed is None:
        remedy = "write ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, such as 10.96.0.10:53/UDP"
        problem = f"{host!r} is not an IP address" if host else "lacks a port"
        raise UsageError(f"{text!r}: {problem}", remedy=remedy)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
        raise UsageError(f"{text!r}: {port!r} is not a port", remedy=f"give 1 to {PORT_MAX}")
    if slash and protocol.upper() not in Protocol.__members__:
        known = ", ".join(Protocol.__members__)
        raise UsageError(f"{text!r}: unknown protocol {protocol!r}", remedy=f"use one of: {known}")
    wanted = Protocol(protocol.upper()) if slash else None
    return Target(address=Address(parsed.text), port=int(port), protocol=wanted)


def find(world: World, target: Target) -> list[ServiceState]:
    """Return the service ports that have this address and port: one at most for each protocol.

    Where several claim the same, the first by name has it, as in the backends.
    """
    own = target.address in world.node.addresses or is_loopback(target.address)
    found: dict[Protocol, ServiceState] = {}
    by_node_port: dict[Protocol, ServiceState] = {}
    for name in sorted(world.state.services):
        served = world.state.services[name]
        service = served.service
        if target.protocol not in (None, service.protocol):
            continue
        if target.port == service.port and target.address in addresses_of(service):
            found.setdefault(service.protocol, served)
        elif own and target.port == service.node_port:
            by_node_port.setdefault(service.protocol, served)
    return list((by_node_port | found).values())


def near_misses(world: World, target: Target) -> list[str]:
    """Return what may have been meant by an address that no service port has."""
    misses = dict.fromkeys(_near(world, target))
    more = len(misses) - NEAR_MAX
    return [*list(misses)[:NEAR_MAX], *([f"… and {more} more"] if more > 0 else [])]


def _near(world: World, target: Target) -> Iterator[str]:
    names = sorted(world.state.services)
    services = [world.state.services[name].service for name in names]
    for service in services:
        if target.address in addresses_of(service):
            where = with_port(target.address, service.port)
            other = "" if service.port != target.port else " (another protocol)"
            yield f"{where}/{service.protocol} is {service.name}{other}"
    for service in services:
        for endpoint in world.state.services[service.name].known:
            if endpoint.address == target.address:
                yield f"{target.address} is an endpoint of {service.name}, no service address"
    for service in services:
        if service.node_port == target.port:
            yield f"{target.port}/{service.protocol} is the node port of {service.name}"
    if any(target.address in addresses_of(service) for service in services):
        return
    for service in services:
        if service.port == target.port and within(target.address, world.state.service_cidrs):
            where = with_port(service.cluster_ip, service.port)
            yield f"{where}/{service.protocol} is {service.name}"


def typical_sources(world: World, served: ServiceState | None, kind: Kind | None) -> list[Source]:
    """Return the sources that fare differently, when nobody says from where."""
    ranges = served.service.source_ranges if served and kind is Kind.LOAD_BALANCER else ()
    pod = Source(origin=Origin.POD)
    node = Source(origin=Origin.NODE)
    if not ranges:
        return [pod, node, Source(origin=Origin.OUTSIDE)]
    networks = world.node.pod_networks or world.state.cluster_cidrs
    inside = any(within(network.partition("/")[0], ranges) for network in networks)
    return [
        Source(origin=Origin.POD, in_ranges=inside),
        node,
        Source(origin=Origin.OUTSIDE, in_ranges=True),
        Source(origin=Origin.OUTSIDE, in_ranges=False),
    ]
