"""What the daemon needs to know, taken from kube-proxy's configuration."""

import os
from collections.abc import Iterable

import msgspec

from kproxy.agent import nodeaddresses
from kproxy.agent.healthserver import parse_bind_address
from kproxy.agent.nodeaddresses import NodePortPolicy
from kproxy.api import addresses
from kproxy.api.config import KubeProxyConfiguration
from kproxy.backends.base import BACKENDS, Options
from kproxy.desired.build import NodeSettings
from kproxy.desired.model import Family, Prefix
from kproxy.errors import UsageError

CONNTRACK_MAX = "net/netfilter/nf_conntrack_max"
"""How many connections are tracked; one number for the whole machine."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the daemon; times in seconds."""

    mode: str
    node: str
    families: tuple[NodeSettings, ...]
    """One for each IP family; the first is always served, the others once a Service has them."""
    options: Options
    node_ports: tuple[NodePortPolicy, ...]
    """Where node ports are served, for each IP family."""
    pods_by_node: bool
    """Whether the networks of this node's pods are those that its Node object names."""
    sync_period: float
    min_sync_period: float
    make_before_break: bool
    """Whether to ask another proxy of this node to hand over."""
    healthz: tuple[str, int]
    metrics: tuple[str, int]
    bind_hard_fail: bool
    """Whether an address that cannot be listened at ends the process."""
    configuration: KubeProxyConfiguration
    """All of it, to show."""
    sysctls: tuple[tuple[str, int], ...]
    """Kernel switches to set, by key; of those that do not exist here nothing is expected."""


def from_config(config: KubeProxyConfiguration) -> Settings:
    """Return the settings that a configuration means. Raises UsageError for an unknown mode."""
    if config.mode not in BACKENDS:
        raise UsageError(
            f"mode: {config.mode!r} is not supported",
            remedy=f"use one of: {', '.join(BACKENDS)}",
        )
    node = config.hostname_override or os.uname().nodename.lower()
    return Settings(
        mode=config.mode,
        node=node,
        families=tuple(_family(config, node, family) for family in Family),
        options=_options(config),
        node_ports=tuple(nodeaddresses.policy(config, family) for family in Family),
        pods_by_node=config.detect_local_mode == "NodeCIDR",
        sync_period=float(config.sync_period),
        min_sync_period=float(config.min_sync_period or 0),
        make_before_break=config.make_before_break,
        healthz=_bind_address("healthzBindAddress", config.healthz_bind_address),
        metrics=_bind_address("metricsBindAddress", config.metrics_bind_address),
        bind_hard_fail=bool(config.bind_address_hard_fail),
        configuration=config,
        sysctls=_sysctls(config),
    )


def _family(config: KubeProxyConfiguration, node: str, family: Family) -> NodeSettings:
    every = _networks(config.cluster_cidrs())
    own = [cidr for cidr in every if (":" in cidr) == (family is Family.IPV6)]
    if len(own) > 1:
        raise UsageError(
            f"clusterCIDR: {', '.join(own)} are several networks of one IP family",
            remedy="give one for each family, as for kube-proxy",
        )
    local = config.detect_local_mode == "ClusterCIDR"
    return NodeSettings(
        family=family,
        node=node,
        cluster_cidrs=tuple(own) if local else (),
        masquerade_all=config.linux.masquerade_all,
        masquerade_bit=config.masquerade_bit,
        local_interface=_local_interface(config),
        proxy_name=config.service_proxy_name,
    )


def _local_interface(config: KubeProxyConfiguration) -> str:
    """Return by which interface pods of this node come in; one that ends with + is a prefix."""
    if config.detect_local_mode == "BridgeInterface":
        return config.detect_local.bridge_interface
    if config.detect_local_mode == "InterfaceNamePrefix":
        return config.detect_local.interface_name_prefix + "+"
    return ""


def _networks(texts: Iterable[str]) -> tuple[Prefix, ...]:
    """Return networks in canonical form: as for kube-proxy, one may be named by any address."""
    parsed = map(addresses.parse_network, texts)
    return tuple(Prefix(network.text) for network in parsed if network is not None)


def _options(config: KubeProxyConfiguration) -> Options:
    ipvs = config.ipvs
    return Options(
        scheduler=ipvs.scheduler,
        strict_arp=ipvs.strict_arp,
        exclude_cidrs=_networks(ipvs.exclude_cidrs or ()),
        tcp_timeout_s=int(ipvs.tcp_timeout),
        tcp_fin_timeout_s=int(ipvs.tcp_fin_timeout),
        udp_timeout_s=int(ipvs.udp_timeout),
        clean_last=config.linux.conntrack.clean_last,
        tcp_be_liberal=config.linux.conntrack.tcp_be_liberal,
    )


def _bind_address(field: str, text: str) -> tuple[str, int]:
    try:
        return parse_bind_address(text)
    except ValueError as error:
        problem = f"{field}: {text!r}: {error}"
        raise UsageError(problem, remedy="write address:port, such as 127.0.0.1:10249") from None


def _sysctls(config: KubeProxyConfiguration) -> tuple[tuple[str, int], ...]:
    tracking = config.linux.conntrack
    found: list[tuple[str, int]] = []
    if tracking.max_per_core:
        processors = len(os.sched_getaffinity(0))
        most = max(tracking.max_per_core * processors, tracking.min or 0)
        found.append((CONNTRACK_MAX, most))
    if tracking.tcp_be_liberal:
        found.append(("net/netfilter/nf_conntrack_tcp_be_liberal", 1))
    wanted = {
        "tcp_timeout_established": tracking.tcp_established_timeout,
        "tcp_timeout_close_wait": tracking.tcp_close_wait_timeout,
        "udp_timeout": tracking.udp_timeout,
        "udp_timeout_stream": tracking.udp_stream_timeout,
    }
    found += [
        (f"net/netfilter/nf_conntrack_{name}", int(seconds))
        for name, seconds in wanted.items()
        if seconds
    ]
    return tuple(found)
