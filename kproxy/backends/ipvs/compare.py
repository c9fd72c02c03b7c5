"""In what a kernel that was read differs from what is wanted. Pure."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from kproxy.backends.ipvs.plan import Changes
from kproxy.backends.ipvs.render import DESTINATION, Place
from kproxy.backends.ipvs.sets import Sets
from kproxy.backends.ipvs.wanted import Delta, Wanted
from kproxy.kernel import inet
from kproxy.kernel.inet import IPNetwork
from kproxy.kernel.ipset.types import Entry
from kproxy.kernel.ipvs.types import Dump, ServiceEntry, ServiceKey


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel holds, in one family. The device's addresses are all ours."""

    services: Dump = field(default_factory=dict)
    device: bool = False
    """Whether it is there, and up if that matters."""
    addresses: Set[bytes] = frozenset()
    """Packed."""
    sets: Mapping[str, Set[Entry]] = field(default_factory=dict)
    """Our sets only."""


def compare(seen: Seen, wanted: Wanted, sets: Sets, foreign: Iterable[IPNetwork] = ()) -> Changes:
    """Return in what a kernel differs.

    Virtual services with addresses in ``foreign`` networks are not ours, wherever the address is.
    """
    changes = Changes()
    for name in sets.specs():
        have, want = seen.sets.get(name), wanted.members(name)
        if have is None:
            changes.sets.append(name)
            have = frozenset()
        if have != want:
            # In an order that is the same at each run.
            changes.members_added.extend((name, entry) for entry in want if entry not in have)
            changes.members_removed.extend((name, entry) for entry in sorted(have - want))
    if seen.addresses != wanted.addresses:
        changes.addresses_added.extend(wanted.addresses - seen.addresses)
        changes.addresses_removed.extend(seen.addresses - wanted.addresses)
    # What is to be added brings it up, too.
    changes.device_down = not seen.device and bool(seen.addresses & wanted.addresses)
    _compare_services(changes, seen, wanted, Ours(seen, sets, foreign))
    return changes


def _compare_services(changes: Changes, seen: Seen, wanted: Wanted, ours: "Ours") -> None:
    services = seen.services
    missing = 0
    for key, place in wanted.places.items():
        have = services.get(key)
        if have is None:
            missing += 1
        elif have.config == place.config and is_right(have, place):
            continue
        changes.services[key] = have, place
    if len(services) + missing > len(wanted.places):
        for key, entry in services.items():
            if key not in wanted.places and ours.hold(key):
                changes.services[key] = entry, None


def is_right(have: ServiceEntry, want: Place) -> bool:
    """Return whether a virtual service has exactly the wanted real servers."""
    destinations, row = have.destinations, want.destinations
    size = len(want.key) - 1
    if len(destinations) * size != len(row):
        return False
    for at in range(0, len(row), size):
        # Equal to the key that these bytes are, though not of its type: none needs to be made.
        entry = destinations.get(row[at : at + size])  # type: ignore[call-overload]  # equal bytes
        if entry is None or entry.config != DESTINATION:
            return False
    return True


def resume(delta: Delta, read: Dump, wanted: Wanted, foreign: Sequence[IPNetwork] = ()) -> Changes:
    """Return the changes that an update makes where the kernel was right before it.

    ``read``: the services at the places that change, and those whose endpoints drain. What is in
    ``foreign`` networks stays, as it does in :func:`compare`.
    """
    changes = Changes(
        members_added=delta.members_added,
        members_removed=delta.members_removed,
        addresses_added=delta.addresses_added,
        addresses_removed=delta.addresses_removed,
    )
    for key, was in delta.places.items():
        want = wanted.places.get(key)
        if want is None and was is not None:
            if foreign and _inside(key, foreign):
                continue
            changes.services[key] = ServiceEntry(was.config, {}), None
        else:
            changes.services[key] = read.get(key), want
    for key, have in read.items():
        changes.services.setdefault(key, (have, wanted.places.get(key)))
    return changes


class Ours:
    """Tells which virtual services are ours: those whose address, or place, is in a set of ours.

    Or whose address is on the device. Sets are written before all else of a service and cleared
    after it, so even a proxy that died in between leaves nothing behind for ever.
    """

    def __init__(self, seen: Seen, sets: Sets, foreign: Iterable[IPNetwork] = ()) -> None:
        def entries(name: str) -> Set[Entry]:
            return seen.sets.get(name, frozenset())

        self._foreign = tuple(foreign)
        self._addresses = seen.addresses
        self._service_ips = entries(sets.service_ips)
        self._places = [entries(name) for name in sets.announced()]
        self._node_ports = {
            protocol: entries(sets.node_port[protocol]) for protocol in inet.Protocol
        }

    def hold(self, key: ServiceKey) -> bool:
        """Return whether a virtual service is ours."""
        if self._foreign and _inside(key, self._foreign):
            return False
        address, protocol = key[1:-2], key.protocol
        place = Entry.of_place(address, key[0], key[-2:])
        at_node_port = place if protocol is inet.Protocol.SCTP else Entry(None, None, key.port)
        return (
            address in self._addresses
            or Entry.of_address(address) in self._service_ips
            or any(place in places for places in self._places)
            or at_node_port in self._node_ports[protocol]
        )


def _inside(key: ServiceKey, networks: Iterable[IPNetwork]) -> bool:
    address = key.address
    return any(address in network for network in networks)
