"""Who lives where in a whole cluster: names, addresses, and the topology that follows. Pure.

::

    outside1 … 198.51.100.11 ──┐ "outside"
                     edge .1 ──┘
                    admin 192.168.50.6 ──┐   from where kubectl asks
                     edge 192.168.50.5 ──┤   the virtual IP 192.168.49.1 of the API servers,
    control1 …           192.168.50.201 ─┤   203.0.113.0/24 for Services of type LoadBalancer
    etcd1 …              192.168.50.221 ─┤
    monitor1, monitor2   192.168.50.231 ─┤   if it is monitored
    node1                 192.168.50.11 ─┤ one Ethernet segment, "lan"
      ├── client-node1     10.244.1.254  │   where traffic begins on a node: like a pod of it
      └── its pods         10.244.1.2 …  │
    node2                 192.168.50.12 ─┘

Dual stack adds fd00:50::/64 on the segment, fd00:244:N::/64 for the pods of node N, fd00:96::/112
for Services and fd00:113::/112 for load balancers, with the same last numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from kproxy.api import core
from kproxy.errors import InvalidObject
from kproxy.lab import plan
from kproxy.lab.clusterfile import DEFAULT_LINK, ClusterFile, NodeFile, Security, Store
from kproxy.lab.uplinks import Station, hosts_and_ranges, wired
from kproxy.lab.uplinks import check as check_uplinks
from netns import topology as net

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LAN, LAN6 = IPv4Network("192.168.50.0/24"), IPv6Network("fd00:50::/64")
OUTSIDE, OUTSIDE6 = IPv4Network("198.51.100.0/24"), IPv6Network("2001:db8:100::/64")
BALANCERS, BALANCERS6 = IPv4Network("203.0.113.0/24"), IPv6Network("fd00:113::/112")
PODS, PODS6 = IPv4Network("10.244.0.0/16"), IPv6Network("fd00:244::/48")
SERVICES, SERVICES6 = IPv4Network("10.96.0.0/16"), IPv6Network("fd00:96::/112")
API_ADDRESS = IPv4Address("192.168.49.1")
API_PORT = 6443
DNS_ADDRESS, DNS_ADDRESS6 = SERVICES.network_address + 10, SERVICES6.network_address + 10
EDGE, ADMIN, LAN_NAME, OUTSIDE_NAME = "edge", "admin", "lan", "outside"
_EDGE, _ADMIN, _NODES, _CONTROL, _ETCD, _MONITOR = 5, 6, 10, 200, 220, 230
_MONITORS = 2
_OUTSIDE, _OUTSIDE_WIRE = 11, 100

ROUTER = {**plan.ROUTER, "net.ipv6.conf.all.forwarding": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteNode:
    """One node: ``number`` counts from 1. Addresses of IPv6 are None where there is none."""

    number: int
    file: NodeFile
    dual: bool

    @property
    def name(self) -> str:
        """Return the name of the Node object and of its host."""
        return self.file.name

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels that the Node object gets: the file's, and its zone."""
        zone = {core.ZONE_LABEL: self.file.zone} if self.file.zone else {}
        return {**self.file.labels, **zone}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Return the node's addresses on the segment, IPv4 first."""
        return (self.address, self.address6) if self.address6 else (self.address,)

    @property
    def pod_ranges(self) -> tuple[Network, ...]:
        """Return the ranges of the node's pods, IPv4 first."""
        return (self.pod_cidr, self.pod_cidr6) if self.pod_cidr6 else (self.pod_cidr,)

    @property
    def address(self) -> IPv4Address:
        """Return the node's IPv4 address on the segment."""
        return LAN.network_address + _NODES + self.number

    @property
    def address6(self) -> IPv6Address | None:
        """Return the node's IPv6 address on the segment."""
        return LAN6.network_address + _NODES + self.number if self.dual else None

    @property
    def pod_cidr(self) -> IPv4Network:
        """Return the range of the node's pods' IPv4 addresses."""
        return IPv4Network((PODS.network_address + 256 * self.number, 24))

    @property
    def pod_cidr6(self) -> IPv6Network | None:
        """Return the range of the node's pods' IPv6 addresses."""
        if not self.dual:
            return None
        return IPv6Network((PODS6.network_address + (self.number << 64), 64))

    @property
    def client(self) -> str:
        """Return the name of the host from which traffic is sent behind this node."""
        return f"client-{self.name}"

    @property
    def client_address(self) -> IPv4Address:
        """Return that host's IPv4 address, the last of the node's range."""
        return self.pod_cidr.network_address + plan.CLIENT_OFFSET

    @property
    def client_address6(self) -> IPv6Address | None:
        """Return that host's IPv6 address, of the same number."""
        range6 = self.pod_cidr6
        return range6.network_address + plan.CLIENT_OFFSET if range6 else None


