"""What the kernel's table should be for a state, in nftables mode. Pure: values in, values out.

Tables with 100,000 elements are not made anew for every change: the renderer keeps what it made,
replaces what belongs to the services that changed, and tells what that was before.
"""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kproxy.backends.base import taken
from kproxy.backends.nftables import layout
from kproxy.backends.nftables.fragments import (
    Claim,
    Fragment,
    FragmentMaker,
    Portal,
    pack_address,
)
from kproxy.desired.model import ServicePort, ServicePortName, ServiceState, State
from kproxy.errors import InvalidObject
from kproxy.kernel.nft.types import Chain, Data, SetSpec

T = TypeVar("T")


class Absent:
    """The type of what was there before where nothing was: None is the data of a set's element."""


ABSENT: Final = Absent()

Before = Data | Absent


@dataclass(frozen=True, slots=True)
class Delta:
    """What is to be changed, said by how it was before: None or ABSENT where nothing was."""

    elements: dict[str, dict[bytes, Before]] = field(default_factory=dict)
    chains: dict[str, Chain | None] = field(default_factory=dict)
    sets: dict[str, SetSpec | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tables:
    """The wanted table. Its renderer goes on changing it with the next state."""

    sets: dict[str, SetSpec] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)
    elements: dict[str, dict[bytes, Data]] = field(default_factory=dict)


Made = dict[ServicePortName, tuple[ServiceState, Fragment]]
"""What was made of each service."""


