"""What a lab consists of, as values: hosts, the links between them, routes, neighbours.

A topology is data; :mod:`netns.lab` makes it real. It is pure and can be built, compared, merged
and checked without a kernel. :meth:`Topology.validate` finds what the kernel would refuse (or,
worse, accept and never deliver) and names the host, the field and the remedy.

::

    node = Host(name="node1", sysctls={"net.ipv4.ip_forward": "1"})
    pod = Host(name="web-0", routes=(Route(to=ip_network("0.0.0.0/0"), via=GATEWAY),))
    Topology(
        hosts=(node, pod),
        links=(
            Link(
                a=Interface(host="node1", name="vethweb0", addresses=(GATEWAY_INTERFACE,)),
                b=Interface(host="web-0", name="eth0", addresses=(POD_INTERFACE,)),
            ),
        ),
    ).validate()
"""

import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from netns.errors import TopologyError
from netns.impairment import Impairment
from netns.uplink import Uplink

Address = IPv4Address | IPv6Address
InterfaceAddress = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

# A host's name becomes a file name (its namespace), with the lab's name before it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_INTERFACE_NAME = re.compile(r"[^\s/:]{1,15}")  # IFNAMSIZ is 16 with the final zero
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_MIN_MTU = 68  # RFC 791; the kernel refuses less
_MIN_MTU_IPV6 = 1280  # RFC 8200; the kernel takes IPv6 off an interface with less
_MAX_MTU = 65535


