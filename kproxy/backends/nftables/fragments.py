"""What one service port comes to in nftables mode. Pure.

A portal is an address or node port by which the service is reached, with the elements that make it
work. Portals are what two services may claim both; what a service shares with others rightly
(chains by number of endpoints, its ClusterIP with its other ports, the addresses of its pods) is
counted instead.
"""

import ipaddress
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from kproxy.backends.nftables import layout
from kproxy.backends.nftables.layout import DROPPED, LOCAL_FIRST, REFUSED, Layout
from kproxy.desired import model, topology
from kproxy.desired.model import Endpoint, Prefix, ServicePort, ServiceState, State
from kproxy.kernel.inet import PROTOCOL_NUMBERS, Protocol
from kproxy.kernel.nft.expressions import Rule, Verdict, goto
from kproxy.kernel.nft.types import Chain, Data, SetSpec

InSets = tuple[tuple[str, Mapping[bytes, Data]], ...]
"""Elements, by set."""

Claim = tuple[str, bytes]
"""The verdict map in which a portal stands, and its key there."""

PROTOCOLS = {
    model.Protocol.TCP: bytes([PROTOCOL_NUMBERS[Protocol.TCP], 0, 0, 0]),
    model.Protocol.UDP: bytes([PROTOCOL_NUMBERS[Protocol.UDP], 0, 0, 0]),
    model.Protocol.SCTP: bytes([PROTOCOL_NUMBERS[Protocol.SCTP], 0, 0, 0]),
}
_INDEXES = [index.to_bytes(4, sys.byteorder) for index in range(256)]
_LOCAL_INDEXES = [(LOCAL_FIRST + index).to_bytes(4, sys.byteorder) for index in range(256)]


class Portal(NamedTuple):
    """One way in. ``field`` is where the user wrote it."""

    claim: Claim
    field: str
    elements: InSets
    chains: tuple[str, ...] = ()
    """Chains that these elements lead to."""


class Fragment(NamedTuple):
    """Everything of one service port; its first portal is the ClusterIP."""

    portals: tuple[Portal, ...]
    shared: tuple[tuple[str, bytes], ...] = ()
    """Elements (set, key) of sets that other services may have, too."""
    chains: Mapping[str, Chain] = {}
    """Every chain that the portals name, or those name, also shared ones."""
    sets: Mapping[str, SetSpec] = {}


def pack_address(text: str) -> bytes:
    """Return an address in network byte order."""
    if ":" in text:
        return ipaddress.IPv6Address(text).packed
    # Six times as fast as ipaddress, and there are 100,000 of them.
    return bytes(map(int, text.split(".")))


def pack_port(number: int) -> bytes:
    """Return a port in network byte order, padded to a register."""
    return number.to_bytes(2, "big") + b"\0\0"


def pack_endpoints(endpoints: Sequence[Endpoint]) -> list[bytes]:
    """Return address and port of each, in an order that does not depend on how they came."""
    found = [pack_address(one.address) + pack_port(one.port) for one in endpoints]
    found.sort()
    return found[:LOCAL_FIRST]


_STICKY, _LOCAL, _CLIENTS = "sticky-", "local-", "affinity-"


def sticky_place(service: ServicePort) -> str:
    """Return what the names of a service port's own chains and sets have in common."""
    place = f"{service.protocol.lower()}-{service.cluster_ip}-{service.port}"
    return place.replace(":", ".")


def sticky_place_of(name: str) -> str:
    """Return :func:`sticky_place` of whose chain or set this is; empty if it is nobody's own."""
    if name.startswith(_CLIENTS):
        # The rest is an endpoint: address and port.
        return "-".join(name.removeprefix(_CLIENTS).split("-")[:3])
    return name.rpartition(_STICKY)[2].removeprefix(_LOCAL) if _STICKY in name else ""


class _Choice(NamedTuple):
    """Endpoints among which one policy chooses."""

    packed: Sequence[bytes]
    local: bool


