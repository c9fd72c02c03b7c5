"""What turns the kernel's IPVS state into the wanted one, and in which order. Pure.

A step is a list of operations for one kernel facility. The order of the steps is such that at each
moment a service address either leaves the node as if the service did not exist, or is refused, or
works; never does it reach a port of the node itself, nor an endpoint without the masquerading it
needs:

1. sets get their new entries, before rules name them and before packets need them;
2. rules;
3. new services with their endpoints, new endpoints of old services, weights;
4. new addresses on the device: only now do packets come;
5. services that are gone leave KUBE-CLUSTER-IP: new connections to them are refused;
6. their virtual services, and endpoints that are gone;
7. their addresses leave the device;
8. the other sets lose what is left, KUBE-IPVS-IPS (which says what is ours) last.

So nothing that is right is ever removed, and all adds come before all removes.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from kproxy.backends.ipvs.render import DRAINING, SetNames, Tables
from kproxy.kernel import inet
from kproxy.kernel.inet import IPAddress, IPNetwork
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipset.types import Entry, SetSpec
from kproxy.kernel.ipvs import types as ipvs
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationKey,
    ServiceConfig,
    ServiceEntry,
    ServiceKey,
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel holds of ours, in one family. The device's addresses are all ours."""

    services: Mapping[ServiceKey, ServiceEntry]
    device: bool
    addresses: Set[IPAddress]
    sets: Mapping[str, Set[Entry]]
    written: Mapping[ServiceKey, Mapping[DestinationKey, DestinationConfig]] = field(
        default_factory=dict
    )
    """What we wrote ourselves: a service whose real servers are this very object is right."""


@dataclass(slots=True)
class Plan:
    """The steps, in the order of this module's docstring (rules are planned elsewhere)."""

    sets_add: list[ipset.Operation] = field(default_factory=list)
    ipvs_add: list[ipvs.Operation] = field(default_factory=list)
    addresses_add: list[IPAddress] = field(default_factory=list)
    sets_refuse: list[ipset.Operation] = field(default_factory=list)
    ipvs_remove: list[ipvs.Operation] = field(default_factory=list)
    addresses_remove: list[IPAddress] = field(default_factory=list)
    sets_remove: list[ipset.Operation] = field(default_factory=list)
    draining: int = 0
    """Endpoints that are gone but still have connections: to be looked at again."""


@dataclass(frozen=True, slots=True)
class Conventions:
    """What is the same for all services of one family."""

    names: SetNames
    specs: Mapping[str, SetSpec]
    service: ServiceConfig
    foreign: tuple[IPNetwork, ...] = ()
    """Virtual services with addresses in these networks are not ours, wherever the address is."""

    def is_ours(self, service: ServiceKey, ours: Set[IPAddress]) -> bool:
        """Return whether we may delete a virtual service; ``ours`` are the addresses we hold."""
        address = service.address
        return address in ours and not any(address in network for network in self.foreign)


def plan(have: Seen, want: Tables, conventions: Conventions) -> Plan:
    """Return the steps that turn ``have`` into ``want``."""
    steps = Plan()
    names = conventions.names
    for name, spec in conventions.specs.items():
        _plan_set(steps, name, spec, have.sets.get(name), want.sets[name], names)
    steps.addresses_add = sorted(want.addresses - have.addresses)
    steps.addresses_remove = sorted(have.addresses - want.addresses)
    for service, destinations in want.services.items():
        if have.written.get(service) is destinations:
            continue
        known = have.services.get(service)
        _plan_service(steps, service, conventions.service, known, destinations)
    ours: set[IPAddress] = set(have.addresses) | _hosts(have.sets.get(names.service_ips, ()))
    steps.ipvs_remove.extend(
        ipvs.DelService(service)
        for service in have.services
        if service not in want.services and conventions.is_ours(service, ours)
    )
    return steps


