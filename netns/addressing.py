"""Addresses that are the same in every run: MACs derived from names, IP addresses out of networks.

Nothing here is random and nothing is used twice: a pod that takes over the address of a dead one
would receive its packets, and the loss that a laboratory wants to see would be hidden.
"""

import dataclasses
import hashlib
import ipaddress
import itertools
from collections.abc import Iterable, Iterator

from netns.errors import AddressesExhausted
from netns.topology import (
    Address,
    Host,
    Interface,
    InterfaceAddress,
    Neighbour,
    Network,
    Route,
    Topology,
)


def mac_of(host: str, interface: str) -> str:
    """The MAC of an interface without one of its own: 02 (locally administered), then a hash.

    It depends on the two names only. 40 bits: two of 1,000 interfaces share one with a
    probability of 5 in 10 million; :meth:`Topology.validate` finds it within a segment.
    """
    digest = hashlib.blake2b(f"{host}\0{interface}".encode(), digest_size=5).digest()
    return ":".join(f"{octet:02x}" for octet in (2, *digest))


def with_macs(topology: Topology) -> Topology:
    """The same topology in which every interface has a MAC."""
    return dataclasses.replace(
        topology,
        links=tuple(
            dataclasses.replace(link, a=_with_mac(link.a), b=_with_mac(link.b))
            for link in topology.links
        ),
        segments=tuple(
            dataclasses.replace(segment, interfaces=tuple(map(_with_mac, segment.interfaces)))
            for segment in topology.segments
        ),
    )


def _with_mac(interface: Interface) -> Interface:
    if interface.mac is not None:
        return interface
    return dataclasses.replace(interface, mac=mac_of(interface.host, interface.name))


class AddressPool:
    """Hands out the addresses of a network in ascending order, each only once.

    The network's own address, an IPv4 broadcast address and ``reserved`` are left out. There is
    deliberately no way to give an address back.
    """

    def __init__(self, network: Network, *, reserved: Iterable[Address] = ()) -> None:
        self.network = network
        self._reserved = frozenset(reserved)
        self._hosts: Iterator[Address] = iter(network.hosts())

    def address(self) -> Address:
        """The next address. Raises :class:`AddressesExhausted`."""
        for address in self._hosts:
            if address not in self._reserved:
                return address
        remedy = "use a larger network: addresses are never used twice"
        raise AddressesExhausted(f"{self.network} has no address left", remedy=remedy)

    def interface(self, prefixlen: int | None = None) -> InterfaceAddress:
        """The next address with the network's prefix length, or with another one (32, 128)."""
        address = self.address()
        length = self.network.prefixlen if prefixlen is None else prefixlen
        return ipaddress.ip_interface((address, length))


class NetworkPool:
    """Hands out the subnets of a network in ascending order, each only once: one per link, say."""

    def __init__(self, network: Network, *, prefixlen: int) -> None:
        self.network = network
        self._subnets: Iterator[Network] = iter(network.subnets(new_prefix=prefixlen))

    def subnet(self) -> Network:
        """The next subnet. Raises :class:`AddressesExhausted`."""
        for subnet in self._subnets:
            return subnet
        remedy = "use a larger network: subnets are never used twice"
        raise AddressesExhausted(f"{self.network} has no subnet left", remedy=remedy)


def neighbours_of(topology: Topology) -> frozenset[tuple[str, Neighbour]]:
    """Who knows whom from the start: (host, entry), by the links and segments that want it.

    Interfaces without a MAC are left out: call :func:`with_macs` before.
    """
    known = set()
    for joined in topology.joined():
        if not joined.static_neighbours:
            continue
        for here, there in itertools.permutations(joined.interfaces, 2):
            if there.mac is None:
                continue
            for address in there.addresses:
                entry = Neighbour(address=address.ip, mac=there.mac, dev=here.name)
                known.add((here.host, entry))
    return frozenset(known)


def routes_of(host: Host, interfaces: Iterable[Interface]) -> list[Route]:
    """The routes of a host and of its interfaces; those without a gateway first.

    The kernel takes a gateway only when it knows already how to reach it.
    """
    routes = [
        dataclasses.replace(route, dev=interface.name)
        for interface in interfaces
        for route in interface.routes
    ]
    routes.extend(host.routes)
    return sorted(routes, key=lambda route: route.via is not None)