class FragmentMaker:
    """Makes the fragments of one state's services."""

    def __init__(self, state: State) -> None:
        self._layout = Layout(state)
        self._address = self._layout.words.address
        self._size = self._address.length
        self._own = tuple(ipaddress.ip_address(one) for one in state.node_ports.addresses)
        self._made: dict[str, Chain] = {}

    def make(self, wanted: ServiceState) -> Fragment:
        """Return what a service port comes to."""
        return _ServiceMaker(self, wanted).make()

    @property
    def layout(self) -> Layout:
        """Return what makes the rules."""
        return self._layout

    def shared(self, name: str, make: Callable[[], tuple[Rule, ...]]) -> Chain:
        """Return the chain of this name, which many services use; made once."""
        known = self._made.get(name)
        if known is None:
            known = self._made[name] = Chain(make())
        return known

    def clients(self) -> SetSpec:
        """Return how a set of clients is made."""
        return SetSpec((self._address,), dynamic=True, max_elements=layout.AFFINITY_MAX)

    def split(self, packed: bytes) -> tuple[bytes, bytes]:
        """Return address and padded port of a packed endpoint."""
        return packed[: self._size], packed[self._size :]

    def sources(self, ranges: Sequence[Prefix], vip: bytes) -> list[bytes] | None:
        """Return which clients a load balancer's address admits: from, to. None: all."""
        networks = [ipaddress.ip_network(one) for one in ranges]
        if not networks or any(one.prefixlen == 0 for one in networks):
            return None
        # A load balancer's address may be one of the node's own (a route of type local): what the
        # node sends there has that very address as its source, and comes from the node.
        if any(own in one for own in self._own for one in networks):
            networks.append(ipaddress.ip_network(vip))
        return [
            one.network_address.packed + one.broadcast_address.packed
            for one in ipaddress.collapse_addresses(networks)  # type: ignore[type-var]  # one family
        ]


