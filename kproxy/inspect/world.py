"""What a question about packets is asked of: one node in one mode and one IP family. Pure."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from kproxy.api.addresses import with_port
from kproxy.desired.model import Address, Family, Prefix, Protocol, State


class Kind(StrEnum):
    """What an address of a service port is."""

    CLUSTER_IP = "ClusterIP"
    EXTERNAL_IP = "external IP"
    LOAD_BALANCER = "load balancer IP"
    NODE_PORT = "node port"


class Origin(StrEnum):
    """Where a connection begins."""

    POD = "pod"
    NODE = "node"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who sends. ``address`` None: any address of such an origin."""

    origin: Origin
    address: Address | None = None
    here: bool = True
    """Of a pod: whether it runs on this node."""
    in_ranges: bool | None = None
    """Whether it is in a Service's source ranges; None: told by the address."""

    def __str__(self) -> str:
        names = {
            Origin.POD: "a pod of this node" if self.here else "a pod elsewhere",
            Origin.NODE: "this node",
            Origin.OUTSIDE: "outside",
        }
        name = names[self.origin]
        if self.in_ranges is not None:
            name += " (in the source ranges)" if self.in_ranges else " (not in the source ranges)"
        return f"{self.address} ({name})" if self.address else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to. ``protocol`` None: whichever is served there."""

    address: Address
    port: int
    protocol: Protocol | None = None

    def __str__(self) -> str:
        protocol = f"/{self.protocol}" if self.protocol else ""
        return f"{with_port(self.address, self.port)}{protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is known of the node beside the objects, in one family."""

    name: str
    zone: str = ""
    addresses: tuple[Address, ...] = ()
    """Its own, the primary one first; no service addresses, no loopback ones."""
    pod_networks: tuple[Prefix, ...] = ()
    """Where its own pods have their addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One node, one mode, one family."""

    mode: str
    state: State
    node: Node
    scheduler: str = "rr"
    """Of virtual servers, in ipvs mode."""

    @property
    def family(self) -> Family:
        """Return the IP family."""
        return self.state.family

    def is_pod(self, source: Source) -> bool:
        """Return whether the rules take this source for a pod (``detectLocalMode``)."""
        if self.state.local_interface:
            return source.origin is Origin.POD and source.here
        if source.address is not None:
            return within(source.address, self.state.cluster_cidrs)
        return source.origin is Origin.POD and bool(self.state.cluster_cidrs)

    @property
    def knows_pods(self) -> bool:
        """Return whether the rules can tell pods from others."""
        return bool(self.state.cluster_cidrs or self.state.local_interface)

    def source(self, address: Address) -> Source:
        """Return what kind of source an address is."""
        if address in self.node.addresses or is_loopback(address):
            return Source(origin=Origin.NODE, address=address)
        here = within(address, self.node.pod_networks) or any(
            endpoint.address == address and endpoint.local
            for one in self.state.services.values()
            for endpoint in one.known
        )
        if here or within(address, self.state.cluster_cidrs):
            return Source(origin=Origin.POD, address=address, here=here)
        return Source(origin=Origin.OUTSIDE, address=address)


def within(address: str, networks: tuple[Prefix, ...]) -> bool:
    """Return whether an address is in one of the networks (of any family)."""
    found = ipaddress.ip_address(address)
    return any(found in ipaddress.ip_network(network) for network in networks)


def is_loopback(address: str) -> bool:
    """Return whether an address never leaves its host."""
    return ipaddress.ip_address(address).is_loopback
