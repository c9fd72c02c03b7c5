"""Objects of the core group (``v1``) that a node proxy reads: Service, Node, Namespace.

The others are in :mod:`kproxy.api.pods` and :mod:`kproxy.api.configuration`.
"""

import msgspec

from .meta import Object, ObjectMeta

ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"
"""Labels of a Node that say where it stands."""


class ServicePort(Object, frozen=True, kw_only=True, rename="camel"):
    """One port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str | None = None


class ClientIPConfig(Object, frozen=True, kw_only=True, rename="camel"):
    """``sessionAffinityConfig.clientIP``."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(Object, frozen=True, kw_only=True, rename="camel"):
    """``spec.sessionAffinityConfig``."""

    client_ip: ClientIPConfig | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a Service."""

    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    ports: list[ServicePort] | None = None
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    external_name: str = ""
    ip_families: list[str] | None = None
    ip_family_policy: str | None = None
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    load_balancer_class: str | None = None
    load_balancer_source_ranges: list[str] | None = None
    allocate_load_balancer_node_ports: bool | None = None
    health_check_node_port: int = 0
    traffic_distribution: str | None = None
    publish_not_ready_addresses: bool = False


class LoadBalancerIngress(Object, frozen=True, kw_only=True, rename="camel"):
    """One address that a load balancer gave a Service; ``ipMode`` per KEP-1860."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """``status.loadBalancer``."""

    ingress: list[LoadBalancerIngress] | None = None


class ServiceStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What others report of a Service."""

    load_balancer: LoadBalancerStatus | None = None


class Service(Object, frozen=True, kw_only=True, rename="camel"):
    """A virtual address and the ports behind it."""

    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus | None = None


class NodeAddress(Object, frozen=True, kw_only=True, rename="camel"):
    """One address of a Node."""

    type: str
    address: str


class Taint(Object, frozen=True, kw_only=True, rename="camel"):
    """A taint of a Node."""

    key: str
    effect: str = ""
    value: str = ""


class NodeSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """``spec`` of a Node."""

    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")
    unschedulable: bool = False
    taints: list[Taint] | None = None


class Condition(Object, frozen=True, kw_only=True, rename="camel"):
    """A condition in a status: of a Node, Pod or Deployment."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class NodeStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """``status`` of a Node."""

    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None


class Node(Object, frozen=True, kw_only=True, rename="camel"):
    """A machine of the cluster; here, a network namespace."""

    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus | None = None


class Namespace(Object, frozen=True, kw_only=True, rename="camel"):
    """A scope of names."""

    metadata: ObjectMeta