class Renderer:
    """Turns states into tables; remembers what it made of each service from one to the next."""

    def __init__(self) -> None:
        self.tables = Tables()
        self._constants: object = None
        self._own: tuple[str, ...] = ()
        self._maker: FragmentMaker | None = None
        self._services: Services = {}
        self._made: Made = {}
        self._problems: dict[ServicePortName, list[InvalidObject]] = {}
        """Of those who have not got all that they claim."""
        self._got: dict[ServicePortName, tuple[Portal, ...]] = {}
        """What these have got."""
        self._owners: dict[Claim, ServicePortName] = {}
        self._uses: dict[tuple[str, bytes] | str, int] = {}
        self._delta = Delta()
        self._from_scratch = False

    @property
    def invalid(self) -> tuple[InvalidObject, ...]:
        """Return what services claim that others have, by name."""
        return tuple(one for name in sorted(self._problems) for one in self._problems[name])

    def render(self, state: State) -> Delta | None:
        """Let :attr:`tables` be what the kernel should hold, and return what has changed in it.

        None: :attr:`tables` is a new object, made from scratch; the one before stays as it was.

        Where two services claim the same address or node port, the first by name has it;
        :attr:`invalid` tells which have not.
        """
        constants, own = _constants(state), state.node_ports.addresses
        if (constants, own) != (self._constants, self._own) or self._maker is None:
            self._made = {
                name: known
                for name, known in self._made.items()
                # The node's addresses matter to those who admit only some clients.
                if constants == self._constants and not known[0].service.source_ranges
            }
            self._constants, self._own, self._maker = constants, own, FragmentMaker(state)
            self._anew(state, self._maker)
            return None
        gone, changed = _changes(self._services, state.services)
        if not gone and not changed:
            return Delta()
        self._services = state.services
        self._delta = Delta()
        self._replace(gone, {name: (one, self._maker.make(one)) for name, one in changed})
        return self._settled()

    def _replace(self, gone: Sequence[ServicePortName], new: Made) -> None:
        """Take services out and put others in; deal anew with what they and others both claim."""
        made = self._made
        rivals = {name: made[name] for name in self._rivals(gone, new)}
        # In this order, so that the kernel is told the same in every run.
        again = sorted({**new, **rivals})
        # All of them go before any comes: two services may have exchanged their node ports.
        for name in (*gone, *again):
            if (known := made.pop(name, None)) is not None:
                self._remove(name, known[1])
        for name in again:
            made[name] = new[name] if name in new else rivals[name]
            self._admit(name, *made[name])

    def _rivals(self, gone: Sequence[ServicePortName], new: Made) -> set[ServicePortName]:
        """Return which services get something else, or may, though they are the same.

        Those that have not got all that they claim, and who has what these or the new ones claim.
        All others have theirs, and nobody here claims it.
        """
        rivals = set(self._problems)
        fragments = [one[1] for one in new.values()]
        fragments += [self._made[name][1] for name in self._problems]
        for fragment in fragments:
            for portal in fragment.portals:
                if (owner := self._owners.get(portal.claim)) is not None:
                    rivals.add(owner)
        return rivals.difference(gone, new)

    def _anew(self, state: State, maker: FragmentMaker) -> None:
        """Make everything from scratch, but for fragments that are known already."""
        self.tables = Tables(
            sets=dict(layout.set_specs(state.family)),
            chains=maker.layout.chains(),
            elements={name: {} for name in layout.set_specs(state.family)},
        )
        self._owners, self._uses, self._delta = {}, {}, Delta()
        self._problems, self._got = {}, {}
        self._from_scratch = True
        made = self._made
        self._made = {}
        self._services = state.services
        for name in sorted(state.services):
            one = state.services[name]
            known = made.get(name)
            fragment = known[1] if known and known[0] is one else maker.make(one)
            self._made[name] = one, fragment
            self._admit(name, one, fragment)
        node_ips = self.tables.elements[layout.NODEPORT_IPS]
        if not state.node_ports.everywhere:
            node_ips.update({pack_address(one): None for one in state.node_ports.addresses})
        self._from_scratch, self._delta = False, Delta()

    def _admit(self, name: ServicePortName, one: ServiceState, fragment: Fragment) -> None:
        """Put a service in, as far as no other has what it claims."""
        portals, problems = self._admitted(one.service, fragment)
        if problems:
            self._problems[name], self._got[name] = problems, portals
        self._put(name, portals, fragment)

    def _admitted(
        self, service: ServicePort, fragment: Fragment
    ) -> tuple[tuple[Portal, ...], list[InvalidObject]]:
        """Return the portals that no other service has; none if the ClusterIP is another's."""
        portals, problems = [], []
        for portal in fragment.portals:
            owner = self._owners.get(portal.claim)
            if owner is None:
                portals.append(portal)
            elif portal is fragment.portals[0]:
                return (), [taken(service, owner)]
            else:
                problems.append(_taken_portal(service, portal, owner))
        return tuple(portals), problems

    def _put(self, name: ServicePortName, portals: tuple[Portal, ...], fragment: Fragment) -> None:
        if not portals:
            return
        for portal in portals:
            self._owners[portal.claim] = name
            for set_name, elements in portal.elements:
                into = self.tables.elements[set_name]
                if not self._from_scratch:
                    self._note(set_name, elements, into)
                into.update(elements)
            for chain in portal.chains:
                if self._use(chain):
                    self._delta.chains.setdefault(chain, self.tables.chains.get(chain))
                    self.tables.chains[chain] = fragment.chains[chain]
        for shared in fragment.shared:
            if self._use(shared):
                self._note_one(*shared)[shared[1]] = None
        for set_name, spec in fragment.sets.items():
            self._delta.sets.setdefault(set_name, self.tables.sets.get(set_name))
            self.tables.sets[set_name] = spec

    def _remove(self, name: ServicePortName, fragment: Fragment) -> None:
        self._problems.pop(name, None)
        portals = self._got.pop(name, fragment.portals)
        if not portals:
            return
        for portal in portals:
            del self._owners[portal.claim]
            for set_name, elements in portal.elements:
                into = self.tables.elements[set_name]
                self._note(set_name, elements, into)
                for key in elements:
                    del into[key]
            for chain in portal.chains:
                if self._leave(chain):
                    self._delta.chains.setdefault(chain, self.tables.chains.get(chain))
                    del self.tables.chains[chain]
        for shared in fragment.shared:
            if self._leave(shared):
                del self._note_one(*shared)[shared[1]]
        for set_name in fragment.sets:
            self._delta.sets.setdefault(set_name, self.tables.sets.get(set_name))
            del self.tables.sets[set_name]

    def _note(self, name: str, keys: Iterable[bytes], now: Mapping[bytes, Data]) -> None:
        """Write down what is in a set for these keys, unless that was done before."""
        known = self._delta.elements.setdefault(name, {})
        for key in keys:
            if key not in known:
                known[key] = now.get(key, ABSENT)

    def _note_one(self, name: str, key: bytes) -> dict[bytes, Data]:
        """Write down what is in a set for one key; return its elements, to be changed."""
        into = self.tables.elements[name]
        self._note(name, (key,), into)
        return into

    def _use(self, what: tuple[str, bytes] | str) -> bool:
        """Count one more who needs this; return whether it is the first."""
        count = self._uses.get(what, 0)
        self._uses[what] = count + 1
        return count == 0

    def _leave(self, what: tuple[str, bytes] | str) -> bool:
        """Count one less; return whether it was the last."""
        count = self._uses[what] - 1
        if count:
            self._uses[what] = count
            return False
        del self._uses[what]
        return True

    def _settled(self) -> Delta:
        """Return the delta without what is after all as it was."""
        tables, delta = self.tables, self._delta
        elements = {}
        for name, known in delta.elements.items():
            now = tables.elements[name]
            differ = {key: old for key, old in known.items() if now.get(key, ABSENT) != old}
            if differ:
                elements[name] = differ
        return Delta(
            elements,
            {name: old for name, old in delta.chains.items() if tables.chains.get(name) != old},
            {name: old for name, old in delta.sets.items() if tables.sets.get(name) != old},
        )


