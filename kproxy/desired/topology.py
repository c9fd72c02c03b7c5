"""Which endpoints of a service port traffic may go to, seen from one node.

The rules are kube-proxy's (``pkg/proxy/topology.go``):

* policy Cluster: the ready endpoints; where every one of them has hints, only those meant for this
  node, else those meant for this zone. Hints that would leave nothing are not followed.
* policy Local: the ready endpoints of this node.
* where that leaves none: the endpoints that are terminating but still serve, chosen alike.
"""

from collections.abc import Iterable, Sequence

import msgspec

from .model import Endpoint, ServicePort, ServiceState


class Place(msgspec.Struct, frozen=True):
    """Where the proxy runs."""

    node: str
    zone: str = ""


def categorize_endpoints(
    service: ServicePort, endpoints: Sequence[Endpoint], place: Place
) -> ServiceState:
    """Choose the endpoints of a service port for each traffic policy."""
    # Almost always all are ready: then one tuple serves for all that follows, and is kept once.
    ready = tuple([endpoint for endpoint in endpoints if endpoint.ready])
    all_ready = len(ready) == len(endpoints)
    usable = ready or _terminating(endpoints)
    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    if uses_cluster(service):
        cluster = _by_hints(ready, place) if ready else usable
    if uses_local(service):
        here = [endpoint for endpoint in endpoints if endpoint.local]
        local = tuple(endpoint for endpoint in here if endpoint.ready) or _terminating(here)
    return ServiceState(
        service=service,
        cluster=cluster,
        local=local,
        known=ready if all_ready else _known(endpoints),
        anywhere=bool(usable),
    )


def externally_accessible(service: ServicePort) -> bool:
    """Return whether anything but the ClusterIP leads to this service port."""
    return bool(service.node_port or service.external_ips or service.load_balancer_vips)


def uses_cluster(service: ServicePort) -> bool:
    """Return whether some traffic to this service port follows the policy Cluster.

    External traffic does even under ``externalTrafficPolicy: Local``: pods of this node are short
    cut to all endpoints.
    """
    return not service.internal_local or externally_accessible(service)


def uses_local(service: ServicePort) -> bool:
    """Return whether some traffic to this service port follows the policy Local."""
    return service.internal_local or (service.external_local and externally_accessible(service))


def _known(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.serving or endpoint.ready)


def _terminating(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating)


def _by_hints(ready: tuple[Endpoint, ...], place: Place) -> tuple[Endpoint, ...]:
    """Narrow ready endpoints by hints for this node, else for its zone, else not at all."""
    if not (ready[0].node_hints or ready[0].zone_hints):
        return ready  # what is asked for below is asked of all
    if all(endpoint.node_hints for endpoint in ready):
        chosen = tuple(endpoint for endpoint in ready if place.node in endpoint.node_hints)
        if chosen:
            return chosen
    if place.zone and all(endpoint.zone_hints for endpoint in ready):
        chosen = tuple(endpoint for endpoint in ready if place.zone in endpoint.zone_hints)
        if chosen:
            return chosen
    return ready