def _plan_set(
    steps: Plan,
    name: str,
    spec: SetSpec,
    have: Set[Entry] | None,
    want: Set[Entry],
    names: SetNames,
) -> None:
    if have is None:
        steps.sets_add.append(ipset.CreateSet(name, spec))
        have = frozenset()
    if have == want:
        return
    steps.sets_add.extend(ipset.AddEntry(name, entry) for entry in want - have)
    gone = [ipset.DelEntry(name, entry) for entry in have - want]
    if name == names.cluster_ip:
        steps.sets_refuse.extend(gone)
    elif name == names.service_ips:
        steps.sets_remove.extend(gone)
    else:
        steps.sets_remove[:0] = gone


def _plan_service(
    steps: Plan,
    service: ServiceKey,
    config: ServiceConfig,
    have: ServiceEntry | None,
    want: Mapping[DestinationKey, DestinationConfig],
) -> None:
    if have is None:
        steps.ipvs_add.append(ipvs.AddService(service, config))
        steps.ipvs_add.extend(
            ipvs.AddDestination(service, destination, wanted)
            for destination, wanted in want.items()
        )
        return
    if have.config != config:
        steps.ipvs_add.append(ipvs.SetService(service, config))
    staying = len(want)
    for destination, wanted in want.items():
        entry = have.destinations.get(destination)
        if entry is None:
            staying -= 1
            steps.ipvs_add.append(ipvs.AddDestination(service, destination, wanted))
        elif entry.config != wanted:
            # Also heals a weight of 0 that a proxy left behind which died while it drained.
            steps.ipvs_add.append(ipvs.SetDestination(service, destination, wanted))
    if staying < len(have.destinations):
        _plan_departures(steps, service, have, want)


def _plan_departures(
    steps: Plan,
    service: ServiceKey,
    have: ServiceEntry,
    want: Mapping[DestinationKey, DestinationConfig],
) -> None:
    """Let endpoints go that are not wanted: at once, or when their connections have ended.

    Stateless: whether an endpoint has connections is what the kernel says now. A UDP client would
    send to an endpoint that is gone for ever, so UDP endpoints go at once.
    """
    for destination, entry in have.destinations.items():
        if destination in want:
            continue
        busy = entry.stats.active + entry.stats.inactive
        if service.protocol is inet.Protocol.UDP or not busy:
            steps.ipvs_remove.append(ipvs.DelDestination(service, destination))
            continue
        steps.draining += 1
        if entry.config.weight != DRAINING.weight:
            # With the removes: its successor is there by then.
            steps.ipvs_remove.append(ipvs.SetDestination(service, destination, DRAINING))


def needs_counts(have: Seen, want: Tables) -> bool:
    """Return whether an endpoint goes whose connections must be counted first."""
    return any(
        service.protocol is not inet.Protocol.UDP
        and have.written.get(service) is not destinations
        and (entry := have.services.get(service)) is not None
        and not entry.destinations.keys() <= destinations.keys()
        for service, destinations in want.services.items()
    )


def writes(steps: Plan) -> int:
    """Return how many kernel objects the steps touch."""
    return (
        len(steps.sets_add)
        + len(steps.ipvs_add)
        + len(steps.addresses_add)
        + len(steps.sets_refuse)
        + len(steps.ipvs_remove)
        + len(steps.addresses_remove)
        + len(steps.sets_remove)
    )


def after(have: Seen, want: Tables, steps: Plan, service_config: ServiceConfig) -> Seen:
    """Return what the kernel holds when all steps were done, if nothing drains.

    The counts of connections are those of the reading: see :func:`needs_counts`.
    """
    services = dict(have.services)
    unused = ipvs.DestinationStats()
    for service in {step.service for step in (*steps.ipvs_add, *steps.ipvs_remove)}:
        destinations = want.services.get(service)
        if destinations is None:
            del services[service]
            continue
        services[service] = ServiceEntry(
            service_config,
            {key: ipvs.DestinationEntry(config, unused) for key, config in destinations.items()},
        )
    device = have.device or bool(want.addresses)
    return Seen(
        services=services,
        device=device,
        addresses=want.addresses,
        sets=want.sets,
        written=want.services,
    )


def _hosts(entries: Iterable[Entry]) -> set[IPAddress]:
    return {
        entry.address
        for entry in entries
        if isinstance(entry.address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    }
