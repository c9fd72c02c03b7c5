"""The values in which the wanted state of a node is said; all that a backend is ever given.

Addresses are canonical text (:data:`Address`), not ``ipaddress`` objects: at 10,000 services with
10 endpoints each, hashing and comparing those objects would cost more than the rest of a sync. The
trackers make them canonical where objects enter. For the same reason these are msgspec structs and
not dataclasses: making one takes a tenth of the time, and the garbage collector need not look at
100,000 of them again and again (``gc=False`` is safe where no cycle is possible).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

Address = NewType("Address", str)
"""An IPv4 or IPv6 address as ``ipaddress`` would print it."""

Prefix = NewType("Prefix", str)
"""An IPv4 or IPv6 network in CIDR notation, canonical."""


class Family(StrEnum):
    """IP family; the values are Kubernetes' own."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"


class Protocol(StrEnum):
    """Transport protocol; the values are Kubernetes' own."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


class ServicePortName(NamedTuple):
    """Identity of one port of one Service."""

    namespace: str
    name: str
    port: str
    """The port's name; empty for the only port of a Service."""
    protocol: Protocol

    def __str__(self) -> str:
        port = f":{self.port}" if self.port else ""
        return f"{self.namespace}/{self.name}{port}"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One backend of a service port, and what is known of it."""

    address: Address
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    """Whether it runs on this node."""
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()


class ServicePort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One port of a Service in one IP family, as far as a proxy needs it."""

    name: ServicePortName
    cluster_ip: Address
    port: int
    node_port: int = 0
    external_ips: tuple[Address, ...] = ()
    load_balancer_vips: tuple[Address, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    affinity_seconds: int | None = None
    """Session affinity by client address: its timeout; None: no affinity."""
    external_local: bool = False
    internal_local: bool = False
    health_check_node_port: int = 0

    @property
    def protocol(self) -> Protocol:
        """Return the transport protocol."""
        return self.name.protocol


class ServiceState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A service port with the endpoints chosen for it (see ``topology.categorize_endpoints``)."""

    service: ServicePort
    cluster: tuple[Endpoint, ...] = ()
    """Endpoints for traffic with the policy Cluster."""
    local: tuple[Endpoint, ...] = ()
    """Endpoints for traffic with the policy Local."""
    known: tuple[Endpoint, ...] = ()
    """All serving endpoints, chosen or not: flows to these must not be cut."""
    anywhere: bool = False
    """Whether any usable endpoint exists in the cluster: decides between reject and drop."""


class NodePorts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where on this node node ports are served, in one IP family (``nodePortAddresses``)."""

    everywhere: bool = True
    """On every address of the node; ``addresses`` are then all those that it has now."""
    addresses: tuple[Address, ...] = ()
    """The node's own addresses that are meant, sorted; never loopback ones."""
    localhost: bool = False
    """Also on 127.0.0.1 (``localhostNodePorts``): IPv4, in iptables mode only."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole wanted state of one node in one IP family."""

    family: Family
    services: Mapping[ServicePortName, ServiceState]
    cluster_cidrs: tuple[Prefix, ...] = ()
    """Sources inside are pods: not masqueraded on their way to a ClusterIP. Empty: unknown."""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    local_interface: str = ""
    """Pods of this node are what comes in by this interface (``detectLocalMode`` BridgeInterface),
    or by one whose name so begins, if it ends with ``+`` (InterfaceNamePrefix). Empty: told by
    ``cluster_cidrs``."""
    node_ports: NodePorts = NodePorts()
    service_cidrs: tuple[Prefix, ...] = ()
    """Where ClusterIPs come from (ServiceCIDR objects): unused addresses there are dropped in
    nftables mode. Empty: unknown."""
