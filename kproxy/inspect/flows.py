"""What becomes of the first packet of a connection, and why: computed from the wanted state. Pure.

The rules are those of the backends, said in words. They are not derived from rendered rules, so
that a test can hold both against each other: the tracer of ``tests/flows`` follows packets through
what the backends render, and the records of kube-proxy tell what it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kproxy.desired.model import Address, Endpoint, Protocol, ServicePort, ServiceState
from kproxy.desired.topology import externally_accessible

from .world import Kind, Origin, Source, Target, World, is_loopback, within

IPVS, IPTABLES, NFTABLES = "ipvs", "iptables", "nftables"


class Fate(StrEnum):
    """What becomes of a packet."""

    ENDPOINT = "endpoint"
    REFUSED = "refused"
    DROPPED = "dropped"
    PASSES = "passes"
    """No rule takes it: it is routed on as it came; that of a service address leaves the node."""
    NODE = "node"
    """A process of the node itself gets it; where none listens, it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An endpoint that may get the connection."""

    endpoint: Endpoint
    probability: float
    masqueraded: bool
    answered: bool = True
    """False: its answers certainly go to somebody else, so the connection fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What becomes of the first packet from one source."""

    source: Source
    fate: Fate
    shares: tuple[Share, ...] = ()
    reasons: tuple[str, ...] = ()


def predict(
    world: World, target: Target, served: ServiceState | None, source: Source
) -> Prediction:
    """Tell what becomes of a packet. ``served``: who has this address and port, if anybody."""
    if served is None:
        fate, reason = _unserved(world, target)
        return Prediction(source=source, fate=fate, reasons=(reason,))
    kind = kind_of(served.service, target)
    if kind is Kind.NODE_PORT and (why := _not_served_at(world, target.address, source)):
        return Prediction(source=source, fate=Fate.NODE, reasons=(why,))
    if kind is Kind.CLUSTER_IP:
        return _Internal(world, served, source).predict()
    return _External(world, served, source, kind).predict()


def kind_of(service: ServicePort, target: Target) -> Kind:
    """Return by which of its addresses a service port is meant."""
    if target.port == service.port:
        if target.address == service.cluster_ip:
            return Kind.CLUSTER_IP
        if target.address in service.external_ips:
            return Kind.EXTERNAL_IP
        if target.address in service.load_balancer_vips:
            return Kind.LOAD_BALANCER
    return Kind.NODE_PORT


def addresses_of(service: ServicePort) -> tuple[Address, ...]:
    """Return all addresses of a service port that are no addresses of nodes."""
    return (service.cluster_ip, *service.external_ips, *service.load_balancer_vips)


def _unserved(world: World, target: Target) -> tuple[Fate, str]:
    """Tell what becomes of a packet to an address and port that no service has."""
    address = target.address
    services = [one.service for one in world.state.services.values()]
    if is_loopback(address) or address in world.node.addresses:
        return Fate.NODE, "it is an address of this node, and no node port has this number"
    owners = [service for service in services if address in addresses_of(service)]
    if owners:
        internal = any(service.cluster_ip == address for service in owners)
        return _wrong_port(world.mode, internal=internal)
    if within(address, world.state.service_cidrs):
        if world.mode == NFTABLES:
            return Fate.DROPPED, "unused addresses of the service networks are dropped"
        return Fate.PASSES, (
            f"no service has this address, and mode {world.mode} has rules for services only: it "
            "leaves the node by its routes"
        )
    return Fate.PASSES, "it is no address of any service or of this node"


def _wrong_port(mode: str, *, internal: bool) -> tuple[Fate, str]:
    what = "a ClusterIP" if internal else "an external or load balancer IP"
    if mode == IPVS:
        return Fate.REFUSED, (
            "service addresses are local to the node, and ports that are not served are rejected"
        )
    if mode == NFTABLES and internal:
        return Fate.REFUSED, "other ports of a ClusterIP are rejected"
    return Fate.PASSES, (
        f"mode {mode} has no rule for other ports of {what}: it leaves the node by its routes"
    )


def _not_served_at(world: World, address: Address, source: Source) -> str:
    """Return why a node port is not served at an address of the node; empty if it is."""
    ports = world.state.node_ports
    if is_loopback(address):
        if world.mode != IPTABLES or ":" in address:
            return f"mode {world.mode} serves no node ports on loopback addresses" + (
                " of IPv6" if world.mode == IPTABLES else ""
            )
        if not ports.localhost:
            return "node ports on localhost are switched off (localhostNodePorts)"
        return "" if source.origin is Origin.NODE else "only the node itself reaches its loopback"
    if ports.everywhere or address in ports.addresses:
        return ""
    served = ", ".join(ports.addresses) or "no address"
    return f"node ports are served at {served} only (nodePortAddresses)"


class _Way:
    """What internal and external traffic have in common: shares, refusals, reasons."""

    def __init__(self, world: World, served: ServiceState, source: Source) -> None:
        self._world = world
        self._served = served
        self._service = served.service
        self._source = source
        self._reasons: list[str] = []

    def _end(self, fate: Fate, reason: str) -> Prediction:
        self._reasons.append(reason)
        if (
            (fate, self._world.mode) == (Fate.DROPPED, NFTABLES)
            and self._source.origin is Origin.NODE
            and self._service.protocol is not Protocol.TCP
        ):
            self._reasons.append("the node's own send() fails with EPERM")
        return Prediction(source=self._source, fate=fate, reasons=tuple(self._reasons))

    def _to(self, endpoints: Sequence[Endpoint], *, masquerade: bool) -> Prediction:
        ordered = sorted(endpoints, key=lambda one: (one.address, one.port))
        shares = tuple(self._share(one, len(ordered), masquerade) for one in ordered)
        if any(one.masqueraded and self._is_sender(one.endpoint) for one in shares):
            self._reasons.append(
                "an endpoint that reaches itself is masqueraded, else it would answer itself"
            )
        self._tell_lost_answers(shares)
        return Prediction(
            source=self._source, fate=Fate.ENDPOINT, shares=shares, reasons=tuple(self._reasons)
        )

    def _share(self, endpoint: Endpoint, count: int, masquerade: bool) -> Share:
        masqueraded = self._masqueraded(endpoint, masquerade)
        away = not endpoint.local and endpoint.address not in self._world.node.addresses
        return Share(
            endpoint=endpoint,
            probability=1 / count,
            masqueraded=masqueraded,
            answered=masqueraded or not (away and self._sends_from_service()),
        )

    def _masqueraded(self, endpoint: Endpoint, masquerade: bool) -> bool:
        if self._is_sender(endpoint) and self._is_known_to_loop(endpoint):
            return True
        # What stays on the node does not pass POSTROUTING, except what the node itself sends.
        own = endpoint.address in self._world.node.addresses
        return masquerade and not (own and self._source.origin is not Origin.NODE)

    def _is_known_to_loop(self, endpoint: Endpoint) -> bool:
        """Return whether the rules know that this endpoint may be led to itself."""
        if endpoint.local or self._world.mode == IPTABLES:
            return True
        # Another node's pods come here unmasqueraded only by way of the policy Local. What is
        # known of an endpoint by one service is known of it by all.
        return self._world.mode == NFTABLES and any(
            endpoint.address == other.address
            for one in self._world.state.services.values()
            if one.service.external_local and externally_accessible(one.service)
            for other in one.cluster
        )

    def _is_sender(self, endpoint: Endpoint) -> bool:
        return self._source.address == endpoint.address and not self._sends_from_service()

    def _sends_from_service(self) -> bool:
        """Return whether the client has the very address it sends to, as the node in ipvs mode."""
        return self._source.origin is Origin.NODE and self._world.mode == IPVS

    def _tell_lost_answers(self, shares: Sequence[Share]) -> None:
        """Say where an answer would not come back through this node to be translated."""
        source = self._source
        if not all(share.answered for share in shares):
            self._reasons.append(
                "the node sends from the service address itself, and endpoints on other nodes "
                "answer to whoever has that address there"
            )
        if source.origin is Origin.NODE or (source.origin is Origin.POD and source.here):
            return
        own = self._world.node.addresses
        if any(
            not share.masqueraded
            and not share.endpoint.local
            and share.endpoint.address not in own
            for share in shares
        ):
            self._reasons.append(
                "answers of endpoints on other nodes do not pass this node unless routed so: then "
                "the client sees an answer from a stranger, and the connection times out"
            )


class _Internal(_Way):
    """To a ClusterIP."""

    def predict(self) -> Prediction:
        """Tell what becomes of the packet."""
        served, mode = self._served, self._world.mode
        local = self._service.internal_local
        endpoints = served.local if local else served.cluster
        if mode == IPVS and local and not endpoints and served.cluster:
            self._reasons.append(
                "internalTrafficPolicy Local, but no endpoint here: mode ipvs then uses all"
            )
            return self._to(served.cluster, masquerade=self._masquerade())
        if local:
            self._reasons.append("internalTrafficPolicy Local: only endpoints of this node")
        if endpoints:
            return self._to(endpoints, masquerade=self._masquerade())
        if not (local and served.anywhere):
            return self._end(Fate.REFUSED, "the service has no usable endpoints")
        if mode == IPVS:
            reason = "no endpoint here: a virtual server without real servers refuses"
            return self._end(Fate.REFUSED, reason)
        return self._end(Fate.DROPPED, "endpoints elsewhere, none here: dropped, not refused")

    def _masquerade(self) -> bool:
        world, source = self._world, self._source
        if world.state.masquerade_all:
            self._reasons.append("masqueradeAll: every client of a ClusterIP is masqueraded")
            return True
        if self._sends_from_service():
            self._reasons.append(
                "masqueraded: in ipvs mode the node sends from the ClusterIP itself"
            )
            return True
        if not world.knows_pods:
            self._reasons.append("not masqueraded: the networks of the pods are not known")
            return False
        if world.is_pod(source):
            self._reasons.append("not masqueraded: the rules take the client for a pod")
            return False
        if source.origin is Origin.NODE:
            self._reasons.append("masqueraded, to an address of the node, which it has anyway")
        else:
            self._reasons.append(
                "masqueraded: the client is no pod, and the answer must come back to this node"
            )
        return True


class _External(_Way):
    """To an external IP, a load balancer's, or a node port."""

    def __init__(self, world: World, served: ServiceState, source: Source, kind: Kind) -> None:
        super().__init__(world, served, source)
        self._kind = kind

    def predict(self) -> Prediction:
        """Tell what becomes of the packet."""
        world, served = self._world, self._served
        if self._kind is Kind.LOAD_BALANCER and self._service.source_ranges and self._guarded():
            ranges = ", ".join(self._service.source_ranges)
            if not self._in_ranges():
                return self._end(Fate.DROPPED, f"not in loadBalancerSourceRanges: {ranges}")
            self._reasons.append(f"in loadBalancerSourceRanges: {ranges}")
        if not served.anywhere:
            return self._without_endpoints()
        if not self._service.external_local:
            self._reasons.append(
                "masqueraded: external traffic with externalTrafficPolicy Cluster always is"
            )
            return self._to(served.cluster, masquerade=True)
        return self._local_ipvs() if world.mode == IPVS else self._local_rules()

    def _sends_from_service(self) -> bool:
        return self._kind is not Kind.NODE_PORT and super()._sends_from_service()

    def _without_endpoints(self) -> Prediction:
        from_node = self._source.origin is Origin.NODE
        if self._world.mode == IPTABLES and from_node and self._kind is not Kind.NODE_PORT:
            reason = "no usable endpoints; mode iptables rejects this on its way in, not out"
            return self._end(Fate.PASSES, reason)
        return self._end(Fate.REFUSED, "the service has no usable endpoints")

    def _local_ipvs(self) -> Prediction:
        served = self._served
        self._reasons.append(
            "externalTrafficPolicy Local: only endpoints of this node, which see the client's "
            "address"
            if served.local
            else "externalTrafficPolicy Local, but no endpoint here: mode ipvs then uses all, and "
            "they see the client's address"
        )
        return self._to(served.local or served.cluster, masquerade=False)

    def _local_rules(self) -> Prediction:
        served = self._served
        if self._world.is_pod(self._source):
            self._reasons.append(
                "externalTrafficPolicy Local: pods are led past it to all endpoints, unmasqueraded"
            )
            return self._to(served.cluster, masquerade=False)
        if self._source.origin is Origin.NODE:
            self._reasons.append(
                "externalTrafficPolicy Local: the node itself is led past it to all endpoints, "
                "masqueraded"
            )
            return self._to(served.cluster, masquerade=True)
        if served.local:
            self._reasons.append(
                "externalTrafficPolicy Local: only endpoints of this node, which see the client's "
                "address"
            )
            return self._to(served.local, masquerade=False)
        reason = "externalTrafficPolicy Local: endpoints elsewhere, none here: dropped"
        return self._end(Fate.DROPPED, reason)

    def _guarded(self) -> bool:
        """Return whether source ranges are looked at before it is seen that nobody serves."""
        if self._served.anywhere or self._world.mode == NFTABLES:
            return True
        # The node's own packets meet IPVS before any filter does.
        return self._world.mode == IPVS and self._source.origin is not Origin.NODE

    def _in_ranges(self) -> bool:
        source = self._source
        if source.in_ranges is not None:
            return source.in_ranges
        address = source.address
        if source.origin is Origin.NODE and self._world.node.addresses:
            address = address or self._world.node.addresses[0]
        return address is not None and within(address, self._service.source_ranges)
