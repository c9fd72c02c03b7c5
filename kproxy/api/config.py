"""KubeProxyConfiguration (``kubeproxy.config.k8s.io/v1alpha1``): kube-proxy's own settings.

Every field of it has its place here, also those that this version does not honour. Reading a file
is the business of :mod:`kproxy.api.configfile`.
"""

from typing import Any

import msgspec

from . import addresses
from .durations import Duration

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"
ANYWHERE = "0.0.0.0"  # noqa: S104 kube-proxy serves its health checks on all addresses


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the sections: camelCase in the file, snake_case here."""


class ClientConnection(Section, frozen=True, kw_only=True, rename="camel"):
    """How to reach the API server."""

    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = "application/vnd.kubernetes.protobuf"
    qps: float = 5.0
    burst: int = 10


class IPTables(Section, frozen=True, kw_only=True, rename="camel"):
    """Mode iptables; ``masqueradeBit`` and ``masqueradeAll`` count for ipvs too."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    localhost_node_ports: bool | None = None
    sync_period: Duration = Duration()
    min_sync_period: Duration = Duration()


class IPVS(Section, frozen=True, kw_only=True, rename="camel"):
    """Mode ipvs. A timeout of zero leaves the kernel's as it is."""

    sync_period: Duration = Duration()
    min_sync_period: Duration = Duration()
    scheduler: str = ""
    exclude_cidrs: list[str] | None = msgspec.field(default=None, name="excludeCIDRs")
    strict_arp: bool = msgspec.field(default=False, name="strictARP")
    tcp_timeout: Duration = Duration()
    tcp_fin_timeout: Duration = Duration()
    udp_timeout: Duration = Duration()


class NFTables(Section, frozen=True, kw_only=True, rename="camel"):
    """Mode nftables."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    sync_period: Duration = Duration()
    min_sync_period: Duration = Duration()


class DetectLocal(Section, frozen=True, kw_only=True, rename="camel"):
    """Arguments of ``detectLocalMode``."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


class Conntrack(Section, frozen=True, kw_only=True, rename="camel"):
    """Connection tracking. None is kube-proxy's default; zero leaves the kernel's as it is."""

    max_per_core: int | None = None
    min: int | None = None
    tcp_established_timeout: Duration | None = None
    tcp_close_wait_timeout: Duration | None = None
    tcp_be_liberal: bool = False
    udp_timeout: Duration = Duration()
    udp_stream_timeout: Duration = Duration()


class KubeProxyConfiguration(Section, frozen=True, kw_only=True, rename="camel"):
    """The whole file; :func:`with_defaults` fills in what is absent."""

    feature_gates: dict[str, bool] | None = None
    client_connection: ClientConnection = ClientConnection()
    logging: dict[str, Any] | None = None
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    service_proxy_name: str = ""
    mode: str = ""
    iptables: IPTables = IPTables()
    ipvs: IPVS = IPVS()
    nftables: NFTables = NFTables()
    winkernel: dict[str, Any] | None = None
    detect_local_mode: str = ""
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = msgspec.field(default="", name="clusterCIDR")
    node_port_addresses: list[str] | None = None
    oom_score_adj: int | None = None
    conntrack: Conntrack = Conntrack()
    config_sync_period: Duration = Duration()
    port_range: str = ""

    def cluster_cidrs(self) -> list[str]:
        """Return the pod networks, canonical."""
        parts = (addresses.parse_network(part.strip()) for part in self.cluster_cidr.split(","))
        return [part.text for part in parts if part is not None]


def with_defaults(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """Fill in what kube-proxy does (``pkg/proxy/apis/config/v1alpha1/defaults.go``).

    As there, a zero ``iptables.minSyncPeriod`` means its default of 1 s, one of ipvs means none.
    """
    replace = msgspec.structs.replace
    bit = config.iptables.masquerade_bit
    tracking = config.conntrack
    established, close_wait = tracking.tcp_established_timeout, tracking.tcp_close_wait_timeout
    return replace(
        config,
        mode=config.mode or "iptables",
        hostname_override=config.hostname_override.strip().lower(),
        healthz_bind_address=_with_port(config.healthz_bind_address, ANYWHERE, 10256),
        metrics_bind_address=_with_port(config.metrics_bind_address, "127.0.0.1", 10249),
        detect_local_mode=config.detect_local_mode or "ClusterCIDR",
        config_sync_period=config.config_sync_period or Duration(900),
        iptables=replace(
            config.iptables,
            masquerade_bit=14 if bit is None else bit,
            sync_period=config.iptables.sync_period or Duration(30),
            min_sync_period=config.iptables.min_sync_period or Duration(1),
        ),
        ipvs=replace(
            config.ipvs,
            scheduler=config.ipvs.scheduler or "rr",
            sync_period=config.ipvs.sync_period or Duration(30),
        ),
        nftables=replace(
            config.nftables,
            sync_period=config.nftables.sync_period or Duration(30),
            min_sync_period=config.nftables.min_sync_period or Duration(1),
        ),
        conntrack=replace(
            tracking,
            tcp_established_timeout=Duration(86400) if established is None else established,
            tcp_close_wait_timeout=Duration(3600) if close_wait is None else close_wait,
        ),
    )


def _with_port(address: str, host: str, port: int) -> str:
    """Return a bind address with its port; kube-proxy lets users leave the port out."""
    bare = address or host
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    parsed = addresses.parse_address(bare)
    if parsed is None:
        return address
    return f"[{parsed.text}]:{port}" if parsed.version == 6 else f"{parsed.text}:{port}"