@dataclass(frozen=True)
class Site:
    """The places and addresses of a cluster that a file describes."""

    file: ClusterFile

    @property
    def dual(self) -> bool:
        """Whether there is IPv6 beside IPv4."""
        return "IPv6" in self.file.families

    @cached_property
    def nodes(self) -> tuple[SiteNode, ...]:
        """The nodes, in order."""
        return tuple(
            SiteNode(number=number, file=one, dual=self.dual)
            for number, one in enumerate(self.file.each_node(), start=1)
        )

    @property
    def control(self) -> tuple[str, ...]:
        """The names of the hosts of the control plane."""
        return numbered("control", self.file.control_plane.replicas)

    @property
    def etcd(self) -> tuple[str, ...]:
        """The names of the hosts of etcd's members; none with another store."""
        plane = self.file.control_plane
        return numbered("etcd", plane.etcd_members) if plane.store is Store.ETCD else ()

    @property
    def monitors(self) -> tuple[str, ...]:
        """The names of the hosts of Prometheus and Alertmanager; none without monitoring."""
        return numbered("monitor", _MONITORS) if self.file.watched_by is not None else ()

    @property
    def outside(self) -> tuple[str, ...]:
        """The names of the hosts outside the cluster."""
        return numbered("outside", self.file.outside)

    @property
    def api_url(self) -> str:
        """The URL of the API: of the virtual IP before all its servers."""
        scheme = "http" if self.file.control_plane.security is Security.NONE else "https"
        return f"{scheme}://{API_ADDRESS}:{API_PORT}"

    def node(self, name: str) -> SiteNode:
        """Return the node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def lan_address(self, host: str) -> IPv4Address:
        """Return the IPv4 address on the segment of a host there. Raises KeyError."""
        return LAN.network_address + self._numbers[host]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        found = {EDGE: _EDGE, ADMIN: _ADMIN}
        found |= {node.name: _NODES + node.number for node in self.nodes}
        groups = ((_CONTROL, self.control), (_ETCD, self.etcd), (_MONITOR, self.monitors))
        for base, names in groups:
            found |= {name: base + number for number, name in enumerate(names, start=1)}
        return found

    def check(self, where: str) -> None:
        """Raise :class:`InvalidObject` for names that clash, and links of hosts there are not."""
        taken = {*self.control, *numbered("etcd", 9), *numbered("monitor", 9), *self.outside}
        taken |= {EDGE, ADMIN, LAN_NAME, OUTSIDE_NAME}
        for index, node in enumerate(self.nodes):
            if node.name in taken or node.name.startswith("client-"):
                field = f"nodes[{index}].name"
                problem = f"{node.name!r} is the name of another host of the lab"
                raise InvalidObject(where, field, problem, remedy="choose another one")
        known = {*self._numbers, *self.outside, *(node.client for node in self.nodes)}
        for host in self.file.links:
            if host not in known and host != DEFAULT_LINK:
                remedy = f"use {DEFAULT_LINK} or one of {', '.join(sorted(known))}"
                problem = "there is no such host"
                raise InvalidObject(where, f"links.{host}", problem, remedy=remedy)
        check_uplinks(self.file.cards(where), self.stations(), where)

    def stations(self) -> tuple[Station, ...]:
        """Return the hosts that may be on a card of this machine."""
        found = []
        for name, number in self._numbers.items():
            node = next((one for one in self.nodes if one.name == name), None)
            reached = hosts_and_ranges(
                lan_addresses(number, self.dual), node.pod_ranges if node else ()
            )
            found.append(Station(host=name, number=number, reached=reached))
        for number, name in enumerate(self.outside, _OUTSIDE):
            pair = (OUTSIDE.network_address + number, OUTSIDE6.network_address + number)
            reached = hosts_and_ranges(pair if self.dual else pair[:1])
            found.append(Station(host=name, number=_OUTSIDE_WIRE + number, reached=reached))
        return (*found, *(Station(host=one.client, behind=one.name) for one in self.nodes))

    def topology(self) -> net.Topology:
        """Return the hosts before any pod runs."""
        hosts = [self._host(name) for name in self._numbers]
        members = [self._on_lan(name) for name in self._numbers]
        links = []
        for node in self.nodes:
            hosts.append(net.Host(name=node.client, sysctls=plan.QUIET))
            links.append(
                plan.pod_link(
                    node.name,
                    node.client,
                    node.client_address,
                    node_end=node.client[:15],
                    address6=node.client_address6,
                    impairment=self.file.impairment(node.client),
                )
            )
        segments = [net.Segment(name=LAN_NAME, interfaces=tuple(members))]
        if self.outside:
            segments.append(self._outside_segment())
            hosts += [
                net.Host(name=name, routes=tuple(self._outside_routes()), sysctls=plan.QUIET)
                for name in self.outside
            ]
        made = net.Topology(hosts=tuple(hosts), links=tuple(links), segments=tuple(segments))
        cards = self.file.cards("the lab's file")
        return wired(made, cards, self.stations(), dual=self.dual)

    def _host(self, name: str) -> net.Host:
        routes = list(self._routes(name))
        router = name == EDGE or any(node.name == name for node in self.nodes)
        return net.Host(name=name, routes=tuple(routes), sysctls=ROUTER if router else plan.QUIET)

    def _routes(self, host: str) -> Iterator[net.Route]:
        """Yield the routes of a host on the segment: to pods, and to what lies behind the edge."""
        for node in self.nodes:
            if node.name != host:
                for network, via in zip(node.pod_ranges, node.addresses, strict=True):
                    yield net.Route(to=network, via=via)
        if host == EDGE:
            # Where rules translate it (nftables, iptables) it is no address of the edge itself,
            # whose own connections need a way before they get there. With IPVS it is one.
            yield net.Route(to=IPv4Network(API_ADDRESS), via=self.lan_address(self.control[0]))
            return
        edges = lan_addresses(_EDGE, self.dual)
        yield net.Route(to=IPv4Network(API_ADDRESS), via=edges[0])
        behind: list[tuple[Network, Network]] = [(BALANCERS, BALANCERS6)]
        if self.outside:
            behind.append((OUTSIDE, OUTSIDE6))
        for networks in behind:
            for network, via in zip(networks, edges, strict=False):
                yield net.Route(to=network, via=via)

    def _on_lan(self, name: str) -> net.Interface:
        addresses = lan_addresses(self._numbers[name], self.dual)
        return net.Interface(
            host=name,
            name="eth0",
            addresses=tuple(
                _interface(address, LAN if address.version == 4 else LAN6) for address in addresses
            ),
            impairment=self.file.impairment(name),
        )

    def _outside_segment(self) -> net.Segment:
        names = {EDGE: 1} | {name: 10 + number for number, name in enumerate(self.outside, 1)}
        members = []
        for name, number in names.items():
            addresses = [_interface(OUTSIDE.network_address + number, OUTSIDE)]
            if self.dual:
                addresses.append(_interface(OUTSIDE6.network_address + number, OUTSIDE6))
            members.append(
                net.Interface(
                    host=name,
                    name="eth1" if name == EDGE else "eth0",
                    addresses=tuple(addresses),
                    impairment=self.file.impairment(name) if name != EDGE else None,
                )
            )
        return net.Segment(name=OUTSIDE_NAME, interfaces=tuple(members))

    def _outside_routes(self) -> Iterator[net.Route]:
        yield net.Route(to=plan.DEFAULT_ROUTE, via=OUTSIDE.network_address + 1)
        if self.dual:
            yield net.Route(to=plan.DEFAULT_ROUTE6, via=OUTSIDE6.network_address + 1)


def numbered(name: str, count: int) -> tuple[str, ...]:
    """Return names with the numbers from 1 to ``count``."""
    return tuple(f"{name}{number}" for number in range(1, count + 1))


def lan_addresses(number: int, dual: bool) -> tuple[Address, ...]:
    """Return the addresses of a number on the segment, IPv4 first."""
    four = LAN.network_address + number
    return (four, LAN6.network_address + number) if dual else (four,)


def _interface(address: Address, network: Network) -> IPv4Interface | IPv6Interface:
    if isinstance(address, IPv4Address):
        return IPv4Interface((address, network.prefixlen))
    return IPv6Interface((address, network.prefixlen))
