"""What the kernel should hold for all services, kept up to date at the cost of what changes. Pure.

Services share things: an address by their ports, a place by a mistake. So it is counted how many
want an entry or an address, and of those who claim a place the first by name has it.
"""

from collections.abc import Callable, KeysView, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kproxy.backends.base import taken
from kproxy.backends.ipvs import render
from kproxy.backends.ipvs.render import Context, Place, Rendered, Renderer
from kproxy.backends.ipvs.sets import Member, Sets
from kproxy.desired.diff import diff
from kproxy.desired.model import ServicePortName, ServiceState
from kproxy.errors import InvalidObject
from kproxy.kernel.ipset.types import Entry
from kproxy.kernel.ipvs.types import ServiceKey

T = TypeVar("T", bound=bytes)


class _Counted(Generic[T]):
    """Things that several may want, and which of them were wanted before."""

    __slots__ = ("_before", "counts")

    def __init__(self) -> None:
        self.counts: dict[T, int] = {}
        self._before: dict[T, bool] | None = None

    def add(self, thing: T) -> None:
        count = self.counts.get(thing, 0)
        if not count and self._before is not None:
            self._before.setdefault(thing, False)
        self.counts[thing] = count + 1

    def remove(self, thing: T) -> None:
        count = self.counts[thing]
        if count == 1:
            if self._before is not None:
                self._before.setdefault(thing, True)
            del self.counts[thing]
        else:
            self.counts[thing] = count - 1

    def changes(self) -> tuple[list[T], list[T]]:
        """Return what is wanted and was not at the last call, and the reverse.

        The first call only begins to keep account.
        """
        before, self._before = self._before or {}, {}
        added = [one for one, was in before.items() if not was and one in self.counts]
        removed = [one for one, was in before.items() if was and one not in self.counts]
        return added, removed


@dataclass(frozen=True, slots=True)
class Delta:
    """What an update changed."""

    places: dict[ServiceKey, Place | None]
    """What was at each place where something else is now; None: nothing."""
    members_added: list[Member] = field(default_factory=list)
    members_removed: list[Member] = field(default_factory=list)
    addresses_added: list[bytes] = field(default_factory=list)
    addresses_removed: list[bytes] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.places
            or self.members_added
            or self.members_removed
            or self.addresses_added
            or self.addresses_removed
        )


class Wanted:
    """What the tables of one family should hold. Not for two threads."""

    def __init__(self, sets: Sets, pack: Callable[[str], bytes] = render.packed) -> None:
        self.places: dict[ServiceKey, Place] = {}
        self.denied: dict[ServiceKey, None] = {}
        """Places that the node itself may not use."""
        self._addresses: _Counted[bytes] = _Counted()
        self._members: dict[str, _Counted[Entry]] = {name: _Counted() for name in sets.specs()}
        self._service_ips = self._members[sets.service_ips]
        self._contested: dict[ServiceKey, dict[ServicePortName, Place]] = {}
        """The places that several claim, and all claims."""
        self._made: dict[ServicePortName, Rendered] = {}
        self._services: Mapping[ServicePortName, ServiceState] = {}
        self._pack = pack
        self._renderer: Renderer | None = None
        self._before: dict[ServiceKey, Place | None] | None = None

    @property
    def addresses(self) -> KeysView[bytes]:
        """The addresses on the device, packed."""
        return self._addresses.counts.keys()

    def members(self, name: str) -> KeysView[Entry]:
        """Return the entries of a set."""
        return self._members[name].counts.keys()

    def owner(self, key: ServiceKey) -> ServicePortName | None:
        """Return whose a place is; None: nobody's."""
        place = self.places.get(key)
        return None if place is None else place.owner

    def invalid(self) -> tuple[InvalidObject, ...]:
        """Return the claims on places that others have."""
        found = {}
        for claim in self._contested.values():
            owner, *others = sorted(claim)
            for name in others:
                place = claim[name]
                service = self._services[name].service
                problem = taken(service, owner, place.address, place.key.port)
                # A node port is claimed at each address of the node, and told once.
                found[name, str(problem)] = problem
        return tuple(found[key] for key in sorted(found))

    def update(self, services: Mapping[ServicePortName, ServiceState], context: Context) -> Delta:
        """Take what is wanted now; return what that changes; of the first update, nothing.

        Service states that are the same objects as before cost nothing.
        """
        before = self._renderer
        if before is None or before.context != context:
            self._renderer = Renderer(context, self._pack)
        renderer = self._renderer
        assert renderer is not None
        render_ = renderer.render
        if services is not self._services:
            changes = diff(self._services, services)
            for name in changes.remove:
                self._replace(name, None)
            for name, change in changes.change.items():
                self._replace(name, render_(change.want))
            for name, wanted in changes.add.items():
                self._replace(name, render_(wanted))
            self._services = services
        if before is not None and before is not renderer:
            self._move(renderer)
        return self._take_delta()

    def _move(self, renderer: Renderer) -> None:
        """Render again what depends on what has changed, which is the node alone."""
        for name, wanted in self._services.items():
            if render.depends_on_node(wanted.service):
                self._replace(name, renderer.render(wanted))

    def _take_delta(self) -> Delta:
        before, self._before = self._before or {}, {}
        delta = Delta({key: was for key, was in before.items() if self.places.get(key) != was})
        for name, counted in self._members.items():
            added, removed = counted.changes()
            delta.members_added.extend((name, entry) for entry in added)
            delta.members_removed.extend((name, entry) for entry in removed)
        added_addresses, removed_addresses = self._addresses.changes()
        delta.addresses_added.extend(added_addresses)
        delta.addresses_removed.extend(removed_addresses)
        return delta

    def _replace(self, name: ServicePortName, now: Rendered | None) -> None:
        before = self._made.pop(name, None)
        if before is not None:
            for place in before.places:
                self._withdraw(place)
        if now is not None:
            self._made[name] = now
            for place in now.places:
                self._claim(place)
            for part, entry in now.members:
                self._members[part].add(entry)
        if before is not None:
            for part, entry in before.members:
                self._members[part].remove(entry)

    def _claim(self, place: Place) -> None:
        key = place.key
        holder = self.places.get(key)
        if holder is None:
            self._put(place)
            return
        claims = self._contested.setdefault(key, {holder.owner: holder})
        claims[place.owner] = place
        self._settle(key, claims)

    def _withdraw(self, place: Place) -> None:
        key = place.key
        claims = self._contested.get(key)
        if claims is None:
            self._remove(key)
            return
        del claims[place.owner]
        if len(claims) == 1:
            del self._contested[key]
        self._settle(key, claims)

    def _settle(self, key: ServiceKey, claims: Mapping[ServicePortName, Place]) -> None:
        place = claims[min(claims)]
        if self.places[key] is not place:
            self._remove(key)
            self._put(place)

    def _put(self, place: Place) -> None:
        key = place.key
        if self._before is not None:
            self._before.setdefault(key, None)
        self.places[key] = place
        for name, entry in place.members:
            self._members[name].add(entry)
        if place.bind:
            self._addresses.add(key[1:-2])
            self._service_ips.add(Entry.of_address(key[1:-2]))
        if place.denied:
            self.denied[key] = None

    def _remove(self, key: ServiceKey) -> None:
        place = self.places.pop(key)
        if self._before is not None:
            self._before.setdefault(key, place)
        for name, entry in place.members:
            self._members[name].remove(entry)
        if place.bind:
            self._addresses.remove(key[1:-2])
            self._service_ips.remove(Entry.of_address(key[1:-2]))
        self.denied.pop(key, None)
