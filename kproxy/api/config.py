"""KubeProxyConfiguration: kube-proxy's own settings, as one type for both versions of its files.

The fields lie where ``kubeproxy.config.k8s.io/v1alpha2`` has them; what v1alpha1 says otherwise is
the business of :mod:`kproxy.api.configversions`, reading and checking a file that of
:mod:`kproxy.api.configfile`. Every field of kube-proxy has its place here, also those without an
effect on this proxy, and so have the few that it does not know: ``makeBeforeBreak`` and
``linux.conntrack.cleanLast``.
"""

from enum import StrEnum
from typing import Any

import msgspec

from . import addresses
from .durations import Duration

KIND = "KubeProxyConfiguration"
ANYWHERE = "0.0.0.0"  # noqa: S104  kube-proxy serves its health checks on all addresses
PRIMARY = "primary"
"""The node's own addresses of each family, as a value of ``nodePortAddresses``."""

MASQUERADE_BIT = 14
MODES = ("iptables", "ipvs", "nftables")


class Version(StrEnum):
    """Versions of the file, oldest first; the value is its ``apiVersion``."""

    V1ALPHA1 = "kubeproxy.config.k8s.io/v1alpha1"
    V1ALPHA2 = "kubeproxy.config.k8s.io/v1alpha2"

    @property
    def short(self) -> str:
        """Return it without its group: ``v1alpha1``."""
        return self.value.rpartition("/")[2]


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
    """Mode iptables."""

    masquerade_bit: int | None = None
    localhost_node_ports: bool | None = None


class IPVS(Section, frozen=True, kw_only=True, rename="camel"):
    """Mode ipvs. A timeout of zero leaves the kernel's as it is."""

    masquerade_bit: int | None = None
    scheduler: str = ""
    exclude_cidrs: list[str] | None = msgspec.field(default=None, name="excludeCIDRs")
    strict_arp: bool = msgspec.field(default=False, name="strictARP")
    tcp_timeout: Duration = Duration()
    tcp_fin_timeout: Duration = Duration()
    udp_timeout: Duration = Duration()


class NFTables(Section, frozen=True, kw_only=True, rename="camel"):
    """Mode nftables."""

    masquerade_bit: int | None = None


class DetectLocal(Section, frozen=True, kw_only=True, rename="camel"):
    """Arguments of ``detectLocalMode``."""

    bridge_interface: str = ""
    cluster_cidrs: list[str] | None = msgspec.field(default=None, name="clusterCIDRs")
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
    clean_last: bool = False
    """Ours: forget flows of UDP services whose last endpoint is gone, too."""


class Linux(Section, frozen=True, kw_only=True, rename="camel"):
    """What belongs to Linux, whatever the mode."""

    conntrack: Conntrack = Conntrack()
    masquerade_all: bool = False
    oom_score_adj: int | None = None


class Windows(Section, frozen=True, kw_only=True, rename="camel"):
    """What belongs to Windows."""

    run_as_service: bool = False


class KubeProxyConfiguration(Section, frozen=True, kw_only=True, rename="camel"):
    """The whole file; :func:`with_defaults` fills in what is absent."""

    feature_gates: dict[str, bool] | None = None
    client_connection: ClientConnection = ClientConnection()
    logging: dict[str, Any] | None = None
    hostname_override: str = ""
    node_ip_override: list[str] | None = msgspec.field(default=None, name="nodeIPOverride")
    """The node's own addresses; what is not given is taken from the Node object."""
    ip_family_policy: str = msgspec.field(default="", name="ipFamilyPolicy")
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool | None = None
    config_hard_fail: bool | None = None
    """Whether what would only be warned of ends the process."""
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    service_proxy_name: str = ""
    mode: str = ""
    iptables: IPTables = IPTables()
    ipvs: IPVS = IPVS()
    nftables: NFTables = NFTables()
    winkernel: dict[str, Any] | None = None
    linux: Linux = Linux()
    windows: Windows = Windows()
    detect_local_mode: str = ""
    detect_local: DetectLocal = DetectLocal()
    node_port_addresses: list[str] | None = None
    """Networks, or ``primary`` alone; None or empty: all addresses of the node."""
    sync_period: Duration = Duration()
    min_sync_period: Duration | None = None
    """None: not set; zero: every change is synced at once."""
    config_sync_period: Duration = Duration()
    make_before_break: bool = False
    """Ours: ask a proxy that already works on this node to hand over, instead of waiting for its
    end."""

    def cluster_cidrs(self) -> list[str]:
        """Return the pod networks, canonical."""
        given = self.detect_local.cluster_cidrs or []
        parts = (addresses.parse_network(part.strip()) for part in given)
        return [part.text for part in parts if part is not None]

    @property
    def masquerade_bit(self) -> int:
        """Return the bit of the packet mark that asks for masquerading, in this mode."""
        section: IPTables | IPVS | NFTables = self.iptables
        if self.mode == "ipvs":
            section = self.ipvs
        elif self.mode == "nftables":
            section = self.nftables
        return MASQUERADE_BIT if section.masquerade_bit is None else section.masquerade_bit

    @property
    def verbosity(self) -> int:
        """Return ``logging.verbosity``; 0 if it is absent."""
        value = (self.logging or {}).get("verbosity")
        return value if isinstance(value, int) else 0


