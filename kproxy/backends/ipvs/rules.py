"""The iptables rules of ipvs mode: their number is the same for any number of services. Pure.

But for one rule for each load balancer's address that the node itself may not use: IPVS takes the
node's own packets before any filter sees where they wanted to go, so only a match of IPVS' own
finds them.
"""

from collections.abc import Iterable, Sequence

from kproxy.backends.chains import Wanted, WantedTable, masquerade_marked, not_from
from kproxy.backends.ipvs.sets import SETS, Sets
from kproxy.desired.model import State
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipvs.types import ServiceKey

Chains = dict[str, Sequence[str]]


def rules(state: State, family: Family, denied: Iterable[ServiceKey] = ()) -> Wanted:
    """Return the rules. ``denied``: places that the node itself may not use."""
    sets = SETS[family]
    mark = f"{1 << state.masquerade_bit:#x}"
    return {
        "filter": WantedTable(chains=_filter(sets, mark, denied), jumps=_FILTER_JUMPS),
        "nat": WantedTable(chains=_nat(state, sets, mark), jumps=_NAT_JUMPS),
    }


def _jump(builtin: str, comment: str, chain: str) -> str:
    return f'-A {builtin} -m comment --comment "{comment}" -j {chain}'


_FILTER_JUMPS = {
    "INPUT": (
        _jump("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
        _jump("INPUT", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
        _jump("INPUT", "kubernetes health check rules", "KUBE-NODE-PORT"),
    ),
    "FORWARD": (
        _jump("FORWARD", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
        _jump("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
    ),
    "OUTPUT": (_jump("OUTPUT", "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),),
}
_NAT_JUMPS = {
    "PREROUTING": (_jump("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),),
    "OUTPUT": (_jump("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),),
    "POSTROUTING": (_jump("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),),
}


def _match(name: str, directions: str) -> str:
    return f"-m set --match-set {name} {directions}"


def _filter(sets: Sets, mark: str, denied: Iterable[ServiceKey]) -> Chains:
    reject = "icmp" if sets.family is Family.IPV4 else "icmp6"
    served = (sets.load_balancer, sets.cluster_ip, sets.external_ip, sets.external_ip_local)
    firewall = "KUBE-SOURCE-RANGES-FIREWALL"
    return {
        "KUBE-IPVS-FILTER": (
            *(f"-A KUBE-IPVS-FILTER {_match(name, 'dst,dst')} -j RETURN" for name in served),
            f"-A KUBE-IPVS-FILTER {_match(sets.health_check, 'dst')} -j RETURN",
            "-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW"
            f" {_match(sets.service_ips, 'dst')}"
            f" -j REJECT --reject-with {reject}-port-unreachable",
        ),
        "KUBE-IPVS-OUT-FILTER": tuple(_deny(key) for key in sorted(denied)),
        "KUBE-PROXY-FIREWALL": (
            f"-A KUBE-PROXY-FIREWALL {_match(sets.firewall, 'dst,dst')} -j {firewall}",
        ),
        firewall: (
            f"-A {firewall} {_match(sets.source_cidr, 'dst,dst,src')} -j RETURN",
            f"-A {firewall} {_match(sets.source_ip, 'dst,dst,src')} -j RETURN",
            f"-A {firewall} -j DROP",
        ),
        "KUBE-NODE-PORT": (
            '-A KUBE-NODE-PORT -m comment --comment "Kubernetes health check node port"'
            f" {_match(sets.health_check, 'dst')} -j ACCEPT",
        ),
        "KUBE-FORWARD": (
            '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules"'
            f" -m mark --mark {mark}/{mark} -j ACCEPT",
            '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule"'
            " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
    }


def _deny(key: ServiceKey) -> str:
    """Return the rule that drops what the node sends to a place, from that very address."""
    address, bits = key.address, key.family.bits
    return (
        f"-A KUBE-IPVS-OUT-FILTER -s {address}/{bits} -m ipvs --vproto {key.protocol.number}"
        f" --vaddr {address} --vport {key.port} -j DROP"
    )


def _nat(state: State, sets: Sets, mark: str) -> Chains:
    return {
        "KUBE-MARK-MASQ": (f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}/{mark}",),
        "KUBE-POSTROUTING": (
            "-A KUBE-POSTROUTING -m comment --comment"
            ' "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"'
            f" {_match(sets.loop_back, 'dst,dst,src')} -j MASQUERADE",
            *masquerade_marked(mark),
        ),
        "KUBE-SERVICES": _services(state, sets),
        "KUBE-LOAD-BALANCER": (
            f"-A KUBE-LOAD-BALANCER {_match(sets.load_balancer_local, 'dst,dst')} -j RETURN",
            "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ",
        ),
        "KUBE-NODE-PORT": tuple(
            f"-A KUBE-NODE-PORT -p {protocol} {_match(names[protocol], directions)} -j {target}"
            for protocol in Protocol
            for names, target in (
                (sets.node_port_local, "RETURN"),
                (sets.node_port, "KUBE-MARK-MASQ"),
            )
            for directions in ("dst,dst" if protocol is Protocol.SCTP else "dst",)
        ),
    }


def _services(state: State, sets: Sets) -> Sequence[str]:
    loopback = "127.0.0.0/8" if sets.family is Family.IPV4 else "::1/128"
    served = [
        f"-A KUBE-SERVICES {_match(name, 'dst,dst')} -j ACCEPT"
        for name in (sets.cluster_ip, sets.load_balancer, sets.external_ip, sets.external_ip_local)
    ]
    return (
        f"-A KUBE-SERVICES -s {loopback} -j RETURN",
        f"-A KUBE-SERVICES {_match(sets.load_balancer, 'dst,dst')} -j KUBE-LOAD-BALANCER",
        _cluster_ips(state, sets),
        f"-A KUBE-SERVICES {_match(sets.external_ip, 'dst,dst')} -j KUBE-MARK-MASQ",
        # What is served at a service's address is not at a node port, though it may be that port.
        *served,
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
    )


def _cluster_ips(state: State, sets: Sets) -> str:
    """Return the rule that marks what goes to ClusterIPs and needs masquerading."""
    comment = '-m comment --comment "Kubernetes service cluster ip + port for masquerade purpose"'
    who, directions = "", "dst,dst"
    if state.masquerade_all:
        pass
    elif state.local_interface:
        who = f"! -i {state.local_interface} "
    elif state.cluster_cidrs and not state.cluster_cidrs[0].endswith("/0"):
        who = f"{not_from(state.cluster_cidrs)} "
    else:
        # Pods cannot be told, or everybody is one ("not from anywhere" is no match to nf_tables).
        # The node's own connections to a service address have that address as their source.
        directions = "src,dst"
    match = _match(sets.cluster_ip, directions)
    return f"-A KUBE-SERVICES {who}{comment} {match} -j KUBE-MARK-MASQ"
