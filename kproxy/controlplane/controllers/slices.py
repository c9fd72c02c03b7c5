"""From a Service and its pods to EndpointSlices: which endpoints, and in which slice each. Pure.

Endpoints stay in the slice in which they are, new ones fill up the first slice with room, so that
one pod changes one slice.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kproxy.api import core, discovery, meta
from kproxy.api.pods import Pod, PodStatus

SLICE_SIZE = 100
SAME_ZONE = ("PreferClose", "PreferSameZone")
SAME_NODE = "PreferSameNode"


class Group(NamedTuple):
    """What all endpoints of a slice share."""

    family: str
    ports: tuple[discovery.EndpointPort, ...]


Endpoints = tuple[discovery.Endpoint, ...]


@dataclass(slots=True)
class Plan:
    """What turns the existing slices into the wanted ones."""

    create: list[tuple[Group, Endpoints]] = field(default_factory=list)
    keep: list[tuple[discovery.EndpointSlice, Endpoints]] = field(default_factory=list)
    """Slices and the endpoints that they should have; these may be as they are."""
    delete: list[discovery.EndpointSlice] = field(default_factory=list)


def selects_pods(service: core.Service) -> bool:
    """Return whether a Service gets its endpoints from its selector."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def wanted(
    service: core.Service, pods: Iterable[Pod], zones: Mapping[str, str]
) -> dict[Group, list[discovery.Endpoint]]:
    """Return the endpoints of a Service by what their slices share.

    ``zones``: of every node its zone, or empty. Pods that have ended or have no address are left
    out, and those of nodes that do not exist, unless addresses are published that are not ready.
    Terminating pods stay until they are gone. Pods whose containers lack a named target port lack
    that port only.
    """
    groups: dict[Group, list[discovery.Endpoint]] = {}
    families = service.spec.ip_families or ["IPv4"]
    for pod in pods:
        status = pod.status
        if status is None or status.phase in ("Failed", "Succeeded"):
            continue
        if not meta.matches(service.spec.selector, pod.metadata.labels):
            continue
        zone = zones.get(pod.spec.node_name)
        if zone is None and not service.spec.publish_not_ready_addresses:
            continue
        ports = tuple(_ports(service, pod))
        for family in families:
            address = _address(status, family)
            if address:
                group = groups.setdefault(Group(family, ports), [])
                group.append(_endpoint(service, pod, status, address, zone or None))
    return groups


def plan(
    groups: Mapping[Group, Sequence[discovery.Endpoint]],
    existing: Sequence[discovery.EndpointSlice],
    families: Sequence[str],
) -> Plan:
    """Return how to get from the existing slices of a Service to its wanted endpoints.

    A Service without endpoints keeps (or gets) one empty slice per family.
    """
    result = Plan()
    by_group: dict[Group, list[discovery.EndpointSlice]] = {}
    for found in sorted(existing, key=lambda one: one.metadata.name):
        group = Group(found.address_type, tuple(found.ports or ()))
        by_group.setdefault(group, []).append(found)
    for group, endpoints in groups.items():
        _pack(result, group, endpoints, by_group.pop(group, []))
    spare = [one for slices in by_group.values() for one in slices]
    served = {group.family for group in groups}
    for family in families:
        if family in served:
            continue
        empty = next((one for one in spare if one.address_type == family), None)
        if empty is None:
            result.create.append((Group(family, ()), ()))
        else:
            spare.remove(empty)
            result.keep.append((empty, ()))
    result.delete += spare
    return result


def _pack(
    result: Plan,
    group: Group,
    endpoints: Sequence[discovery.Endpoint],
    slices: Sequence[discovery.EndpointSlice],
) -> None:
    """Distribute the endpoints of one group over its slices and new ones."""
    homes: dict[tuple[str, str], int] = {}
    for index, found in enumerate(slices):
        homes.update(dict.fromkeys((_identity(one) for one in found.endpoints or ()), index))
    contents: list[list[discovery.Endpoint]] = [[] for _ in slices]
    homeless: list[discovery.Endpoint] = []
    for endpoint in endpoints:
        home = homes.get(_identity(endpoint))
        (homeless if home is None else contents[home]).append(endpoint)
    for endpoint in homeless:
        roomy = next((content for content in contents if len(content) < SLICE_SIZE), None)
        if roomy is None:
            contents.append(roomy := [])
        roomy.append(endpoint)
    for index, content in enumerate(contents):
        content.sort(key=lambda one: one.addresses[0])
        if index >= len(slices):
            result.create.append((group, tuple(content)))
        elif content:
            result.keep.append((slices[index], tuple(content)))
        else:
            result.delete.append(slices[index])


def _identity(endpoint: discovery.Endpoint) -> tuple[str, str]:
    return endpoint.target_ref.uid if endpoint.target_ref else "", endpoint.addresses[0]


def _endpoint(
    service: core.Service, pod: Pod, status: PodStatus, address: str, zone: str | None
) -> discovery.Endpoint:
    """Return a pod as an endpoint.

    One that is being deleted is not ready, even if it still serves; what is published as ready
    that is not is said by ``serving``.
    """
    serving = any(one.type == "Ready" and one.status == "True" for one in status.conditions or ())
    terminating = pod.metadata.deletion_timestamp is not None
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    node = pod.spec.node_name or None
    named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    return discovery.Endpoint(
        addresses=[address],
        conditions=discovery.EndpointConditions(
            ready=ready, serving=serving, terminating=terminating
        ),
        hints=hints(service, node, zone) if ready else None,
        hostname=pod.spec.hostname if named else None,
        node_name=node,
        zone=zone,
        target_ref=discovery.ObjectReference(
            kind="Pod",
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            uid=pod.metadata.uid,
        ),
    )


def hints(
    service: core.Service, node: str | None, zone: str | None
) -> discovery.EndpointHints | None:
    """Return for whom a ready endpoint is meant by the Service's ``trafficDistribution``.

    For a zone that prefers its own, or for a node (KEP-3015), with its zone as the second choice.
    """
    wish = service.spec.traffic_distribution
    if wish not in (*SAME_ZONE, SAME_NODE):
        return None
    for_zones = [discovery.ForZone(name=zone)] if zone else None
    for_nodes = [discovery.ForNode(name=node)] if node and wish == SAME_NODE else None
    if for_zones is None and for_nodes is None:
        return None
    return discovery.EndpointHints(for_zones=for_zones, for_nodes=for_nodes)


def _address(status: PodStatus, family: str) -> str:
    for text in [one.ip for one in status.pod_ips or ()] or [status.pod_ip]:
        try:
            version = ipaddress.ip_address(text).version
        except ValueError:  # none yet, or nonsense, for which the other pods must not pay
            continue
        if f"IPv{version}" == family:
            return text
    return ""


def _ports(service: core.Service, pod: Pod) -> Iterable[discovery.EndpointPort]:
    for port in service.spec.ports or ():
        number = _target(port, pod)
        if number is not None:
            yield discovery.EndpointPort(
                name=port.name,
                protocol=port.protocol,
                port=number,
                app_protocol=port.app_protocol,
            )


def _target(port: core.ServicePort, pod: Pod) -> int | None:
    """Return the number of a target port in a pod; None if it names none of its ports."""
    if port.target_port is None:
        return port.port
    if isinstance(port.target_port, int):
        return port.target_port
    for container in pod.spec.containers:
        for own in container.ports or ():
            if (own.name, own.protocol) == (port.target_port, port.protocol):
                return own.container_port
    return None
