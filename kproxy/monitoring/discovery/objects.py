"""Objects as targets are made of them: with what the node proxy does not read, or reads leniently.

Pods and Services are those of :mod:`kproxy.api`.
"""

from enum import StrEnum

import msgspec

from kproxy.api import discovery, kinds
from kproxy.api.core import NodeAddress
from kproxy.api.meta import Object, ObjectMeta


class AddressType(StrEnum):
    """What the addresses of a slice are."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"
    FQDN = "FQDN"


class EndpointSlice(Object, frozen=True, kw_only=True, rename="camel"):
    """A part of the backends of a Service; the type of its addresses is not guessed."""

    metadata: ObjectMeta
    address_type: AddressType
    endpoints: list[discovery.Endpoint] | None = None
    ports: list[discovery.EndpointPort] | None = None


class DaemonEndpoint(Object, frozen=True, kw_only=True, rename="camel"):
    """Where a daemon of a Node listens; 0: not said."""

    port: int = msgspec.field(default=0, name="Port")


class NodeDaemonEndpoints(Object, frozen=True, kw_only=True, rename="camel"):
    """The daemons of a Node."""

    kubelet_endpoint: DaemonEndpoint | None = None


class NodeStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """``status`` of a Node, as far as it says where its kubelet is."""

    addresses: list[NodeAddress] | None = None
    daemon_endpoints: NodeDaemonEndpoints | None = None


class Node(Object, frozen=True, kw_only=True, rename="camel"):
    """A machine of the cluster."""

    metadata: ObjectMeta
    status: NodeStatus | None = None


kinds.stands_for(Node, kinds.NODE)
kinds.stands_for(EndpointSlice, kinds.ENDPOINT_SLICE)
