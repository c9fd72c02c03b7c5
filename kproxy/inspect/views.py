"""The wanted state as an operator reads it: each service port, and why endpoints are used or not.

Pure. What is chosen is never computed here a second time: it is read from the State, and only the
reasons are found out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kproxy.api.addresses import with_port
from kproxy.desired import topology
from kproxy.desired.model import Endpoint, ServicePort, ServicePortName, ServiceState

from .world import World

AllEndpoints = Mapping[ServicePortName, Sequence[Endpoint]]
"""Every endpoint that EndpointSlices name, also those that nobody may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """An endpoint of a service port; ``None`` where there is no such traffic."""

    endpoint: Endpoint
    internal: str
    """Why traffic to the ClusterIP does not go there; empty: it does."""
    external: str | None
    """The same of traffic to all other addresses; None: there are none."""

    @property
    def used(self) -> bool:
        """Return whether any traffic goes there."""
        return "" in (self.internal, self.external)

    @property
    def why(self) -> str:
        """Return why some traffic does not go there; empty if all does."""
        if self.external is None or self.internal == self.external:
            return self.internal
        parts = ((self.internal, "internal"), (self.external, "external"))
        return "; ".join(f"not by {traffic} traffic: {why}" for why, traffic in parts if why)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceView:
    """A service port, its endpoints, and what is remarkable in their choice."""

    state: ServiceState
    endpoints: tuple[EndpointView, ...]
    notes: tuple[str, ...]


def service_views(world: World, everything: AllEndpoints) -> list[ServiceView]:
    """Return all service ports of a node in one family, by name."""
    return [
        service_view(world, world.state.services[name], everything.get(name, ()))
        for name in sorted(world.state.services)
    ]


def service_view(
    world: World, served: ServiceState, everything: Iterable[Endpoint]
) -> ServiceView:
    """Return one service port; ``everything``: all its endpoints, also those not to be used."""
    known = tuple(everything) or served.known
    service = served.service
    external = topology.externally_accessible(service)
    reasons = _Reasons(world, known)
    views = tuple(
        EndpointView(
            endpoint=one,
            internal=reasons.why_not(served, one, local=service.internal_local),
            external=reasons.why_not(served, one, local=service.external_local)
            if external
            else None,
        )
        for one in known
    )
    return ServiceView(state=served, endpoints=views, notes=tuple(reasons.notes(served)))


class _Reasons:
    """Why endpoints of one service port were chosen or not; see ``desired.topology``."""

    def __init__(self, world: World, known: Sequence[Endpoint]) -> None:
        self._node = world.node
        self._known = known
        self._ready = [one for one in known if one.ready]

    def why_not(self, served: ServiceState, endpoint: Endpoint, *, local: bool) -> str:
        """Return why traffic of a policy does not go to an endpoint; empty: it does."""
        chosen = served.local if local else served.cluster
        if endpoint in chosen:
            return ""
        if not endpoint.ready:
            if not endpoint.terminating:
                return "not ready"
            if not endpoint.serving:
                return "terminating, serves no more"
            if not local or endpoint.local:
                return "terminating, and others are ready"
        if local and not endpoint.local:
            return "not on this node"
        if self._hints_of_nodes_count():
            return f"hint for {_listed('node', endpoint.node_hints)}"
        return f"hint for {_listed('zone', endpoint.zone_hints)}, this is {self._node.zone}"

    def notes(self, served: ServiceState) -> Iterable[str]:
        """Return what is remarkable."""
        service = served.service
        if topology.uses_cluster(service):
            if served.cluster and not self._ready:
                yield "no endpoint is ready: those that terminate but still serve are used"
            yield from self._hints_not_followed(served)
        if not topology.uses_local(service) or served.local:
            if not served.anywhere:
                yield "no endpoint can be used"
            return
        yield (
            "policy Local, and no endpoint on this node"
            if served.anywhere
            else ("no endpoint can be used")
        )

    def _hints_of_nodes_count(self) -> bool:
        return all(one.node_hints for one in self._ready) and any(
            self._node.name in one.node_hints for one in self._ready
        )

    def _hints_not_followed(self, served: ServiceState) -> Iterable[str]:
        hinted = [one for one in self._ready if one.zone_hints or one.node_hints]
        if not hinted or len(served.cluster) != len(self._ready):
            return
        by_zone = any(one.zone_hints for one in hinted)
        bare = [one for one in self._ready if not (one.zone_hints if by_zone else one.node_hints)]
        if bare:
            which = with_port(bare[0].address, bare[0].port)
            more = f" and {len(bare) - 1} more have" if len(bare) > 1 else " has"
            yield f"hints are not followed: {which}{more} none"
        elif by_zone and not self._node.zone:
            yield "hints are not followed: the zone of this node is not known"
        elif by_zone and not any(self._node.zone in one.zone_hints for one in hinted):
            yield f"hints are not followed: none is for zone {self._node.zone}"


def _listed(what: str, names: Iterable[str]) -> str:
    found = sorted(names)
    return f"{what}{'s' if len(found) > 1 else ''} {', '.join(found) or 'none'}"


def reached_by(service: ServicePort) -> list[str]:
    """Return the addresses of a service port, each with what it is."""
    port, protocol = service.port, service.protocol
    lines = [f"{with_port(service.cluster_ip, port)}/{protocol}"]
    lines += [f"external {with_port(address, port)}" for address in service.external_ips]
    lines += [f"balancer {with_port(address, port)}" for address in service.load_balancer_vips]
    if service.source_ranges and service.load_balancer_vips:
        lines += [f"  from {network}" for network in service.source_ranges]
    if service.node_port:
        lines.append(f"node port {service.node_port}")
    if service.health_check_node_port:
        lines.append(f"health check port {service.health_check_node_port}")
    return lines


def policies(service: ServicePort) -> list[str]:
    """Return what is special in a service port: policies other than Cluster, and affinity."""
    internal = "Local" if service.internal_local else "Cluster"
    external = "Local" if service.external_local else "Cluster"
    lines = []
    if topology.externally_accessible(service) and external != internal:
        lines = [f"internal {internal}", f"external {external}"]
    elif service.internal_local:
        lines = ["policy Local"]
    if service.affinity_seconds is not None:
        lines.append(f"ClientIP {service.affinity_seconds} s")
    return lines