class _ServiceMaker:
    """Makes the fragment of one service port."""

    def __init__(self, maker: FragmentMaker, wanted: ServiceState) -> None:
        self._maker = maker
        self._wanted = wanted
        self._service = wanted.service
        self._protocol = PROTOCOLS[self._service.protocol]
        self._chains: dict[str, Chain] = {}
        self._sets: dict[str, SetSpec] = {}

    def make(self) -> Fragment:
        wanted, service = self._wanted, self._service
        cluster = _Choice(pack_endpoints(wanted.cluster), local=False)
        local = _Choice(pack_endpoints(wanted.local), local=True)
        address = pack_address(service.cluster_ip)
        portals = [self._cluster_portal(address, local if service.internal_local else cluster)]
        if service.external_ips or service.load_balancer_vips or service.node_port:
            for claim, field, firewall in self._external_places():
                portals.append(self._external_portal(claim, field, firewall, cluster, local))
        shared = [(layout.CLUSTER_IPS, address)]
        shared += [(layout.HAIRPIN, pack_address(one) * 2) for one in self._loops()]
        return Fragment(tuple(portals), tuple(shared), self._chains, self._sets)

    def _loops(self) -> Iterable[str]:
        """Return the endpoints that may be sent to themselves by this node, each once, in order.

        Those of this node. Another node's pod comes here for a node port or a load balancer's
        address, and then is masqueraded anyway, but not where the policy is Local.
        """
        wanted, service = self._wanted, self._service
        everywhere = service.external_local and topology.externally_accessible(service)
        both = (*wanted.cluster, *wanted.local)
        return dict.fromkeys(one.address for one in both if one.local or everywhere)

    def _key(self, address: bytes) -> bytes:
        return self._protocol + address + pack_port(self._service.port)

    def _external_places(
        self,
    ) -> list[tuple[Claim, str, InSets]]:
        """Return the claims beside the ClusterIP, where they were written, and their firewall."""
        service = self._service
        found: list[tuple[Claim, str, InSets]] = []
        taken = {self._key(pack_address(service.cluster_ip))}
        for text in service.load_balancer_vips:
            address = pack_address(text)
            key = self._key(address)
            if key not in taken:
                taken.add(key)
                sources = self._maker.sources(service.source_ranges, address)
                field = "status.loadBalancer.ingress"
                found.append(((layout.SERVICE_IPS, key), field, _firewall(key, sources)))
        for text in service.external_ips:
            key = self._key(pack_address(text))
            if key not in taken:
                taken.add(key)
                found.append(((layout.SERVICE_IPS, key), "spec.externalIPs", ()))
        if service.node_port:
            key = self._protocol + pack_port(service.node_port)
            field = f"spec.ports[{service.name.port!r}].nodePort"
            found.append(((layout.SERVICE_NODEPORTS, key), field, ()))
        return found

    def _cluster_portal(self, address: bytes, choice: _Choice) -> Portal:
        claim = (layout.SERVICE_IPS, self._key(address))
        if not choice.packed:
            # Endpoints elsewhere, none here: dropped, so that the client tries again.
            verdict = DROPPED if choice.local and self._wanted.anywhere else REFUSED
            return Portal(claim, "spec.clusterIP", _unanswered(claim, verdict))
        target, elements = self._target(claim, choice)
        name = f"cluster-{target}"
        self._entry(name, target, lambda: self._maker.layout.cluster_entry(target))
        verdicts = (layout.SERVICE_IPS, {claim[1]: goto(name)})
        return Portal(claim, "spec.clusterIP", (verdicts, *elements), (name, target))

    def _external_portal(
        self,
        claim: Claim,
        field: str,
        firewall: InSets,
        cluster: _Choice,
        local: _Choice,
    ) -> Portal:
        elements = list(firewall)
        targets: dict[bool, str] = {False: "", True: ""}
        for choice in (cluster, local) if self._service.external_local else (cluster,):
            if choice.packed:
                targets[choice.local], more = self._target(claim, choice)
                elements += more
        names = [one for one in targets.values() if one]
        if self._service.external_local and not local.packed:
            verdict = DROPPED if self._wanted.anywhere else REFUSED
            elements += _unanswered(claim, verdict)
        elif not names:
            elements += _unanswered(claim, REFUSED)
        if names:
            entry = self._external_entry(targets[True], targets[False])
            elements.append((claim[0], {claim[1]: goto(entry)}))
            names.append(entry)
        return Portal(claim, field, tuple(elements), tuple(names))

    def _external_entry(self, here: str, anywhere: str) -> str:
        """Make the entry chain of an external portal; return its name."""
        rules = self._maker.layout
        if not self._service.external_local:
            name = f"external-{anywhere}"
            self._entry(name, anywhere, lambda: rules.external_entry(anywhere))
            return name
        name = "-".join(["local-external", *([here] if here else [])])
        name += f"-or-{anywhere}" if anywhere else ""
        self._entry(name, here or anywhere, lambda: rules.local_entry(here, anywhere))
        return name

    def _entry(self, name: str, target: str, make: Callable[[], tuple[Rule, ...]]) -> None:
        """Note a chain that leads to a target; to the target of one service only one does."""
        if target.startswith(_STICKY):
            self._chains[name] = Chain(make())
        else:
            self._chains[name] = self._maker.shared(name, make)

    def _target(self, claim: Claim, choice: _Choice) -> tuple[str, InSets]:
        """Return the chain that chooses for a portal, and the elements among which it does."""
        seconds = self._service.affinity_seconds
        if seconds is not None:
            return self._sticky_target(choice, seconds), ()
        count = len(choice.packed)
        node_port = claim[0] == layout.SERVICE_NODEPORTS
        name = f"{'nodeport-' if node_port else ''}pick-{'local-' if choice.local else ''}{count}"
        if name not in self._chains:
            self._chains[name] = self._maker.shared(
                name,
                lambda: self._maker.layout.pick(count, node_port=node_port, local=choice.local),
            )
        key = claim[1]
        indexes = _indexes(count, local=choice.local)
        elements = dict(zip([key + index for index in indexes], choice.packed, strict=True))
        return name, ((layout.NODEPORT_ENDPOINTS if node_port else layout.ENDPOINTS, elements),)

    def _sticky_target(self, choice: _Choice, seconds: int) -> str:
        place = sticky_place(self._service)
        name = f"{_STICKY}{_LOCAL if choice.local else ''}{place}"
        if name not in self._chains:
            rules = []
            spec = self._maker.clients()
            for packed in choice.packed:
                address, port = self._maker.split(packed)
                text = f"{ipaddress.ip_address(address)}-{int.from_bytes(port[:2], 'big')}"
                clients = f"{_CLIENTS}{place}-{text}".replace(":", ".")
                self._sets[clients] = spec
                rules.append((address, port, clients))
            self._chains[name] = Chain(self._maker.layout.sticky(rules, seconds))
        return name


def _indexes(count: int, *, local: bool) -> Sequence[bytes]:
    known, first = (_LOCAL_INDEXES, LOCAL_FIRST) if local else (_INDEXES, 0)
    if count <= len(known):
        return known[:count]
    return [(first + index).to_bytes(4, sys.byteorder) for index in range(count)]


def _firewall(key: bytes, sources: Sequence[bytes] | None) -> InSets:
    if sources is None:
        return ()
    half = len(sources[0]) // 2
    ranges: dict[bytes, Data] = {key + one[:half] + key + one[half:]: None for one in sources}
    return ((layout.FIREWALL_IPS, {key: None}), (layout.FIREWALL_SOURCES, ranges))


def _unanswered(claim: Claim, verdict: Verdict) -> InSets:
    """Return the element that refuses or drops what nobody would answer."""
    node_port = claim[0] == layout.SERVICE_NODEPORTS
    name = layout.NO_ENDPOINT_NODEPORTS if node_port else layout.NO_ENDPOINT_SERVICES
    return ((name, {claim[1]: verdict}),)