def _constants(state: State) -> object:
    """Return all of a state but its services and the node's addresses."""
    return (
        state.family,
        state.cluster_cidrs,
        state.masquerade_all,
        state.masquerade_bit,
        state.local_interface,
        state.node_ports.everywhere,
        state.service_cidrs,
    )


Services = Mapping[ServicePortName, ServiceState]


def _changes(
    before: Services, after: Services
) -> tuple[list[ServicePortName], list[tuple[ServicePortName, ServiceState]]]:
    """Return which services are gone, and which are new or other objects than before."""
    if list(before) == list(after):
        # The usual case, in a fifth of the time: the same services in the same order.
        differs = map(operator.is_not, before.values(), after.values())
        return [], list(itertools.compress(after.items(), differs))
    # Hashing so many names would take longer than all else: first by identity.
    known = set(zip(map(id, before), map(id, before.values()), strict=True))
    here = set(map(id, after))
    gone = [name for name in before if id(name) not in here and name not in after]
    changed = [
        (name, one)
        for name, one in after.items()
        if (id(name), id(one)) not in known and before.get(name) is not one
    ]
    return gone, changed


def _taken_portal(service: ServicePort, portal: Portal, owner: ServicePortName) -> InvalidObject:
    return InvalidObject(
        f"Service {service.name.namespace}/{service.name.name}",
        portal.field,
        f"{service.protocol} port {service.name} there belongs to Service {owner} already",
        remedy="give one of them another address or port",
    )


def compare(have: Tables, want: Tables) -> Delta:
    """Return in what one table differs from the wanted one, element by element."""
    elements: dict[str, dict[bytes, Before]] = {}
    for name, wanted in want.elements.items():
        there = have.elements.get(name)
        differ: dict[bytes, Before] = dict.fromkeys(wanted, ABSENT)
        if there:
            differ = dict(_differing(there, wanted))
        if differ:
            elements[name] = differ
    return Delta(
        elements,
        dict(_changed(have.chains, want.chains)),
        dict(_changed(have.sets, want.sets)),
    )


def _differing(
    have: Mapping[bytes, Data], want: Mapping[bytes, Data]
) -> Iterator[tuple[bytes, Before]]:
    if have == want:
        return
    for key, data in want.items():
        old = have.get(key, ABSENT)
        if old != data:
            yield key, old
    for key, data in have.items():
        if key not in want:
            yield key, data


def _changed(have: Mapping[str, T], want: Mapping[str, T]) -> Iterator[tuple[str, T | None]]:
    # In the order of the names' first appearance: that of a set would change from run to run.
    for name in {**have, **want}:
        if have.get(name) != want.get(name):
            yield name, have.get(name)
