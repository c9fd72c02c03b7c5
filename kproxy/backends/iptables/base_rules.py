"""The rules that any services need: what leads to theirs, and what stands behind. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.backends.chains import masquerade_marked
from kproxy.backends.iptables.fragment import Rules
from kproxy.desired.model import Family, State
from kproxy.kernel.iptables.text import target_of
from kproxy.kernel.iptables.types import Rule, Table, TableChange

FIREWALL = "KUBE-FIREWALL"
"""A chain of the kubelet's, which may or may not have made it."""

KUBELET = "KUBE-KUBELET-CANARY"
"""A chain that every kubelet makes which has anything to do with iptables."""

GUARD = (
    f"-A {FIREWALL} ! -s 127.0.0.0/8 -d 127.0.0.0/8"
    ' -m comment --comment "block incoming localnet connections"'
    " -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
)
"""With route_localnet the kernel would take packets to 127.0.0.1 from any neighbour."""


DROPPED_INVALID = "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
"""A reply that conntrack could not place (out of window) would leave untranslated, and its
receiver would reset the connection."""

FROM_LOCALHOST = (
    '-A KUBE-POSTROUTING -m comment --comment "count node ports served on localhost"'
    " -m conntrack --ctorigdst 127.0.0.0/8"
)
"""Only counts: what is ours (marked) and was sent to a loopback address, but goes to an endpoint.
One rule for all node ports, in a chain that no change of services replaces, so that it counts on;
nat sees the first packet of each connection."""


@dataclass(frozen=True, slots=True)
class Links:
    """How one table's built-in chains lead to ours, and what is in chains of others."""

    jumps: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shared: Mapping[str, Sequence[str]] = field(default_factory=dict)


NO_LINKS = {"filter": Links(), "nat": Links()}


def links(state: State) -> Mapping[str, Links]:
    """Return what leads to our chains, by table."""
    if not _on_localhost(state):
        return _LINKS
    jumps = _LINKS["filter"].jumps
    guarded = {
        builtin: (*jumps[builtin], f"-A {builtin} -j {FIREWALL}")
        for builtin in ("INPUT", "OUTPUT")
    }
    shared = {FIREWALL: (GUARD,)}
    return {"filter": Links({**jumps, **guarded}, shared), "nat": _LINKS["nat"]}


def chains(state: State, *, liberal: bool) -> dict[tuple[str, str], Rules]:
    """Return the chains that do not depend on services, by table and name."""
    mark = f"{1 << state.masquerade_bit:#x}"
    return {
        ("filter", "KUBE-FORWARD"): _forward(mark, liberal=liberal),
        ("nat", "KUBE-MARK-MASQ"): (f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}/{mark}",),
        ("nat", "KUBE-POSTROUTING"): _postrouting(state, mark),
    }


def _postrouting(state: State, mark: str) -> Rules:
    leave, *rest = masquerade_marked(mark)
    return (leave, *((FROM_LOCALHOST,) if _on_localhost(state) else ()), *rest)


def _on_localhost(state: State) -> bool:
    return state.node_ports.localhost and state.family is Family.IPV4


def unguard(filter_table: Table) -> TableChange | None:
    """Return what takes the guard away, if it is ours alone; None if it is not, or not there."""
    chain = filter_table.get(FIREWALL)
    if chain is None or chain.rules != (GUARD,) or KUBELET in filter_table:
        return None
    jumps = [rule for one in filter_table.values() for rule in one.rules if _to_guard(rule)]
    ours = [f"-A {builtin} -j {FIREWALL}" for builtin in ("INPUT", "OUTPUT")]
    if any(jump not in ours for jump in jumps):
        return None
    return TableChange("filter", remove=tuple(jumps), delete=(FIREWALL,))


def _to_guard(rule: Rule) -> bool:
    return FIREWALL in rule and target_of(rule) == FIREWALL


def to_node_ports(state: State) -> Rules:
    """Return the last rules of KUBE-SERVICES: what is for the node itself meets node ports."""
    where = state.node_ports
    v4 = state.family is Family.IPV4
    localhost = _on_localhost(state)
    comment = (
        '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in'
        ' this chain"'
    )
    if where.everywhere:
        # Packets from a loopback address cannot leave it, unless route_localnet says so.
        loopback = "" if localhost else f" ! -d {'127.0.0.0/8' if v4 else '::1/128'}"
        return (
            f"-A KUBE-SERVICES{loopback} {comment} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        )
    addresses = (*where.addresses, *(("127.0.0.1",) if localhost else ()))
    bits = 32 if v4 else 128
    return tuple([
        f"-A KUBE-SERVICES -d {address}/{bits} {comment} -j KUBE-NODEPORTS"
        for address in addresses
    ])  # fmt: skip


def _forward(mark: str, *, liberal: bool) -> Rules:
    return (
        *(() if liberal else (DROPPED_INVALID,)),
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules"'
        f" -m mark --mark {mark}/{mark} -j ACCEPT",
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule"'
        " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    )


def _jump(builtin: str, comment: str, chain: str, *, new: bool = False) -> str:
    state = "-m conntrack --ctstate NEW " if new else ""
    return f'-A {builtin} {state}-m comment --comment "{comment}" -j {chain}'


def _firewall(builtin: str) -> str:
    return _jump(builtin, "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL", new=True)


def _external(builtin: str) -> str:
    comment = "kubernetes externally-visible service portals"
    return _jump(builtin, comment, "KUBE-EXTERNAL-SERVICES", new=True)


_PORTALS = "kubernetes service portals"
_LINKS: Mapping[str, Links] = {
    "filter": Links({
        "INPUT": (
            _firewall("INPUT"),
            _jump("INPUT", "kubernetes health check service ports", "KUBE-NODEPORTS"),
            _external("INPUT"),
        ),
        "FORWARD": (
            _firewall("FORWARD"),
            _jump("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
            _jump("FORWARD", _PORTALS, "KUBE-SERVICES", new=True),
            _external("FORWARD"),
        ),
        "OUTPUT": (
            _firewall("OUTPUT"),
            _jump("OUTPUT", _PORTALS, "KUBE-SERVICES", new=True),
        ),
    }),
    "nat": Links({
        "PREROUTING": (_jump("PREROUTING", _PORTALS, "KUBE-SERVICES"),),
        "OUTPUT": (_jump("OUTPUT", _PORTALS, "KUBE-SERVICES"),),
        "POSTROUTING": (
            _jump("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
        ),
    }),
}  # fmt: skip
