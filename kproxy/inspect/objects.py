"""The objects that a question is about: from an API server, or from files of manifests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kproxy.api import core, discovery, networking
from kproxy.client.rest import Rest
from kproxy.desired.servicetracker import PROXY_NAME_LABEL
from kproxy.errors import ApiError, InvalidObject, UsageError

WANTED = "services,endpointslices,nodes,servicecidrs"
FORBIDDEN, ABSENT = 403, 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What a proxy on the node would be told."""

    source: str
    """Where from, for people."""
    services: Sequence[core.Service] = ()
    slices: Sequence[discovery.EndpointSlice] = ()
    node: core.Node | None = None
    service_cidrs: tuple[str, ...] = ()
    problems: list[InvalidObject] = field(default_factory=list)


def from_files(paths: Sequence[Path], node: str) -> Objects:
    """Read objects as ``kubectl get -A -o json`` prints them, or yaml, which takes longer.

    Raises UsageError for a file that cannot be read, or that holds nothing of this.
    """
    from kproxy.api import manifests

    found, problems = manifests.read_manifests(*paths)
    objects = [manifest.object for manifest in found]
    named = ", ".join(map(str, paths))
    services = [one for one in objects if isinstance(one, core.Service)]
    slices = [one for one in objects if isinstance(one, discovery.EndpointSlice)]
    if not services and not slices and not problems:
        raise UsageError(
            f"--objects: {named}: no Service and no EndpointSlice in it",
            remedy=f"write it by: kubectl get {WANTED} -A -o json",
        )
    nodes = [one for one in objects if isinstance(one, core.Node)]
    cidrs = [one for one in objects if isinstance(one, networking.ServiceCIDR)]
    return Objects(
        source=named,
        services=services,
        slices=slices,
        node=next((one for one in nodes if one.metadata.name == node), None),
        service_cidrs=_cidrs(cidrs),
        problems=problems,
    )


def from_api(rest: Rest, server: str, node: str) -> Objects:
    """List the objects of an API server. Raises ApiError, Unreachable.

    ServiceCIDRs are left out where the server knows none, or keeps them from us.
    """
    services = rest.list(core.Service)
    slices = rest.list(discovery.EndpointSlice)
    nodes = rest.list(core.Node, field_selector=f"metadata.name={node}")
    problems: list[InvalidObject] = [*services.problems, *slices.problems, *nodes.problems]
    try:
        cidrs = rest.list(networking.ServiceCIDR).items
    except ApiError as error:
        if error.code not in (FORBIDDEN, ABSENT):
            raise
        cidrs = []
    return Objects(
        source=server,
        services=services.items,
        slices=slices.items,
        node=next((one for one in nodes.items if one.metadata.name == node), None),
        service_cidrs=_cidrs(cidrs),
        problems=problems,
    )


def ignored(services: Sequence[core.Service], proxy_name: str = "") -> dict[str, str]:
    """Return the Services that a proxy of this name does not serve, and why."""
    found = {}
    for service in services:
        meta, spec = service.metadata, service.spec
        first = spec.cluster_ips[0] if spec.cluster_ips else spec.cluster_ip
        why = ""
        if spec.type == "ExternalName":
            why = "ExternalName: an alias in DNS"
        elif (name := (meta.labels or {}).get(PROXY_NAME_LABEL)) != (proxy_name or None):
            why = f"left to another proxy: {name or 'the one without a name'}"
        elif first == "None":
            why = "headless: clients ask DNS for its endpoints"
        elif not first:
            why = "has no ClusterIP (yet)"
        if why:
            found[f"{meta.namespace}/{meta.name}"] = why
    return found


def _cidrs(found: Sequence[networking.ServiceCIDR]) -> tuple[str, ...]:
    return tuple(cidr for one in found for cidr in one.spec.cidrs or ())
