"""Objects of ``discovery.k8s.io/v1``: EndpointSlice."""

from .meta import Object, ObjectMeta

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"


class EndpointConditions(Object, frozen=True, kw_only=True, rename="camel"):
    """State of an endpoint; ``None`` in ``ready`` and ``serving`` means true (API reference)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Object, frozen=True, kw_only=True, rename="camel"):
    """A zone that should use an endpoint."""

    name: str


class ForNode(Object, frozen=True, kw_only=True, rename="camel"):
    """A node that should use an endpoint."""

    name: str


class EndpointHints(Object, frozen=True, kw_only=True, rename="camel"):
    """Topology hints (KEP-2433, KEP-3015)."""

    for_zones: list[ForZone] | None = None
    for_nodes: list[ForNode] | None = None


class ObjectReference(Object, frozen=True, kw_only=True, rename="camel"):
    """The Pod behind an endpoint."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Endpoint(Object, frozen=True, kw_only=True, rename="camel"):
    """One backend; of ``addresses`` only the first counts, as for kube-proxy."""

    addresses: list[str]
    conditions: EndpointConditions | None = None
    hints: EndpointHints | None = None
    node_name: str | None = None
    zone: str | None = None
    hostname: str | None = None
    target_ref: ObjectReference | None = None


class EndpointPort(Object, frozen=True, kw_only=True, rename="camel"):
    """A port of all endpoints of a slice; an absent ``port`` means every port (unused here)."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Object, frozen=True, kw_only=True, rename="camel"):
    """A part of the backends of a Service."""

    metadata: ObjectMeta
    address_type: str = ""
    """Required by validation; a reader is told of one that says nothing as of an unknown one."""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
