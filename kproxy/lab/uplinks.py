"""Hosts of a lab on network cards of this machine: which, and what goes over their cables.

::

    uplinks: {node1: eth1, client: eth2}              a lab's file
    uplinks: {node1: {nic: eth1, as: macvlan}}        an interface on the card; or a free VF

A node and its traffic host (``client`` stands for that of the first node) are joined by their two
cards instead of the virtual cable between them. All other hosts with cards are on one more
network, the *wire* (192.168.60.0/24, fd00:60::/64), as ``uplink``, with the last number that they
have in the lab; what they send to each other's addresses and pods goes there, and all else as in
any lab. What the cards are wired to is up to who has wired them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_network,
)
from pathlib import Path

from kproxy.api import yamltext
from kproxy.errors import InvalidObject, UsageError
from netns import topology as net
from netns.errors import TopologyError
from netns.uplink import Uplink

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Uplinks = Mapping[str, Uplink]

WIRE, WIRE6 = IPv4Network("192.168.60.0/24"), IPv6Network("fd00:60::/64")
WIRE_NAME, INTERFACE = "wire", "uplink"
CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A host that may have a card: its number on the wire, and what is to be reached there.

    ``behind``: the node whose traffic host it is; such a host has no number.
    """

    host: str
    number: int = 0
    reached: tuple[Network, ...] = ()
    behind: str = ""


def parse(value: object, where: str, field: str = "uplinks") -> dict[str, Uplink]:
    """Return what a file says of the hosts' cards. Raises :class:`InvalidObject`."""
    if not isinstance(value, Mapping):
        remedy = "write {node1: eth1, client: eth2}"
        raise InvalidObject(where, field, f"{value!r} is no list of hosts", remedy=remedy)
    try:
        return {
            str(host): Uplink.parse(said, where, f"{field}.{host}") for host, said in value.items()
        }
    except TopologyError as error:
        raise InvalidObject(where, error.field, error.problem, remedy=error.remedy) from None


def option(text: str) -> dict[str, Uplink]:
    """Return what ``--uplinks`` says: ``node1=eth1,client=eth2:macvlan``, or a file.

    The file has the hosts, or is a lab's file with ``uplinks``. Raises :class:`UsageError` and
    :class:`InvalidObject`.
    """
    if "=" not in text:
        path = Path(text)
        try:
            found = yamltext.parse_one(path.read_text(encoding="utf-8"), path.name)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            remedy = "name a file, or write node1=eth1,client=eth2"
            raise UsageError(f"--uplinks {text}: {reason}", remedy=remedy) from None
        inner = found.get("uplinks", found) if isinstance(found, Mapping) else found
        return parse(inner, path.name)
    said: dict[str, object] = {}
    for word in text.split(","):
        host, _, card = word.partition("=")
        nic, _, kind = card.partition(":")
        if host in said:
            raise UsageError(f"--uplinks: {host} is named twice", remedy="a host has one card")
        said[host] = {"nic": nic, "as": kind} if kind else nic
    return parse(said, "--uplinks", "host")


def check(uplinks: Uplinks, stations: Sequence[Station], where: str) -> None:
    """Raise :class:`InvalidObject` for a host that there is not, or that cannot have a card."""
    known = {station.host: station for station in stations}
    named = _named(uplinks, stations)
    for host in named:
        field = f"uplinks.{host}"
        if host not in known:
            remedy = f"use {CLIENT}, {', '.join(sorted(known))}"
            raise InvalidObject(where, field, "there is no such host", remedy=remedy)
        node = known[host].behind
        if node and node not in named:
            problem = f"{host} is behind {node}, which has no card"
            raise InvalidObject(where, field, problem, remedy=f"give {node} one, too")
    if len(named) != len(uplinks):
        remedy = f"{CLIENT} is the traffic host of the first node: name it once"
        raise InvalidObject(where, "uplinks", "a host is named twice", remedy=remedy)


def wired(
    topology: net.Topology, uplinks: Uplinks, stations: Sequence[Station], *, dual: bool = False
) -> net.Topology:
    """Return the topology in which hosts are on their cards; see the module."""
    if not uplinks:
        return topology
    named = _named(uplinks, stations)
    nodes = {one.host: one.behind for one in stations if one.behind and one.host in named}
    links = tuple(_on_cards(link, named, nodes) for link in topology.links)
    paired = {*nodes, *nodes.values()}
    members = [one for one in stations if one.host in named and one.host not in paired]
    segments = topology.segments
    if members:
        ends = tuple(_on_wire(one, named[one.host], dual=dual) for one in members)
        segments = (*segments, net.Segment(name=WIRE_NAME, interfaces=ends))
    hosts = tuple(_routed(host, members) for host in topology.hosts)
    return dataclasses.replace(topology, hosts=hosts, links=links, segments=segments)


def _named(uplinks: Uplinks, stations: Sequence[Station]) -> dict[str, Uplink]:
    """Return the cards by the hosts' own names."""
    first = next((one.host for one in stations if one.behind), CLIENT)
    return {first if host == CLIENT else host: one for host, one in uplinks.items()}


def _on_cards(link: net.Link, named: Uplinks, nodes: Mapping[str, str]) -> net.Link:
    """Return a link between a node and its traffic host, on cards if both have some."""
    if nodes.get(link.b.host) != link.a.host:
        return link
    return dataclasses.replace(
        link,
        a=dataclasses.replace(link.a, uplink=named[link.a.host]),
        b=dataclasses.replace(link.b, uplink=named[link.b.host]),
    )


def _on_wire(station: Station, uplink: Uplink, *, dual: bool) -> net.Interface:
    addresses: list[IPv4Interface | IPv6Interface] = [
        IPv4Interface((_wire_address(station), WIRE.prefixlen))
    ]
    if dual:
        addresses.append(IPv6Interface((_wire_address6(station), WIRE6.prefixlen)))
    return net.Interface(
        host=station.host, name=INTERFACE, addresses=tuple(addresses), uplink=uplink
    )


def _routed(host: net.Host, members: Sequence[Station]) -> net.Host:
    """Return a host whose ways to the others on the wire go over the wire."""
    if all(one.host != host.name for one in members):
        return host
    better = {
        network: net.Route(
            to=network,
            via=_wire_address(one) if network.version == 4 else _wire_address6(one),
        )
        for one in members
        if one.host != host.name
        for network in one.reached
    }
    others = tuple(route for route in host.routes if route.to not in better)
    return dataclasses.replace(host, routes=(*others, *better.values()))


def _wire_address(station: Station) -> IPv4Address:
    return WIRE.network_address + station.number


def _wire_address6(station: Station) -> IPv6Address:
    return WIRE6.network_address + station.number


def hosts_and_ranges(
    addresses: Sequence[Address | None], ranges: Sequence[Network | None] = ()
) -> tuple[Network, ...]:
    """Return addresses, as networks of one, and ranges: those that there are."""
    singles = [ip_network(each) for each in addresses if each is not None]
    return (*singles, *(each for each in ranges if each is not None))
