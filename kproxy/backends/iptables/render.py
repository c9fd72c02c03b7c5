"""The rules for a state, in iptables mode, as ``iptables-save`` would print them. Pure.

Chains, names and order are those of kube-proxy, so that a node where it ran is adopted. A rule
that is not in the tool's own form would never compare equal with what the kernel holds, and would
be written again at every sync.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kproxy.backends.base import taken
from kproxy.backends.chains import Wanted, WantedTable, masquerade_marked, not_from
from kproxy.desired import model
from kproxy.desired.model import Endpoint, ServicePort, ServicePortName, ServiceState, State
from kproxy.errors import InvalidObject

try:
    # The interpreter's own: hashlib loads all of OpenSSL first, which costs 10 ms at every start.
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # before Python 3.12
    except ImportError:
        from hashlib import sha256

HASH_BITS = 80
"""How much of a hash is in a chain's name: 16 characters, so that it fits the kernel's 28."""

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]

PROBABILITY_UNIT = 1 << 31
"""In such parts the kernel keeps the probability of ``-m statistic``."""


def chain_name(prefix: str, *identity: str) -> str:
    """Return the name of a chain that belongs to one object: kube-proxy's hash of its identity."""
    digest = sha256("".join(identity).encode()).digest()
    bits = int.from_bytes(digest[: HASH_BITS // 8], "big")
    # base64.b32encode says the same, but ten times more slowly.
    return prefix + "".join([_PAIRS[bits >> shift & 1023] for shift in range(70, -1, -10)])


def service_chain(service: ServicePort, *, local: bool = False) -> str:
    """Return the chain that picks an endpoint of a service port (of this node, if ``local``)."""
    prefix = "KUBE-SVL-" if local else "KUBE-SVC-"
    return chain_name(prefix, str(service.name), service.protocol.lower())


def endpoint_chain(service: ServicePort, endpoint: Endpoint) -> str:
    """Return the chain that translates to one endpoint of a service port."""
    protocol = service.protocol.lower()
    return chain_name("KUBE-SEP-", str(service.name), protocol, _place(endpoint))


@dataclass(frozen=True, slots=True)
class _Fragment:
    """The rules of one service port."""

    portal: str
    """The rule in KUBE-SERVICES that leads to its chain; empty if it has no endpoints."""
    refusal: str
    """The rule in the filter table that refuses or drops, if it has none."""
    chains: Mapping[str, Sequence[str]]


class Renderer:
    """Turns states into rules; remembers what it made of each service from one to the next."""

    def __init__(self) -> None:
        self.invalid: tuple[InvalidObject, ...] = ()
        self._constants: object = None
        self._made: dict[ServicePortName, tuple[ServiceState, _Fragment]] = {}

    def render(self, state: State) -> Wanted:
        """Return all chains of ours, and the rules that lead to them.

        Where two services claim the same address, protocol and port, the first by name has it;
        :attr:`invalid` tells which have not.
        """
        constants = (state.family, state.cluster_cidrs, state.masquerade_all)
        if constants != self._constants:
            self._constants, self._made = constants, {}
        made: dict[ServicePortName, tuple[ServiceState, _Fragment]] = {}
        fragments = []
        owners: dict[tuple[str, str, int], ServicePortName] = {}
        invalid = []
        service_renderer = _ServiceRenderer(state)
        for name in sorted(state.services):
            wanted = state.services[name]
            service = wanted.service
            identity = (service.cluster_ip, service.protocol, service.port)
            if (owner := owners.setdefault(identity, name)) is not name:
                invalid.append(taken(service, owner))
                continue
            known = self._made.get(name)
            if known is None or known[0] is not wanted:
                known = wanted, service_renderer.render(wanted)
            made[name] = known
            fragments.append(known[1])
        self._made = made
        self.invalid = tuple(invalid)
        return _assemble(fragments, state)


def render(state: State) -> Wanted:
    """Return all chains of ours for one state (see :class:`Renderer`)."""
    return Renderer().render(state)


def _assemble(fragments: Sequence[_Fragment], state: State) -> Wanted:
    mark = f"{1 << state.masquerade_bit:#x}"
    nat: dict[str, Sequence[str]] = {
        "KUBE-MARK-MASQ": (f"-A KUBE-MARK-MASQ -j MARK --set-xmark {mark}/{mark}",),
        "KUBE-POSTROUTING": masquerade_marked(mark),
        "KUBE-SERVICES": tuple([one.portal for one in fragments if one.portal]),
    }
    for one in fragments:
        nat.update(one.chains)
    refused = tuple([one.refusal for one in fragments if one.refusal])
    filter_ = {"KUBE-FORWARD": _forward(mark), "KUBE-SERVICES": refused}
    return {
        "filter": WantedTable(chains=filter_, jumps=_FILTER_JUMPS),
        "nat": WantedTable(chains=nat, jumps=_NAT_JUMPS),
    }


class _ServiceRenderer:
    """Renders single services of one state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._bits = 32 if state.family is model.Family.IPV4 else 128
        reject = "icmp" if state.family is model.Family.IPV4 else "icmp6"
        self._reject = f"REJECT --reject-with {reject}-port-unreachable"

    def render(self, wanted: ServiceState) -> _Fragment:
        service = wanted.service
        protocol = service.protocol.lower()
        to_service = f"-d {service.cluster_ip}/{self._bits} -p {protocol}"
        port = f"-m {protocol} --dport {service.port}"
        endpoints = wanted.local if service.internal_local else wanted.cluster
        if not endpoints:
            return _Fragment("", self._refusal(wanted, to_service, port), {})
        comment = f'-m comment --comment "{_label(service)} cluster IP"'
        chain = service_chain(service, local=service.internal_local)
        rules = []
        source = self._masqueraded_sources()
        if source is not None:
            match = f"{source} {to_service}".lstrip()
            rules.append(f"-A {chain} {match} {comment} {port} -j KUBE-MARK-MASQ")
        chains: dict[str, Sequence[str]] = {}
        rules.extend(self._picks(chain, service, endpoints, chains))
        chains[chain] = tuple(rules)
        portal = f"-A KUBE-SERVICES {to_service} {comment} {port} -j {chain}"
        return _Fragment(portal, "", chains)

    def _refusal(self, wanted: ServiceState, to_service: str, port: str) -> str:
        # Endpoints elsewhere, none here, policy Local: dropped, so that the client tries again.
        here = wanted.service.internal_local and wanted.anywhere
        why = "has no local endpoints" if here else "has no endpoints"
        comment = f'-m comment --comment "{_label(wanted.service)} {why}"'
        target = "DROP" if here else self._reject
        return f"-A KUBE-SERVICES {to_service} {comment} {port} -j {target}"

    def _masqueraded_sources(self) -> str | None:
        """Return the match of clients to whom the endpoint must answer by way of this node."""
        if self._state.masquerade_all:
            return ""
        if self._state.cluster_cidrs:
            return not_from(self._state.cluster_cidrs)
        return None

    def _picks(
        self,
        chain: str,
        service: ServicePort,
        endpoints: Sequence[Endpoint],
        chains: dict[str, Sequence[str]],
    ) -> list[str]:
        """Add the endpoints' chains; return the rules that choose each equally often."""
        name, label, protocol = str(service.name), _label(service), service.protocol.lower()
        ordered = sorted(endpoints, key=lambda endpoint: (endpoint.address, endpoint.port))
        rules = []
        for left, endpoint in zip(range(len(ordered), 0, -1), ordered, strict=True):
            place = _place(endpoint)
            target = chain_name("KUBE-SEP-", name, protocol, place)
            comment = f'-m comment --comment "{label}"'
            chains[target] = (
                # An endpoint that reaches itself through the service would answer itself directly.
                f"-A {target} -s {endpoint.address}/{self._bits} {comment} -j KUBE-MARK-MASQ",
                f"-A {target} -p {protocol} {comment} -m {protocol}"
                f" -j DNAT --to-destination {place}",
            )
            chance = f" {_probability(left)}" if left > 1 else ""
            rules.append(
                f'-A {chain} -m comment --comment "{label} -> {place}"{chance} -j {target}'
            )
        return rules


_HARMLESS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./:_")
_LABEL_LENGTH_MAX = 180
"""With what else is in a comment this fits the kernel's 255."""


def _label(service: ServicePort) -> str:
    """Return the name of a service port for comments.

    An API server gives out nothing but DNS names; should another one do so, its quotes and line
    ends must not become rules, nor its length make the kernel refuse the rules of all others.
    """
    name = str(service.name)
    if not _HARMLESS.issuperset(name):
        name = "".join(letter if letter in _HARMLESS else "?" for letter in name)
    return name[:_LABEL_LENGTH_MAX]


def _place(endpoint: Endpoint) -> str:
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{address}:{endpoint.port}"


def _probability(choices: int) -> str:
    share = round(PROBABILITY_UNIT / choices) / PROBABILITY_UNIT
    return f"-m statistic --mode random --probability {share:.11f}"


def _forward(mark: str) -> tuple[str, ...]:
    return (
        # A reply that conntrack could not place (out of window) would leave untranslated, and its
        # receiver would reset the connection.
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules"'
        f" -m mark --mark {mark}/{mark} -j ACCEPT",
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule"'
        " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    )


def _jump(builtin: str, comment: str, chain: str, *, new: bool = False) -> str:
    state = "-m conntrack --ctstate NEW " if new else ""
    return f'-A {builtin} {state}-m comment --comment "{comment}" -j {chain}'


_FILTER_JUMPS: Mapping[str, Sequence[str]] = {
    "FORWARD": (
        _jump("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
        _jump("FORWARD", "kubernetes service portals", "KUBE-SERVICES", new=True),
    ),
    "OUTPUT": (_jump("OUTPUT", "kubernetes service portals", "KUBE-SERVICES", new=True),),
}
_NAT_JUMPS: Mapping[str, Sequence[str]] = {
    "PREROUTING": (_jump("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),),
    "OUTPUT": (_jump("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),),
    "POSTROUTING": (_jump("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),),
}
