"""What turns the kernel's IPVS state into the wanted one, and in which order. Pure.

A step is a list of operations for one kernel facility. The order of the steps is such that at each
moment a service address either leaves the node as if the service did not exist, or is refused, or
works; never does it reach a port of the node itself, nor an endpoint without the masquerading it
needs:

1. sets get their new entries, before rules name them and before packets need them; those that keep
   packets from being masqueraded lose the old ones;
2. rules;
3. new services with their endpoints, new endpoints of old services, weights;
4. new addresses on the device: only now do packets come;
5. places that are gone leave the sets of what is served: new connections to them are refused;
6. their virtual services, and endpoints that are gone;
7. their addresses leave the device;
8. the other sets lose what is left, KUBE-IPVS-IPS (which says what is ours) last; those that keep
   packets from being masqueraded get the new ones.

So nothing that is right is ever removed, and all adds come before all removes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from kproxy.backends.ipvs.render import DESTINATION, DRAINING, Place
from kproxy.backends.ipvs.sets import Member, Sets
from kproxy.kernel import inet
from kproxy.kernel.inet import IPAddress, unpacked
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipvs import types as ipvs
from kproxy.kernel.ipvs.types import ServiceEntry, ServiceKey


@dataclass(slots=True)
class Changes:
    """In what the kernel differs from what is wanted, in one family; rules apart."""

    sets: list[str] = field(default_factory=list)
    """Sets that are missing."""
    members_added: list[Member] = field(default_factory=list)
    members_removed: list[Member] = field(default_factory=list)
    addresses_added: list[bytes] = field(default_factory=list)
    """Packed."""
    addresses_removed: list[bytes] = field(default_factory=list)
    device_down: bool = False
    """Somebody has set the device down: IPv6 addresses that were kept on it are not local now."""
    services: dict[ServiceKey, tuple[ServiceEntry | None, Place | None]] = field(
        default_factory=dict
    )
    """What the kernel has, and what it should have; None: nothing."""


@dataclass(slots=True)
class Plan:
    """The steps, in the order of this module's docstring (rules are planned elsewhere)."""

    sets_first: list[ipset.Operation] = field(default_factory=list)
    ipvs_add: list[ipvs.Operation] = field(default_factory=list)
    addresses_add: list[IPAddress] = field(default_factory=list)
    bring_up: bool = False
    sets_refuse: list[ipset.Operation] = field(default_factory=list)
    ipvs_remove: list[ipvs.Operation] = field(default_factory=list)
    addresses_remove: list[IPAddress] = field(default_factory=list)
    sets_last: list[ipset.Operation] = field(default_factory=list)
    draining: dict[ServiceKey, None] = field(default_factory=dict)
    """Services with endpoints that are gone but still have connections: to be looked at again."""

    def writes(self) -> int:
        """Return how many kernel objects the steps touch."""
        return (
            len(self.sets_first)
            + sum(ipvs.size(operation) for operation in self.ipvs_add)
            + len(self.addresses_add)
            + self.bring_up
            + len(self.sets_refuse)
            + len(self.ipvs_remove)
            + len(self.addresses_remove)
            + len(self.sets_last)
        )


def plan(changes: Changes, sets: Sets) -> Plan:
    """Return the steps that make the changes."""
    steps = Plan(bring_up=changes.device_down)
    _plan_sets(steps, changes, sets)
    steps.addresses_add = [unpacked(one) for one in sorted(changes.addresses_added)]
    steps.addresses_remove = [unpacked(one) for one in sorted(changes.addresses_removed)]
    gone: list[ipvs.Operation] = []
    for service, (have, want) in changes.services.items():
        if want is None:
            if have is not None:
                gone.append(ipvs.DelService(service))
        elif have is None:
            _plan_new(steps, want)
        else:
            _plan_change(steps, have, want)
    steps.ipvs_remove.extend(gone)
    return steps


def _plan_sets(steps: Plan, changes: Changes, sets: Sets) -> None:
    specs = sets.specs()
    steps.sets_first.extend(ipset.CreateSet(name, specs[name]) for name in changes.sets)
    late, announced = sets.unmasquerading(), sets.announced()
    added = _by_set(changes.members_added, specs)
    removed = _by_set(changes.members_removed, specs)
    for name in specs:
        if name in late:
            steps.sets_first.extend(ipset.DelEntry(name, entry) for entry in removed[name])
    for name in specs:
        if name not in late:
            steps.sets_first.extend(ipset.AddEntry(name, entry) for entry in added[name])
    still = frozenset(added[sets.external_ip_local])
    for name in reversed(specs):
        if name in late:
            continue
        for entry in removed[name]:
            operation = ipset.DelEntry(name, entry)
            # What only stops being masqueraded is served all the time.
            refuse = name in announced and not (name == sets.external_ip and entry in still)
            (steps.sets_refuse if refuse else steps.sets_last).append(operation)
    for name in specs:
        if name in late:
            steps.sets_last.extend(ipset.AddEntry(name, entry) for entry in added[name])


def _by_set(members: Iterable[Member], names: Iterable[str]) -> dict[str, list[ipset.Entry]]:
    found: dict[str, list[ipset.Entry]] = {name: [] for name in names}
    for name, entry in members:
        found[name].append(entry)
    return found


def _plan_new(steps: Plan, want: Place) -> None:
    key = want.key
    steps.ipvs_add.append(ipvs.AddService(key, want.config, want.destinations, DESTINATION))


def _plan_change(steps: Plan, have: ServiceEntry, want: Place) -> None:
    key = want.key
    if have.config != want.config:
        steps.ipvs_add.append(ipvs.SetService(key, want.config))
    real_servers = want.real_servers
    staying = len(real_servers)
    for destination in real_servers:
        entry = have.destinations.get(destination)
        if entry is None:
            staying -= 1
            steps.ipvs_add.append(ipvs.AddDestination(key, destination, DESTINATION))
        elif entry.config != DESTINATION:
            # Also heals a weight of 0 that a proxy left behind which died while it drained.
            steps.ipvs_add.append(ipvs.SetDestination(key, destination, DESTINATION))
    if staying < len(have.destinations):
        _plan_departures(steps, have, want)


def _plan_departures(steps: Plan, have: ServiceEntry, want: Place) -> None:
    """Let endpoints go that are not wanted: at once, or when their connections have ended.

    Stateless: whether an endpoint has connections is what the kernel says now. A UDP client would
    send to an endpoint that is gone for ever, so UDP endpoints go at once.
    """
    key = want.key
    for destination in departing(have, want):
        entry = have.destinations[destination]
        busy = entry.stats.active + entry.stats.inactive
        if key.protocol is inet.Protocol.UDP or not busy:
            steps.ipvs_remove.append(ipvs.DelDestination(key, destination))
            continue
        steps.draining[key] = None
        if entry.config.weight != DRAINING.weight:
            # With the removes: its successor is there by then.
            steps.ipvs_remove.append(ipvs.SetDestination(key, destination, DRAINING))


def departing(have: ServiceEntry, want: Place) -> list[ipvs.DestinationKey]:
    """Return the endpoints that are there and not wanted."""
    wanted = frozenset(want.real_servers)
    return [destination for destination in have.destinations if destination not in wanted]


def counted(changes: Changes) -> list[ServiceKey]:
    """Return the services of which endpoints go only if they have no connections."""
    return [
        key
        for key, (have, want) in changes.services.items()
        if have is not None
        and want is not None
        and key.protocol is not inet.Protocol.UDP
        and departing(have, want)
    ]
