"""Which values of a KubeProxyConfiguration are impossible, in words for the user.

Fields are named as the newest version of the file names them; who reads a file says it in the
words of that file.
"""

from collections.abc import Iterator

from . import addresses
from .config import MODES, PRIMARY, KubeProxyConfiguration, Section
from .durations import Duration

SCHEDULERS = (
    "rr",
    "wrr",
    "lc",
    "wlc",
    "lblc",
    "lblcr",
    "sh",
    "dh",
    "sed",
    "nq",
    "mh",
    "fo",
    "ovf",
)
LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
FAMILY_POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")

LONGEST_INTERFACE = 15
"""Bytes in the name of an interface; the kernel knows no longer ones."""

Fault = tuple[str, str, str]
"""Field, problem, remedy."""


def faults(config: KubeProxyConfiguration, full: KubeProxyConfiguration) -> Iterator[Fault]:
    """Yield what cannot be in a configuration; ``full`` is the same with its defaults."""
    yield from _word_faults(config)
    yield from _number_faults(config)
    yield from _period_faults(config, full)
    yield from _network_faults(config)
    yield from _node_address_faults(config)
    yield from _bind_faults(full)
    yield from _local_faults(full)


def _word_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    words = (
        ("mode", config.mode, MODES),
        ("ipvs.scheduler", config.ipvs.scheduler, SCHEDULERS),
        ("detectLocalMode", config.detect_local_mode, LOCAL_MODES),
        ("ipFamilyPolicy", config.ip_family_policy, FAMILY_POLICIES),
    )
    for field, value, known in words:
        if value and value not in known:
            remedy = f"use one of {', '.join(known)}"
            if field == "mode" and value in ("userspace", "kernelspace"):
                remedy += "; that one is of Windows, or of old releases of kube-proxy"
            yield field, f"unknown value {value!r}", remedy


def _number_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    tracking, most = config.linux.conntrack, 2**31 - 1
    numbers = (
        *(
            (f"{mode}.masqueradeBit", getattr(config, mode).masquerade_bit, 0, 31)
            for mode in MODES
        ),
        ("linux.oomScoreAdj", config.linux.oom_score_adj, -1000, 1000),
        ("linux.conntrack.maxPerCore", tracking.max_per_core, 0, most),
        ("linux.conntrack.min", tracking.min, 0, most),
        ("clientConnection.burst", config.client_connection.burst, 0, most),
    )
    for field, value, low, high in numbers:
        if value is not None and not low <= value <= high:
            yield field, f"{value} is out of range", f"use {low} to {high}"


def _period_faults(
    config: KubeProxyConfiguration, full: KubeProxyConfiguration
) -> Iterator[Fault]:
    for path, value in _durations(config):
        if value < 0:
            yield path, "is negative", "give a duration of 0s or more"
    if (full.min_sync_period or 0) > full.sync_period:
        yield "minSyncPeriod", "is longer than the sync period", "make it at most syncPeriod"


def _durations(section: Section, prefix: str = "") -> Iterator[tuple[str, Duration]]:
    names = zip(section.__struct_encode_fields__, section.__struct_fields__, strict=True)
    for encoded, name in names:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _durations(value, f"{prefix}{encoded}.")
        elif isinstance(value, Duration):
            yield f"{prefix}{encoded}", value


def _network_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    ports = config.node_port_addresses or []
    if PRIMARY in ports and len(ports) > 1:
        problem = f"holds {PRIMARY!r} and something else"
        yield "nodePortAddresses", problem, f"write {PRIMARY} alone, or networks only"
    lists = {
        "detectLocal.clusterCIDRs": config.detect_local.cluster_cidrs or [],
        "ipvs.excludeCIDRs": config.ipvs.exclude_cidrs or [],
        "nodePortAddresses": [] if PRIMARY in ports else ports,
    }
    for field, networks in lists.items():
        for index, text in enumerate(networks):
            if addresses.parse_network(text) is None:
                remedy = "use CIDR notation, such as 10.128.0.0/14"
                yield f"{field}[{index}]", f"{text!r} is not a network", remedy


def _node_address_faults(config: KubeProxyConfiguration) -> Iterator[Fault]:
    families = set()
    for index, text in enumerate(config.node_ip_override or []):
        field = f"nodeIPOverride[{index}]"
        parsed = addresses.parse_address(text)
        if parsed is None:
            yield field, f"{text!r} is not an address", "give an address of the node"
        elif addresses.special_use(parsed.text) in ("unspecified", "multicast", "broadcast"):
            yield field, f"{text!r} can be no node's address", "give an address of the node"
        elif parsed.version in families:
            yield field, "is a second address of its family", "give one for each family"
        else:
            families.add(parsed.version)


def _bind_faults(full: KubeProxyConfiguration) -> Iterator[Fault]:
    for field, text in (
        ("healthzBindAddress", full.healthz_bind_address),
        ("metricsBindAddress", full.metrics_bind_address),
    ):
        if split_host_port(text) is None:
            yield field, f"{text!r} is not address:port", "use for example 0.0.0.0:10256"


def _local_faults(full: KubeProxyConfiguration) -> Iterator[Fault]:
    """Yield what is wrong in how to tell the pods of this node, where it is used."""
    local = full.detect_local
    names = {
        "BridgeInterface": ("bridgeInterface", local.bridge_interface),
        "InterfaceNamePrefix": ("interfaceNamePrefix", local.interface_name_prefix),
    }
    if full.detect_local_mode not in names:
        return
    field, name = names[full.detect_local_mode]
    if not name:
        problem = f"is missing, and detectLocalMode {full.detect_local_mode} needs it"
        yield f"detectLocal.{field}", problem, "name the interface, such as cni0"
    elif len(name.encode()) > LONGEST_INTERFACE or any(c in "/ \t\n+" for c in name):
        yield f"detectLocal.{field}", f"{name!r} is no name of an interface", "see ip link"


def split_host_port(text: str) -> tuple[str, int] | None:
    """Take ``address:port`` or ``[address]:port`` apart, or return None if it is neither."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    parsed = addresses.parse_address(host)
    return (parsed.text, int(port)) if parsed else None