def with_defaults(
    config: KubeProxyConfiguration, version: Version = Version.V1ALPHA1
) -> KubeProxyConfiguration:
    """Fill in what kube-proxy does; a few defaults differ between the versions of the file."""
    replace = msgspec.structs.replace
    old = version is Version.V1ALPHA1
    mode = config.mode or "iptables"
    hard_bind, hard_config = config.bind_address_hard_fail, config.config_hard_fail
    ports = config.node_port_addresses
    return replace(
        _modes_with_defaults(config, old),
        mode=mode,
        hostname_override=config.hostname_override.strip().lower(),
        node_ip_override=config.node_ip_override or None,
        healthz_bind_address=_with_port(config.healthz_bind_address, ANYWHERE, 10256),
        metrics_bind_address=_with_port(config.metrics_bind_address, "127.0.0.1", 10249),
        bind_address_hard_fail=not old if hard_bind is None else hard_bind,
        config_hard_fail=not old if hard_config is None else hard_config,
        detect_local_mode=config.detect_local_mode or "ClusterCIDR",
        detect_local=replace(
            config.detect_local, cluster_cidrs=config.detect_local.cluster_cidrs or None
        ),
        node_port_addresses=[PRIMARY] if mode == "nftables" and not ports else ports,
        config_sync_period=config.config_sync_period or Duration(900),
        linux=_linux_with_defaults(config.linux),
    )


def _modes_with_defaults(config: KubeProxyConfiguration, old: bool) -> KubeProxyConfiguration:
    """Fill in what the modes have; ``old``: as v1alpha1 means it."""
    replace = msgspec.structs.replace
    least, local = config.min_sync_period, config.iptables.localhost_node_ports
    if least is None:
        least = Duration(0 if old and config.mode == "ipvs" else 1)
    return replace(
        config,
        sync_period=config.sync_period or Duration(30),
        min_sync_period=least,
        iptables=replace(
            config.iptables,
            masquerade_bit=_or(config.iptables.masquerade_bit, MASQUERADE_BIT),
            localhost_node_ports=old if local is None else local,
        ),
        ipvs=replace(
            config.ipvs,
            masquerade_bit=_or(config.ipvs.masquerade_bit, MASQUERADE_BIT),
            scheduler=config.ipvs.scheduler or "rr",
        ),
        nftables=replace(
            config.nftables, masquerade_bit=_or(config.nftables.masquerade_bit, MASQUERADE_BIT)
        ),
    )


def _linux_with_defaults(linux: Linux) -> Linux:
    replace, tracking = msgspec.structs.replace, linux.conntrack
    established, close_wait = tracking.tcp_established_timeout, tracking.tcp_close_wait_timeout
    return replace(
        linux,
        oom_score_adj=_or(linux.oom_score_adj, -999),
        conntrack=replace(
            tracking,
            max_per_core=_or(tracking.max_per_core, 32768),
            min=_or(tracking.min, 131072),
            tcp_established_timeout=Duration(86400) if established is None else established,
            tcp_close_wait_timeout=Duration(3600) if close_wait is None else close_wait,
        ),
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _with_port(address: str, host: str, port: int) -> str:
    """Return a bind address with its port; kube-proxy lets users leave the port out."""
    bare = address or host
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    parsed = addresses.parse_address(bare)
    if parsed is None:
        return address
    return addresses.with_port(parsed.text, port)
