"""Pods (``v1``) and what they are made of: containers, probes, hooks, statuses.

Only what the lab's kubelet, scheduler and controllers act on, or validation looks at, is typed;
every other field of a manifest is kept by the API server and ignored here.
"""

from typing import Any

import msgspec

from .core import Condition
from .meta import Object, ObjectMeta


class ContainerPort(Object, frozen=True, kw_only=True, rename="camel"):
    """A port that a container says it listens on."""

    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int | None = None
    """A port of the node: a node is given one pod that wants it; nothing forwards from it."""
    host_ip: str = msgspec.field(default="", name="hostIP")


class EnvVar(Object, frozen=True, kw_only=True, rename="camel"):
    """An environment variable: a literal value, or ``valueFrom`` (the downward API's fieldRef)."""

    name: str
    value: str = ""
    value_from: dict[str, Any] | None = None


class ExecAction(Object, frozen=True, kw_only=True, rename="camel"):
    """Run a command in the container; exit code 0 is success."""

    command: list[str] | None = None


class HTTPHeader(Object, frozen=True, kw_only=True, rename="camel"):
    """A header of an HTTP probe."""

    name: str
    value: str = ""


class HTTPGetAction(Object, frozen=True, kw_only=True, rename="camel"):
    """GET a path; a status from 200 to 399 is success. ``port``: number or a port's name."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] | None = None


class TCPSocketAction(Object, frozen=True, kw_only=True, rename="camel"):
    """Connect to a port; a connection is success."""

    port: int | str
    host: str = ""


class GRPCAction(Object, frozen=True, kw_only=True, rename="camel"):
    """Ask by gRPC's health protocol; SERVING is success. The port is a number, as there."""

    port: int
    service: str = ""


class SleepAction(Object, frozen=True, kw_only=True, rename="camel"):
    """Wait (KEP-3960); of hooks only."""

    seconds: int = 0


class Handler(Object, frozen=True, kw_only=True, rename="camel"):
    """What a hook does: exactly one of them."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Object, frozen=True, kw_only=True, rename="camel"):
    """Hooks of a container."""

    post_start: Handler | None = None
    pre_stop: Handler | None = None


class Probe(Object, frozen=True, kw_only=True, rename="camel"):
    """How the kubelet asks a container how it is; seconds and counts as in Kubernetes."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class ResourceRequirements(Object, frozen=True, kw_only=True, rename="camel"):
    """What a container needs and may use, as quantities by resource."""

    limits: dict[str, Any] | None = None
    requests: dict[str, Any] | None = None
    claims: list[dict[str, Any]] | None = None


class Container(Object, frozen=True, kw_only=True, rename="camel"):
    """A process of a pod. ``command`` runs on the host's file system; see ``docs/kubelet.md``."""

    name: str
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    restart_policy: str | None = None
    """Of init containers only: ``Always`` would make a sidecar, which is refused by validation."""
    env: list[EnvVar] | None = None
    env_from: list[dict[str, Any]] | None = None
    """All keys of a ConfigMap (``configMapRef``) or Secret (``secretRef``), with a ``prefix``."""
    ports: list[ContainerPort] | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    resources: ResourceRequirements | None = None
    """Kept as it is; nothing here acts on it."""
    image_pull_policy: str | None = None
    """Kept as it is; nothing here acts on it."""
    termination_message_policy: str | None = None
    """Kept as it is; nothing here acts on it."""
    volume_mounts: list[dict[str, Any]] | None = None
    """Kept as it is; nothing here acts on it."""


class Toleration(Object, frozen=True, kw_only=True, rename="camel"):
    """A taint that a pod bears; an empty key with operator Exists bears all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodDNSOption(Object, frozen=True, kw_only=True, rename="camel"):
    """One of the ``options`` in a resolv.conf."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(Object, frozen=True, kw_only=True, rename="camel"):
    """What a pod's resolv.conf has beside what its ``dnsPolicy`` gives."""

    nameservers: list[str] | None = None
    searches: list[str] | None = None
    options: list[PodDNSOption] | None = None


class PodSpec(Object, frozen=True, kw_only=True, rename="camel"):
    """What a user wants of a Pod."""

    containers: list[Container] = msgspec.field(default_factory=list)
    init_containers: list[Container] | None = None
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] | None = None
    scheduler_name: str = ""
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    """None: yes."""
    volumes: list[dict[str, Any]] | None = None
    """Kept as it is; nothing here acts on it."""
    active_deadline_seconds: int | None = None
    """Kept as it is; nothing here acts on it."""


class PodIP(Object, frozen=True, kw_only=True, rename="camel"):
    """One address of a Pod."""

    ip: str


class ContainerStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the kubelet reports of a container; the states are as Kubernetes writes them."""

    name: str
    image: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: dict[str, Any] | None = None
    last_state: dict[str, Any] | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class PodStatus(Object, frozen=True, kw_only=True, rename="camel"):
    """What the kubelet reports of a Pod."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] | None = msgspec.field(default=None, name="podIPs")
    host_ip: str = msgspec.field(default="", name="hostIP")
    start_time: str | None = None
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class Pod(Object, frozen=True, kw_only=True, rename="camel"):
    """A group of processes with an address of its own, or the node's."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus | None = None


class PodTemplate(Object, frozen=True, kw_only=True, rename="camel"):
    """What controllers make pods from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()
