"""Who lives where in a lab's cluster: names, addresses, and the topology that follows from them.

Pure: a :class:`Plan` is a value, :func:`topology` turns it into what ``netns`` builds::

    control (API server, manager)  192.168.50.10 ──┐
    node1                          192.168.50.11 ──┤ one Ethernet segment, "lan"
      ├── client1  (traffic)       10.244.1.254    │
      └── its pods                 10.244.1.2 …    │
    node2                          192.168.50.12 ──┘
      ├── client2 …

Every pod, and every client, hangs on its node by a veth pair and a host route, as with the common
CNI plug-ins; so all its traffic passes its node's IP layer, where the proxy's rules are. Clients
stand for pods that talk to services: their addresses lie in the cluster's range.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from kproxy import errors
from kproxy.lab.uplinks import Station, Uplinks, hosts_and_ranges, wired
from kproxy.lab.uplinks import check as check_uplinks
from netns import topology as net
from netns.impairment import Impairment

LAN = IPv4Network("192.168.50.0/24")
CONTROL = "control"
CONTROL_NUMBER = 10
CLIENT_OFFSET = 254
GATEWAY = IPv4Address("169.254.1.1")
"""Every pod's default gateway, its node: link-local, by a static neighbour entry, as in Calico."""
GATEWAY6 = IPv6Address("fe80::1")
LAN6 = IPv6Network("fd00:192:168:50::/64")

