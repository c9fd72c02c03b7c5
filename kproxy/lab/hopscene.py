"""Who is who in a lab: of which host a MAC, an address, an interface is. Pure.

A :class:`Scene` is what is known of a topology over time: hosts that are gone stay known, because
packets for them still come.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from netns import link
from netns.topology import Interface, Topology

IPAddress = IPv4Address | IPv6Address
Rank = Callable[[str], int]

SENDER, ROUTER, SEGMENT, POD = 0, 20, 40, 60
"""Where on the way of a packet a host lies; a link comes after the host that sends on it."""
LINK = 10


@dataclass(slots=True)
class Scene:
    """The hosts of a lab. ``senders`` and ``routers`` by name; segments are known; pods the rest.

    ``senders``: the place of origin of each host that sends.
    """

    senders: dict[str, str]
    routers: frozenset[str]
    _interfaces: dict[str, tuple[str, str]] = field(default_factory=dict)
    _hosts_of_addresses: dict[IPAddress, str] = field(default_factory=dict)
    _peers: dict[tuple[str, str], str] = field(default_factory=dict)
    _segments: set[str] = field(default_factory=set)

    def learn(self, topology: Topology) -> None:
        """Add what a topology tells; what was known before stays, unless it says otherwise."""
        for one in topology.links:
            self._learn_interface(one.a, one.b.host)
            self._learn_interface(one.b, one.a.host)
        for segment in topology.segments:
            self._segments.add(segment.name)
            for member in segment.interfaces:
                self._learn_interface(member, segment.name)
                port = link.port_of(segment.name, member)
                self._peers[segment.name, port.name] = member.host

    def _learn_interface(self, interface: Interface, peer: str) -> None:
        if interface.mac is not None:
            self._interfaces[str(interface.mac).lower()] = interface.host, interface.name
        for address in interface.addresses:
            # What many interfaces have, such as the gateway's, is nobody's.
            if not address.ip.is_link_local:
                self._hosts_of_addresses[address.ip] = interface.host
        self._peers[interface.host, interface.name] = peer

    def host_of_mac(self, mac: str) -> str:
        """Return whose interface has that MAC; "" if nobody's."""
        return self._interfaces.get(mac, ("", ""))[0]

    def link_of_mac(self, mac: str) -> str:
        """Return the link on which the interface with that MAC sends, as a place; "" without."""
        return self.link(*self._interfaces.get(mac, ("", "")))

    def gateway(self, host: str) -> str:
        """Return who is at the other end of a host's first interface; "" if nobody."""
        return next((peer for (here, _), peer in self._peers.items() if here == host), "")

    def host_of_address(self, address: IPAddress) -> str:
        """Return whose address it is; "" if nobody's, such as a service's."""
        return self._hosts_of_addresses.get(address, "")

    def link(self, host: str, interface: str) -> str:
        """Return the name of the link on which an interface sends, as a place; "" without one."""
        peer = self._peers.get((host, interface))
        return f"{host}>{peer}" if peer else ""

    def is_pod(self, host: str) -> bool:
        """Whether a host is a pod."""
        return bool(host) and self.rank(host) == POD

    def rank(self, place: str) -> int:
        """Return where on the way a place lies."""
        host, on_link, _ = place.partition(">")
        if host in self.senders:
            at = SENDER
        elif host in self.routers:
            at = ROUTER
        else:
            at = SEGMENT if host in self._segments else POD
        return at + LINK * bool(on_link)

    def origins(self, place: str) -> frozenset[str]:
        """Return whose packets alone can be lost at a place; empty: everybody's."""
        host = place.partition(">")[0]
        return frozenset({self.senders[host]}) if host in self.senders else frozenset()

    def target(self, place: str) -> str:
        """Return the pod for which packets at a place are; "" if it is not for one alone."""
        host, on_link, peer = place.partition(">")
        end = peer if on_link else host
        return end if self.is_pod(end) else ""


def hosts(topology: Topology, skip: Iterable[str]) -> list[str]:
    """Return the names of what passes packets: hosts, but for some, and segments."""
    left_out = frozenset(skip)
    found = [host.name for host in topology.hosts if host.name not in left_out]
    return [*found, *(segment.name for segment in topology.segments)]
