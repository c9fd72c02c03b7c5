"""Where this node serves node ports, and which addresses are its pods'. Pure.

From kube-proxy's settings (``nodePortAddresses``, ``detectLocalMode``), the addresses that the
node has, and its Node object.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kproxy.api import addresses, core
from kproxy.api.config import PRIMARY, KubeProxyConfiguration
from kproxy.desired.model import Address, Family, NodePorts, Prefix
from kproxy.errors import InvalidObject, UsageError

_ANYWHERE = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_VERSIONS = {4: Family.IPV4, 6: Family.IPV6}


class NodePortPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which addresses of a node node ports are served on, in one family."""

    family: Family
    primary: bool = False
    """On the node's primary address only."""
    networks: tuple[Prefix, ...] = ()
    """On its addresses in these networks; empty: on all."""
    localhost: bool = False
    """Also on 127.0.0.1."""
    override: Address | None = None
    """The primary address, whatever the Node object names (``nodeIPOverride``)."""

    def node_ports(self, own: Sequence[str], node: core.Node | None) -> NodePorts:
        """Return where node ports are served on a node that has these addresses."""
        localhost = self.localhost
        if self.primary:
            first = self.primary_address(own, node)
            chosen = () if first is None else (first,)
            return NodePorts(everywhere=False, addresses=chosen, localhost=localhost)
        if not self.networks:
            every = tuple(Address(one) for one in sorted(own))
            return NodePorts(everywhere=True, addresses=every, localhost=localhost)
        networks = [ipaddress.ip_network(network) for network in self.networks]
        inside = tuple(
            Address(one)
            for one in sorted(own)
            if any(ipaddress.ip_address(one) in network for network in networks)
        )
        return NodePorts(everywhere=False, addresses=inside, localhost=localhost)

    def primary_address(self, own: Sequence[str], node: core.Node | None) -> Address | None:
        """Return the node's primary address: as configured, else its InternalIP, else its first.

        In this order kube-proxy looks, too.
        """
        if self.override is not None:
            return self.override
        status = node.status if node is not None else None
        for known in (status.addresses if status is not None else None) or ():
            if known.type == "InternalIP":
                parsed = addresses.parse_address(known.address)
                if parsed is not None and _VERSIONS[parsed.version] is self.family:
                    return Address(parsed.text)
        return Address(own[0]) if own else None


def policy(config: KubeProxyConfiguration, family: Family) -> NodePortPolicy:
    """Return what a configuration says of node ports. Raises UsageError.

    As kube-proxy: without networks of this family, all addresses.
    """
    wanted = config.node_port_addresses or []
    primary = wanted == [PRIMARY]
    networks = () if primary else _networks(wanted, family)
    everywhere = not networks or _ANYWHERE[family] in networks
    loopback = everywhere or any(_holds_loopback(network) for network in networks)
    return NodePortPolicy(
        family=family,
        primary=primary,
        networks=() if everywhere else networks,
        localhost=config.mode == "iptables"
        and family is Family.IPV4
        and bool(config.iptables.localhost_node_ports)
        and loopback
        and not primary,
        override=_override(config.node_ip_override or (), family),
    )


def _networks(wanted: Sequence[str], family: Family) -> tuple[Prefix, ...]:
    found = []
    for text in wanted:
        parsed = addresses.parse_network(text)
        if parsed is None:
            raise UsageError(
                f"nodePortAddresses: {text!r} is not a network",
                remedy=f"write networks as 192.0.2.0/24, or {PRIMARY!r} alone",
            )
        if _VERSIONS[parsed.version] is family:
            found.append(Prefix(parsed.text))
    return tuple(found)


def _holds_loopback(network: Prefix) -> bool:
    """Return whether a network is one of loopback addresses, or has the best known of them."""
    parsed = ipaddress.ip_network(network)
    return parsed.is_loopback or ipaddress.ip_address("127.0.0.1") in parsed


def _override(given: Sequence[str], family: Family) -> Address | None:
    for text in given:
        parsed = addresses.parse_address(text)
        if parsed is not None and _VERSIONS[parsed.version] is family:
            # Written for "any" in the field that this one replaces: no address of a node.
            unspecified = parsed.text in ("0.0.0.0", "::")  # noqa: S104  compared, not bound
            return None if unspecified else Address(parsed.text)
    return None


def wrong_networks(node: core.Node) -> list[InvalidObject]:
    """Return what a Node object says of its pods' networks that is none."""
    several = enumerate(node.spec.pod_cidrs or ())
    listed = [(f"spec.podCIDRs[{index}]", text) for index, text in several]
    if node.spec.pod_cidr:
        listed.append(("spec.podCIDR", node.spec.pod_cidr))
    label = f"Node {node.metadata.name}"
    return [
        InvalidObject(label, field, f"{text!r} is not a network", remedy="correct the Node")
        for field, text in listed
        if addresses.parse_network(text) is None
    ]


def pod_networks(node: core.Node | None) -> Mapping[Family, tuple[Prefix, ...]]:
    """Return the networks of a node's pods by family, as its Node object says; may be empty."""
    if node is None:
        return {}
    listed: Any = node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])
    found: dict[Family, tuple[Prefix, ...]] = {}
    for text in listed:
        parsed = addresses.parse_network(text)
        if parsed is not None:
            family = _VERSIONS[parsed.version]
            found[family] = (*found.get(family, ()), Prefix(parsed.text))
    return found