CLUSTER_CIDR = IPv4Network("10.244.0.0/16")
SERVICE_CIDR = IPv4Network("10.96.0.0/16")
DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")
DEFAULT_ROUTE6 = IPv6Network("::/0")
MAX_NODES = 50
QUIET = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"}
ROUTER = {
    **QUIET,
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node: ``number`` counts from 1."""

    number: int
    cluster_cidr: IPv4Network
    cluster_cidr6: IPv6Network | None = None
    """At most a /48; each node's pods get a /64 of it. None: pods have no IPv6 addresses."""

    @property
    def name(self) -> str:
        """Return the name of the Node object and of its host in the lab."""
        return f"node{self.number}"

    @property
    def address(self) -> IPv4Address:
        """Return the node's address on the segment."""
        return LAN.network_address + CONTROL_NUMBER + self.number

    @property
    def pod_cidr(self) -> IPv4Network:
        """Return the range of the node's pods."""
        return IPv4Network((self.cluster_cidr.network_address + 256 * self.number, 24))

    @property
    def address6(self) -> IPv6Address | None:
        """Return the node's IPv6 address on the segment, where pods have such addresses."""
        return LAN6.network_address + 10 + self.number if self.cluster_cidr6 else None

    @property
    def pod_cidr6(self) -> IPv6Network | None:
        """Return the range of the node's pods' IPv6 addresses."""
        if self.cluster_cidr6 is None:
            return None
        return IPv6Network((self.cluster_cidr6.network_address + (self.number << 64), 64))

    @property
    def client(self) -> str:
        """Return the name of the host from which traffic is sent behind this node."""
        return f"client{self.number}"

    @property
    def client_address(self) -> IPv4Address:
        """Return that host's address, the last of the node's range."""
        return self.pod_cidr.network_address + CLIENT_OFFSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cluster's size and ranges, and which hosts are on cards of this machine."""

    nodes: int = 2
    uplinks: Uplinks = field(default_factory=dict)
    cluster_cidr: IPv4Network = CLUSTER_CIDR
    service_cidr: IPv4Network = SERVICE_CIDR
    api_port: int = 6443

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= MAX_NODES:
            raise errors.UsageError(
                f"--nodes {self.nodes}: a lab has 2 to {MAX_NODES} nodes",
                remedy="one node is hit by the fault, at least one other is watched beside it",
            )

    def check(self) -> None:
        """Raise :class:`InvalidObject` for hosts on cards that cannot be."""
        check_uplinks(self.uplinks, self.stations(), "--uplinks")

    @property
    def control_address(self) -> IPv4Address:
        """Return the address of the host with the API server and the controller manager."""
        return LAN.network_address + CONTROL_NUMBER

    @property
    def api_url(self) -> str:
        """Return the URL of the API server."""
        return f"http://{self.control_address}:{self.api_port}"

    def each_node(self) -> Iterator[NodePlan]:
        """Yield the nodes in order."""
        for number in range(1, self.nodes + 1):
            yield NodePlan(number=number, cluster_cidr=self.cluster_cidr)

    def stations(self) -> tuple[Station, ...]:
        """Return the hosts that may be on a card."""
        nodes = list(self.each_node())
        reached = hosts_and_ranges
        control = Station(
            host=CONTROL, number=CONTROL_NUMBER, reached=reached([self.control_address])
        )
        return (
            control,
            *(
                Station(
                    host=node.name,
                    number=CONTROL_NUMBER + node.number,
                    reached=reached([node.address], [node.pod_cidr]),
                )
                for node in nodes
            ),
            *(Station(host=node.client, behind=node.name) for node in nodes),
        )

    def node(self, name: str) -> NodePlan:
        """Return the node of that name; KeyError if there is none."""
        for node in self.each_node():
            if node.name == name:
                return node
        raise KeyError(name)


def pod_link(
    node: str,
    pod: str,
    address: IPv4Address,
    *,
    node_end: str,
    address6: IPv6Address | None = None,
    impairment: Impairment | None = None,
) -> net.Link:
    """Return the cable between a node and a pod's or client's host, with the routes both ways."""
    node_side = net.Interface(
        host=node,
        name=node_end,
        addresses=(IPv4Interface(f"{GATEWAY}/32"),),
        routes=(net.Route(to=IPv4Network(address)),),
        impairment=impairment,
    )
    pod_side = net.Interface(
        host=pod,
        name="eth0",
        addresses=(IPv4Interface(f"{address}/32"),),
        routes=(net.Route(to=DEFAULT_ROUTE, via=GATEWAY, onlink=True),),
        impairment=impairment,
    )
    if address6 is None:
        return net.Link(a=node_side, b=pod_side)
    return net.Link(
        a=replace(
            node_side,
            addresses=(*node_side.addresses, IPv6Interface(f"{GATEWAY6}/64")),
            routes=(*node_side.routes, net.Route(to=IPv6Network(address6))),
        ),
        b=replace(
            pod_side,
            addresses=(*pod_side.addresses, IPv6Interface(f"{address6}/128")),
            routes=(*pod_side.routes, net.Route(to=DEFAULT_ROUTE6, via=GATEWAY6)),
        ),
    )


def topology(plan: Plan) -> net.Topology:
    """Return the lab's hosts before any pod runs."""
    nodes = list(plan.each_node())
    hosts = [net.Host(name=CONTROL, sysctls=QUIET)]
    links: list[net.Link] = []
    members = [_on_lan(CONTROL, plan.control_address)]
    for node in nodes:
        routes = tuple(
            net.Route(to=other.pod_cidr, via=other.address) for other in nodes if other != node
        )
        hosts.append(net.Host(name=node.name, routes=routes, sysctls=ROUTER))
        hosts.append(net.Host(name=node.client, sysctls=QUIET))
        members.append(_on_lan(node.name, node.address))
        links.append(pod_link(node.name, node.client, node.client_address, node_end=node.client))
    virtual = net.Topology(
        hosts=tuple(hosts),
        links=tuple(links),
        segments=(net.Segment(name="lan", interfaces=tuple(members)),),
    )
    return wired(virtual, plan.uplinks, plan.stations())


def _on_lan(host: str, address: IPv4Address) -> net.Interface:
    addresses = (IPv4Interface(f"{address}/{LAN.prefixlen}"),)
    return net.Interface(host=host, name="eth0", addresses=addresses)
