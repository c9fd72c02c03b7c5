"""The IP sets of ipvs mode: names, types and what is in them. Pure.

Names and types are kube-proxy's, so that a node where it ran is adopted, and the tools show what
people know.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipset.types import NAME_LENGTH_MAX, Entry, SetSpec, SetType

MOST_ENTRIES = 1 << 20

Member = tuple[str, Entry]
"""An entry, and the name of the set that it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The names of the sets of one family."""

    family: Family
    service_ips: str
    """Every address on the device: ports of these that are not served are refused."""
    loop_back: str
    """Address, protocol and port of local endpoints, and the address again: hairpin traffic."""
    cluster_ip: str
    external_ip: str
    external_ip_local: str
    """Of services with ``externalTrafficPolicy: Local``: not masqueraded."""
    load_balancer: str
    load_balancer_local: str
    """Those of ``load_balancer`` that are not masqueraded."""
    source_cidr: str
    """A load balancer's address and port, and who may use them."""
    source_ip: str
    """The same for the node itself, whose source is the load balancer's address."""
    firewall: str
    """Those of ``load_balancer`` with ``loadBalancerSourceRanges``."""
    node_port: Mapping[Protocol, str]
    node_port_local: Mapping[Protocol, str]
    """Those of ``node_port`` that are not masqueraded."""
    health_check: str
    """Ports at which load balancers ask whether a service has endpoints here."""

    def specs(self) -> dict[str, SetSpec]:
        """Return how each set is made, in the order in which they get their entries.

        Who may use an address is said before it is closed to others.
        """
        types = {
            self.service_ips: SetType.HASH_IP,
            self.loop_back: SetType.HASH_IP_PORT_IP,
            self.cluster_ip: SetType.HASH_IP_PORT,
            self.external_ip: SetType.HASH_IP_PORT,
            self.external_ip_local: SetType.HASH_IP_PORT,
            self.load_balancer: SetType.HASH_IP_PORT,
            self.load_balancer_local: SetType.HASH_IP_PORT,
            self.source_cidr: SetType.HASH_IP_PORT_NET,
            self.source_ip: SetType.HASH_IP_PORT_IP,
            self.firewall: SetType.HASH_IP_PORT,
            self.health_check: SetType.BITMAP_PORT,
        }
        for protocol in Protocol:
            kind = SetType.HASH_IP_PORT if protocol is Protocol.SCTP else SetType.BITMAP_PORT
            types[self.node_port[protocol]] = kind
            types[self.node_port_local[protocol]] = kind
        return {
            name: SetSpec(kind)
            if kind is SetType.BITMAP_PORT
            else SetSpec(kind, self.family, MOST_ENTRIES)
            for name, kind in types.items()
        }

    def unmasquerading(self) -> frozenset[str]:
        """Return the sets that keep packets from being masqueraded."""
        return frozenset((self.load_balancer_local, *self.node_port_local.values()))

    def announced(self) -> frozenset[str]:
        """Return the sets of what is served at the addresses on the device."""
        return frozenset(
            (self.cluster_ip, self.external_ip, self.external_ip_local, self.load_balancer)
        )


def _sets(family: Family) -> Sets:
    def name(rest: str) -> str:
        prefix = "KUBE-" if family is Family.IPV4 else "KUBE-6-"
        return (prefix + rest)[:NAME_LENGTH_MAX]

    def ports(prefix: str) -> dict[Protocol, str]:
        return {
            Protocol.TCP: name(f"{prefix}-TCP"),
            Protocol.UDP: name(f"{prefix}-UDP"),
            Protocol.SCTP: name(f"{prefix}-SCTP-HASH"),
        }

    return Sets(
        family=family,
        service_ips=name("IPVS-IPS"),
        loop_back=name("LOOP-BACK"),
        cluster_ip=name("CLUSTER-IP"),
        external_ip=name("EXTERNAL-IP"),
        external_ip_local=name("EXTERNAL-IP-LOCAL"),
        load_balancer=name("LOAD-BALANCER"),
        load_balancer_local=name("LOAD-BALANCER-LOCAL"),
        source_cidr=name("LOAD-BALANCER-SOURCE-CIDR"),
        source_ip=name("LOAD-BALANCER-SOURCE-IP"),
        firewall=name("LOAD-BALANCER-FW"),
        node_port=ports("NODE-PORT"),
        node_port_local=ports("NODE-PORT-LOCAL"),
        health_check=name("HEALTH-CHECK-NODE-PORT"),
    )


SETS: Mapping[Family, Sets] = {family: _sets(family) for family in Family}
