"""From objects and settings to what can be asked: one :class:`Side` for each IP family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kproxy.agent import nodeaddresses
from kproxy.agent.node import SERVICE_DEVICE
from kproxy.agent.settings import Settings
from kproxy.api import addresses, core
from kproxy.backends.base import FAMILIES
from kproxy.backends.claims import Claims
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Address, Endpoint, Family, Prefix, ServicePortName
from kproxy.desired.trackers import EndpointSliceTracker, ObjectKey, PortKey
from kproxy.errors import InvalidObject, KernelError
from kproxy.kernel.links import own as own_links

from .objects import Objects
from .world import Node, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One IP family of the node."""

    world: World
    endpoints: Mapping[ServicePortName, Sequence[Endpoint]]
    """Every endpoint that EndpointSlices name, also those that nobody may use."""
    problems: Sequence[InvalidObject]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """The node's own addresses, and whether this machine is that node."""

    own: Mapping[Family, tuple[str, ...]]
    here: bool


def whereabouts(node: core.Node | None) -> Whereabouts:
    """Return the node's addresses: this machine's, unless the Node object has quite others."""
    try:
        kernel = own_links.own_addresses(SERVICE_DEVICE)
    except KernelError:
        kernel = {}
    found = {family: kernel.get(ip, ()) for family, ip in FAMILIES.items()}
    named = _named_addresses(node)
    mine = {address for those in found.values() for address in those}
    theirs = {address for those in named.values() for address in those}
    if not theirs or theirs & mine:
        return Whereabouts(own=found, here=True)
    return Whereabouts(own=named, here=False)


def sides(
    objects: Objects, settings: Settings, own: Mapping[Family, tuple[str, ...]]
) -> list[Side]:
    """Put together the wanted state in each family."""
    return [_side(objects, settings, one, own.get(one.family, ())) for one in settings.families]


def _side(objects: Objects, settings: Settings, family: NodeSettings, own: Sequence[str]) -> Side:
    zone = _zone(objects.node)
    builder = StateBuilder(family, zone)
    policy = next(one for one in settings.node_ports if one.family is family.family)
    builder.set_node_ports(policy.node_ports(own, objects.node))
    builder.set_service_cidrs(_networks(objects.service_cidrs, family.family))
    pods = nodeaddresses.pod_networks(objects.node).get(family.family, ())
    if settings.pods_by_node:
        builder.set_cluster_cidrs(pods)
    builder.on_services([(None, one) for one in objects.services])
    builder.on_slices([(None, one) for one in objects.slices])
    state = builder.build()
    primary = policy.primary_address(own, objects.node)
    node = Node(
        name=settings.node,
        zone=zone,
        addresses=tuple(map(Address, sorted(own, key=lambda one: one != primary))),
        pod_networks=pods,
    )
    world = World(mode=settings.mode, state=state, node=node, scheduler=settings.options.scheduler)
    return Side(
        world=world,
        endpoints=_all_endpoints(objects, settings.node, world),
        problems=[*builder.take_problems(), *_contested(world)],
    )


def _all_endpoints(
    objects: Objects, node: str, world: World
) -> dict[ServicePortName, Sequence[Endpoint]]:
    ignored: list[InvalidObject] = []  # the builder has told them
    tracker = EndpointSliceTracker(world.family, node, ignored.append)
    for one in objects.slices:
        tracker.update(ObjectKey(one.metadata.namespace, one.metadata.name), one)
    found: dict[ServicePortName, Sequence[Endpoint]] = {}
    for name in world.state.services:
        ports = tracker.endpoints(ObjectKey(name.namespace, name.name))
        found[name] = ports.get(PortKey(name.port, name.protocol), ())
    return found


def _contested(world: World) -> Sequence[InvalidObject]:
    """Return which service ports claim what another one has."""
    claims = Claims()
    claims.update((name, one.service) for name, one in world.state.services.items())
    return claims.problems()


def _zone(node: core.Node | None) -> str:
    return (node.metadata.labels or {}).get(core.ZONE_LABEL, "") if node is not None else ""


def _named_addresses(node: core.Node | None) -> dict[Family, tuple[str, ...]]:
    status = node.status if node is not None else None
    found: dict[Family, tuple[str, ...]] = {}
    for one in (status.addresses if status is not None else None) or ():
        parsed = addresses.parse_address(one.address)
        if one.type == "InternalIP" and parsed is not None:
            family = Family.IPV4 if parsed.version == 4 else Family.IPV6
            found[family] = (*found.get(family, ()), parsed.text)
    return found


def _networks(texts: Sequence[str], family: Family) -> tuple[Prefix, ...]:
    version = 4 if family is Family.IPV4 else 6
    parsed = (addresses.parse_network(text) for text in texts)
    return tuple(Prefix(one.text) for one in parsed if one is not None and one.version == version)