class RouteKind(enum.StrEnum):
    """What a route does with the packets that match it."""

    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    LOCAL = "local"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of the main table.

    ``onlink`` says that ``via`` is a neighbour although no address of ``dev`` covers it. A route
    listed at an :class:`Interface` has that interface as ``dev``.
    """

    to: Network
    via: Address | None = None
    dev: str | None = None
    onlink: bool = False
    kind: RouteKind = RouteKind.UNICAST


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent entry of the neighbour (ARP, NDP) table of a host."""

    address: Address
    mac: str
    dev: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One end of a link: an interface called ``name`` in the host ``host``.

    ``mac`` None: derived from the two names (:func:`netns.addressing.mac_of`). ``routes`` exist
    as long as the interface does: the kernel removes them with it. ``impairment``: of what is sent
    here; a member of a segment has the same one for what is sent to it, at the switch's end.
    ``uplink``: it is a card of this machine, with the card's MAC and cable.
    """

    host: str
    name: str
    addresses: tuple[InterfaceAddress, ...] = ()
    mac: str | None = None
    mtu: int = 1500
    routes: tuple[Route, ...] = ()
    impairment: Impairment | None = None
    uplink: Uplink | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A cable (a veth pair) between two hosts; a real one, if both ends have an uplink.

    ``static_neighbours``: each end knows the other's MAC from the start, so that no ARP or
    neighbour discovery disturbs a measurement.
    """

    a: Interface
    b: Interface
    static_neighbours: bool = True

    @property
    def interfaces(self) -> tuple[Interface, Interface]:
        """Both ends."""
        return self.a, self.b

    @property
    def physical(self) -> bool:
        """Whether it is a real cable."""
        return any(end.uplink for end in self.interfaces)

    def __str__(self) -> str:
        return f"{self.a}--{self.b}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A switch (a bridge in a namespace of its own) that joins the interfaces of several hosts.

    Of members with uplinks it is whatever joins these cards: there is no bridge.

    ``static_neighbours`` as with :class:`Link`, between all members.
    """

    name: str
    interfaces: tuple[Interface, ...] = ()
    static_neighbours: bool = True

    @property
    def physical(self) -> bool:
        """Whether it joins cards."""
        return any(member.uplink for member in self.interfaces)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine: a network namespace.

    ``sysctls`` are keys below ``net.`` (dots, or slashes where an interface name has dots).
    """

    name: str
    routes: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    neighbours: tuple[Neighbour, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Hosts, and what joins them."""

    hosts: tuple[Host, ...] = ()
    links: tuple[Link, ...] = ()
    segments: tuple[Segment, ...] = ()

    def joined(self) -> "tuple[Link | Segment, ...]":
        """Everything that joins hosts."""
        return (*self.links, *self.segments)

    def interfaces(self, host: str | None = None) -> Iterator[Interface]:
        """Every interface, or those of one host, in the order of links, then segments."""
        for joined in self.joined():
            for interface in joined.interfaces:
                if host is None or interface.host == host:
                    yield interface

    def merged(self, other: "Topology") -> "Topology":
        """Both together; segments of the same name become one segment with the members of both."""
        segments = {segment.name: segment for segment in self.segments}
        for more in other.segments:
            known = segments.get(more.name)
            if known is None:
                segments[more.name] = more
            else:
                members = known.interfaces + more.interfaces
                segments[more.name] = dataclasses.replace(known, interfaces=members)
        return Topology(
            hosts=self.hosts + other.hosts,
            links=self.links + other.links,
            segments=tuple(segments.values()),
        )

    def without(self, host: str) -> "Topology":
        """What remains when a host is taken away: its links and its interfaces go with it."""
        return Topology(
            hosts=tuple(each for each in self.hosts if each.name != host),
            links=tuple(
                link for link in self.links if all(end.host != host for end in link.interfaces)
            ),
            segments=tuple(
                dataclasses.replace(
                    segment,
                    interfaces=tuple(end for end in segment.interfaces if end.host != host),
                )
                for segment in self.segments
            ),
        )

    def around(self, host: str) -> "Topology":
        """A host with all that joins it to others: what :meth:`without` takes away."""
        return Topology(
            hosts=tuple(each for each in self.hosts if each.name == host),
            links=tuple(
                link for link in self.links if any(end.host == host for end in link.interfaces)
            ),
            segments=tuple(
                dataclasses.replace(segment, interfaces=members)
                for segment in self.segments
                if (members := tuple(end for end in segment.interfaces if end.host == host))
            ),
        )

    def validate(self) -> None:
        """Raise :class:`netns.errors.TopologyError` for the first thing that cannot be."""
        _check_names(self)
        for interface in self.interfaces():
            _check_interface(interface)
        for joined in self.joined():
            _check_broadcast_domain(joined)
        _check_uplinks(self)
        for host in self.hosts:
            _check_host(host, tuple(self.interfaces(host.name)))


def _check_names(topology: Topology) -> None:
    taken: set[str] = set()
    for kind, name in (
        *(("host", host.name) for host in topology.hosts),
        *(("segment", segment.name) for segment in topology.segments),
    ):
        if not _NAME.fullmatch(name):
            remedy = "use letters, digits, '-', '_' and '.', at most 200 of them"
            raise TopologyError(f"{kind} {name!r}", "name", "not a usable name", remedy=remedy)
        if name in taken:
            remedy = "hosts and segments need names of their own"
            raise TopologyError(f"{kind} {name}", "name", "there are two of them", remedy=remedy)
        taken.add(name)
    hosts = {host.name for host in topology.hosts}
    seen: set[tuple[str, str]] = set()
    for interface in topology.interfaces():
        if interface.host not in hosts:
            problem = f"there is no host {interface.host!r}"
            raise TopologyError(
                f"interface {interface}", "host", problem, remedy="add the host to the topology"
            )
        if (interface.host, interface.name) in seen:
            problem = "the host has two interfaces of this name"
            raise TopologyError(
                f"interface {interface}", "name", problem, remedy="rename one of them"
            )
        seen.add((interface.host, interface.name))


def _check_interface(interface: Interface) -> None:
    obj = f"interface {interface}"
    name = interface.name
    if not _INTERFACE_NAME.fullmatch(name) or name in {".", "..", "lo", "all", "default"}:
        remedy = "1 to 15 characters without '/', ':' and spaces; not lo, all or default"
        raise TopologyError(obj, "name", f"{name!r} is no interface name", remedy=remedy)
    for address in interface.addresses:
        if not isinstance(address, InterfaceAddress):
            remedy = "use ipaddress.ip_interface('192.0.2.1/24')"
            raise TopologyError(
                obj, "addresses", f"{address!r} is no interface address", remedy=remedy
            )
    if len(set(interface.addresses)) != len(interface.addresses):
        raise TopologyError(obj, "addresses", "an address is listed twice", remedy="list it once")
    lowest = _MIN_MTU_IPV6 if any(a.version == 6 for a in interface.addresses) else _MIN_MTU
    if not lowest <= interface.mtu <= _MAX_MTU:
        remedy = f"use {lowest} to {_MAX_MTU}"
        raise TopologyError(obj, "mtu", f"{interface.mtu} is out of range", remedy=remedy)
    if interface.mac is not None:
        _check_mac(obj, interface.mac)
    if interface.impairment is not None:
        interface.impairment.check(obj)
    for route in interface.routes:
        if route.dev not in (None, name):
            problem = f"a route listed here cannot use {route.dev}"
            raise TopologyError(obj, "routes", problem, remedy="list it at the host")


def _check_mac(obj: str, mac: str) -> None:
    if not _MAC.fullmatch(mac):
        raise TopologyError(
            obj, "mac", f"{mac!r} is no MAC address", remedy="use 02:00:00:00:00:01"
        )
    if int(mac[:2], 16) & 1:
        remedy = "use an even first octet, such as 02"
        raise TopologyError(obj, "mac", f"{mac} is a multicast address", remedy=remedy)


def _check_broadcast_domain(joined: Link | Segment) -> None:
    obj = f"link {joined}" if isinstance(joined, Link) else f"segment {joined.name}"
    if isinstance(joined, Link) and joined.a.host == joined.b.host:
        problem = f"both ends are in {joined.a.host}"
        raise TopologyError(obj, "b.host", problem, remedy="a link joins two hosts")
    macs: dict[str, Interface] = {}
    addresses: dict[Address, Interface] = {}
    for interface in joined.interfaces:
        if interface.mac is not None:
            other = macs.setdefault(interface.mac.lower(), interface)
            if other is not interface:
                problem = f"{interface.mac} of {interface} is that of {other} too"
                raise TopologyError(obj, "mac", problem, remedy="leave mac out to get unique ones")
        for address in interface.addresses:
            other = addresses.setdefault(address.ip, interface)
            if other is not interface:
                problem = f"{address.ip} of {interface} is that of {other} too"
                raise TopologyError(obj, "addresses", problem, remedy="change one of them")


def _check_uplinks(topology: Topology) -> None:
    """All ends of a cable are cards or none; a card that is taken whole is taken once."""
    for joined in topology.joined():
        for each in joined.interfaces:
            if joined.physical and each.uplink is None:
                raise TopologyError(f"interface {each}", "uplink", "is missing", remedy="name one")
    taken: list[Uplink] = []
    for interface in topology.interfaces():
        if interface.uplink is not None:
            interface.uplink.check_beside(taken, f"interface {interface}")
            taken.append(interface.uplink)


def _check_host(host: Host, interfaces: tuple[Interface, ...]) -> None:
    obj = f"host {host.name}"
    devices = {"lo"} | {interface.name for interface in interfaces}
    listed = [
        dataclasses.replace(route, dev=interface.name)
        for interface in interfaces
        for route in interface.routes
    ]
    routes = [*listed, *host.routes]
    connected = [address.network for each in interfaces for address in each.addresses]
    connected += [route.to for route in routes if route.via is None and route.dev is not None]
    for route in routes:
        _check_route(obj, route, devices, connected)
    if len({route.to for route in routes}) != len(routes):
        twice = next(a.to for i, a in enumerate(routes) for b in routes[:i] if a.to == b.to)
        problem = f"two routes to {twice}"
        raise TopologyError(obj, "routes", problem, remedy="one destination, one route")
    for neighbour in host.neighbours:
        _check_mac(f"{obj}: neighbour {neighbour.address}", neighbour.mac)
        if neighbour.dev not in devices:
            problem = f"neighbour {neighbour.address}: there is no interface {neighbour.dev!r}"
            raise TopologyError(obj, "neighbours", problem, remedy=_one_of(devices))
    for key, value in host.sysctls.items():
        if not key.startswith(("net.", "net/")) or ".." in key:
            problem = f"{key!r} does not belong to a network namespace"
            raise TopologyError(obj, "sysctls", problem, remedy="use keys that begin with net.")
        if not isinstance(value, str):
            problem = f"{key}: {value!r} is not text"
            raise TopologyError(obj, "sysctls", problem, remedy="write values in quotes")


def _check_route(obj: str, route: Route, devices: set[str], connected: list[Network]) -> None:
    field = f"routes: {route.to}"
    if route.kind in (RouteKind.BLACKHOLE, RouteKind.UNREACHABLE):
        if route.via is not None or route.dev is not None:
            problem = f"a {route.kind} route leads nowhere"
            raise TopologyError(obj, field, problem, remedy="remove via and dev")
        return
    if route.via is None and route.dev is None:
        raise TopologyError(obj, field, "leads nowhere", remedy="give it via or dev")
    if route.dev is not None and route.dev not in devices:
        problem = f"there is no interface {route.dev!r}"
        raise TopologyError(obj, field, problem, remedy=_one_of(devices))
    if route.via is None:
        return
    if route.via.version != route.to.version:
        problem = f"{route.via} is of the other IP version"
        raise TopologyError(obj, field, problem, remedy="via and to must be of one version")
    if route.onlink:
        if route.dev is None:
            raise TopologyError(obj, field, "onlink needs an interface", remedy="give it dev")
    elif not route.via.is_link_local and not any(route.via in network for network in connected):
        remedy = "give an interface an address in its network, or set dev and onlink"
        raise TopologyError(obj, field, f"{route.via} is on no network of the host", remedy=remedy)


def _one_of(devices: set[str]) -> str:
    return f"the host has {', '.join(sorted(devices))}"
