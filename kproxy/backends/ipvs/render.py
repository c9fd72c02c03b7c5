"""What the kernel should hold for a state, in ipvs mode. Pure: values in, values out.

Names, types and rules are those of kube-proxy, so that a node where it ran is adopted.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kproxy.backends.base import taken
from kproxy.backends.chains import Wanted, WantedTable, masquerade_marked, not_from
from kproxy.desired import model
from kproxy.desired.model import Address, ServicePortName, ServiceState, State
from kproxy.errors import InvalidObject
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPAddress
from kproxy.kernel.ipset.types import Entry, SetSpec, SetType
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationKey,
    Forwarding,
    ServiceKey,
)

DEVICE = "kube-ipvs0"
"""The dummy device that carries the service addresses: it makes packets to them local."""

DESTINATION = DestinationConfig(weight=1, forwarding=Forwarding.MASQUERADE)
DRAINING = DestinationConfig(weight=0, forwarding=Forwarding.MASQUERADE)

PROTOCOLS: Mapping[model.Protocol, inet.Protocol] = {
    model.Protocol.TCP: inet.Protocol.TCP,
    model.Protocol.UDP: inet.Protocol.UDP,
    model.Protocol.SCTP: inet.Protocol.SCTP,
}


@dataclass(frozen=True, slots=True)
class SetNames:
    """The IP sets of one family."""

    cluster_ip: str
    """Service address, protocol and port: what is announced."""
    loop_back: str
    """Address, protocol and port of local endpoints, and the address again: hairpin traffic."""
    service_ips: str
    """Every service address: other ports of these are refused. Written before and removed after
    all else of a service, so it tells which virtual services are ours."""

    def specs(self, family: Family) -> dict[str, SetSpec]:
        """Return how each set is made, in the order in which they are."""
        return {
            self.service_ips: SetSpec(SetType.HASH_IP, family, 1 << 20),
            self.loop_back: SetSpec(SetType.HASH_IP_PORT_IP, family, 1 << 20),
            self.cluster_ip: SetSpec(SetType.HASH_IP_PORT, family, 1 << 20),
        }


SETS = {
    Family.IPV4: SetNames("KUBE-CLUSTER-IP", "KUBE-LOOP-BACK", "KUBE-IPVS-IPS"),
    Family.IPV6: SetNames("KUBE-6-CLUSTER-IP", "KUBE-6-LOOP-BACK", "KUBE-6-IPVS-IPS"),
}


@dataclass(frozen=True, slots=True)
class Tables:
    """What should be there, but for the rules, which do not depend on services."""

    services: dict[ServiceKey, dict[DestinationKey, DestinationConfig]] = field(
        default_factory=dict
    )
    addresses: set[IPAddress] = field(default_factory=set)
    sets: dict[str, set[Entry]] = field(default_factory=dict)


def family_of(state: State) -> Family:
    """Return the kernel's word for the state's IP family."""
    return Family.IPV4 if state.family is model.Family.IPV4 else Family.IPV6


class _Rendered(NamedTuple):
    """What one service port comes to."""

    key: ServiceKey
    destinations: dict[DestinationKey, DestinationConfig]
    loops: tuple[Entry, ...]


class Renderer:
    """Turns states into kernel values; remembers what it made of each service for the next."""

    def __init__(self) -> None:
        self.invalid: tuple[InvalidObject, ...] = ()
        self._made: dict[ServicePortName, tuple[ServiceState, _Rendered]] = {}

    def render(self, state: State) -> Tables:
        """Return what the kernel should hold.

        Where two services claim the same address, protocol and port, the first by name has it;
        :attr:`invalid` tells which have not. What did not change since the last state is in both
        results the same object.
        """
        names = SETS[family_of(state)]
        tables = Tables(sets={name: set() for name in names.specs(family_of(state))})
        loops = tables.sets[names.loop_back]
        service_ips, cluster_ips = tables.sets[names.service_ips], tables.sets[names.cluster_ip]
        made: dict[ServicePortName, tuple[ServiceState, _Rendered]] = {}
        invalid = []
        for name in sorted(state.services):
            wanted = state.services[name]
            known = self._made.get(name)
            if known is None or known[0] is not wanted:
                known = wanted, _render_service(wanted)
            made[name] = known
            key, destinations, own_loops = known[1]
            if key in tables.services:
                owner = next(one for one, (_, other) in made.items() if other.key == key)
                invalid.append(taken(wanted.service, owner))
                continue
            tables.services[key] = destinations
            tables.addresses.add(key.address)
            service_ips.add(Entry(key.address))
            cluster_ips.add(Entry(key.address, key.protocol, key.port))
            loops.update(own_loops)
        self._made = made
        self.invalid = tuple(invalid)
        return tables


def _render_service(wanted: ServiceState) -> _Rendered:
    service = wanted.service
    protocol = PROTOCOLS[service.protocol]
    destinations: dict[DestinationKey, DestinationConfig] = {}
    loops = []
    for endpoint in wanted.local if service.internal_local else wanted.cluster:
        real = _parsed(endpoint.address)
        destinations[DestinationKey(real, endpoint.port)] = DESTINATION
        if endpoint.local:
            loops.append(Entry(real, protocol, endpoint.port, real))
    key = ServiceKey(protocol, _parsed(service.cluster_ip), service.port)
    return _Rendered(key, destinations, tuple(loops))


def _parsed(text: Address) -> IPAddress:
    """Parse an address. That it is canonical saves all the checks, and most of the time."""
    if ":" in text:
        return ipaddress.IPv6Address(text)
    a, b, c, d = text.split(".")
    return ipaddress.IPv4Address(int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d))


def rules(state: State) -> Wanted:
    """Return the rules: their number is the same for any number of services."""
    names = SETS[family_of(state)]
    mark = f"{1 << state.masquerade_bit:#x}"
    return {
        "filter": WantedTable(chains=_filter(state, names, mark), jumps=_FILTER_JUMPS),
        "nat": WantedTable(chains=_nat(state, names, mark), jumps=_NAT_JUMPS),
    }


def _jump(builtin: str, comment: str, chain: str) -> str:
    return f'-A {builtin} -m comment --comment "{comment}" -j {chain}'


_FILTER_JUMPS = {
    "INPUT": (_jump("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),),
    "FORWARD": (_jump("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),),
}
_NAT_JUMPS = {
    "PREROUTING": (_jump("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),),
    "OUTPUT": (_jump("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),),
    "POSTROUTING": (_jump("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),),
}


def _filter(state: State, names: SetNames, mark: str) -> dict[str, Sequence[str]]:
    reject = "icmp" if family_of(state) is Family.IPV4 else "icmp6"
    return {
        "KUBE-IPVS-FILTER": (
            f"-A KUBE-IPVS-FILTER -m set --match-set {names.cluster_ip} dst,dst -j RETURN",
            "-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW"
            f" -m set --match-set {names.service_ips} dst"
            f" -j REJECT --reject-with {reject}-port-unreachable",
        ),
        "KUBE-FORWARD": (
            '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules"'
            f" -m mark --mark {mark}/{mark} -j ACCEPT",
            '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule"'
            " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    }


def _nat(state: State, names: SetNames, mark: str) -> dict[str, Sequence[str]]:
    to_service = f"-m set --match-set {names.cluster_ip} dst,dst"
    comment = '-m comment --comment "Kubernetes service cluster ip + port for masquerade purpose"'
    if state.masquerade_all:
        masquerade = f"-A KUBE-SERVICES {comment} {to_service} -j KUBE-MARK-MASQ"
    elif state.cluster_cidrs:
        not_pods = not_from(state.cluster_cidrs)
        masquerade = f"-A KUBE-SERVICES {not_pods} {comment} {to_service} -j KUBE-MARK-MASQ"
    else:
        # The node's own connections to a service address have that address as their source.
        own = f"-m set --match-set {names.cluster_ip} src,dst"
        masquerade = f"-A KUBE-SERVICES {comment} {own} -j KUBE-MARK-MASQ"
    return {
        "KUBE-MARK-MASQ": (f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}/{mark}",),
        "KUBE-POSTROUTING": (
            "-A KUBE-POSTROUTING -m comment --comment"
            ' "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"'
            f" -m set --match-set {names.loop_back} dst,dst,src -j MASQUERADE",
            *masquerade_marked(mark),
        ),
        "KUBE-SERVICES": (masquerade, f"-A KUBE-SERVICES {to_service} -j ACCEPT"),
    }
