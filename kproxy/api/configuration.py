"""Small objects around the workloads: events, configuration, accounts, leases, addresses."""

from typing import Any

from .meta import Object, ObjectMeta


class Event(Object, frozen=True, kw_only=True, rename="camel"):
    """What happened to an object; ``v1`` and ``events.k8s.io/v1`` are two views of it."""

    metadata: ObjectMeta
    type: str = ""
    reason: str = ""
    action: str = ""
    message: str = ""
    note: str = ""
    involved_object: dict[str, Any] | None = None
    regarding: dict[str, Any] | None = None
    reporting_controller: str = ""
    count: int = 0


class ConfigMap(Object, frozen=True, kw_only=True, rename="camel"):
    """Configuration as text."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None
    immutable: bool | None = None


class Secret(Object, frozen=True, kw_only=True, rename="camel"):
    """Configuration that is not for everybody; values in base64."""

    metadata: ObjectMeta
    type: str = "Opaque"
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None
    immutable: bool | None = None


class ServiceAccount(Object, frozen=True, kw_only=True, rename="camel"):
    """Who a pod is to the API server."""

    metadata: ObjectMeta


class EndpointAddress(Object, frozen=True, kw_only=True, rename="camel"):
    """One address of an Endpoints object."""

    ip: str
    hostname: str = ""
    node_name: str | None = None


class EndpointSubsetPort(Object, frozen=True, kw_only=True, rename="camel"):
    """One port of an Endpoints object."""

    port: int
    name: str = ""
    protocol: str = "TCP"


class EndpointSubset(Object, frozen=True, kw_only=True, rename="camel"):
    """Addresses that share their ports."""

    addresses: list[EndpointAddress] | None = None
    not_ready_addresses: list[EndpointAddress] | None = None
    ports: list[EndpointSubsetPort] | None = None


class Endpoints(Object, frozen=True, kw_only=True, rename="camel"):
    """Backends of a Service without selector, written by a user; mirrored to EndpointSlices."""

    metadata: ObjectMeta
    subsets: list[EndpointSubset] | None = None


class LeaseSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """Who holds a Lease, until when (times: RFC 3339 with microseconds)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(Object, frozen=True, kw_only=True, rename="camel"):
    """A lock with a term: of a leader, or a node's sign of life (``coordination.k8s.io/v1``)."""

    metadata: ObjectMeta
    spec: LeaseSpec = LeaseSpec()


class IPAddressSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """Which object an address belongs to: a reference with group, resource, namespace, name."""

    parent_ref: dict[str, Any] | None = None


class IPAddress(Object, frozen=True, kw_only=True, rename="camel"):
    """A ClusterIP that is taken; its name is the address (KEP-1880)."""

    metadata: ObjectMeta
    spec: IPAddressSpec = IPAddressSpec()
