"""The answer to ``kproxy explain``: who is meant, the fate of a packet, does the kernel agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kproxy.api.addresses import with_port
from kproxy.backends.base import Deviation, Difference
from kproxy.desired.model import Address, ServiceState

from . import flows, lookup, views
from .assemble import Side
from .flows import Prediction
from .views import ServiceView
from .world import Kind, Source, Target, World, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Whether the kernel holds what a service port needs: its own, and what all share."""

    unasked: str = ""
    """Why the kernel was not asked; empty: it was."""
    differences: Sequence[Difference] = ()


PASSED = ("rule", "chain")
"""Kinds of objects that packets pass on their way to any service."""

ADDRESS = "address"
"""Kind of object that service ports with the same address share, and no others."""

Ask = Callable[[World, ServiceState], Agreement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A service port that has the address and port in question."""

    view: ServiceView
    kind: Kind
    predictions: Sequence[Prediction]
    kernel: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The whole answer. Without matches the address belongs to nobody."""

    world: World
    target: Target
    matches: Sequence[Match] = ()
    predictions: Sequence[Prediction] = ()
    """Of packets to an address and port that no service port has."""
    in_service_network: bool | None = None
    """Whether ClusterIPs come from there; None: not known where they come from."""
    near: Sequence[str] = ()


def explain(side: Side, target: Target, source: Address | None, ask: Ask) -> Answer:
    """Answer a question; ``source`` None: for typical sources."""
    world = side.world
    found = lookup.find(world, target)
    if not found:
        return Answer(
            world=world,
            target=target,
            predictions=_predictions(world, target, None, source),
            in_service_network=within(target.address, world.state.service_cidrs)
            if world.state.service_cidrs
            else None,
            near=lookup.near_misses(world, target),
        )
    matches = []
    for served in found:
        everything = side.endpoints.get(served.service.name, ())
        matches.append(
            Match(
                view=views.service_view(world, served, everything),
                kind=flows.kind_of(served.service, target),
                predictions=_predictions(world, target, served, source),
                kernel=ask(world, served),
            )
        )
    return Answer(world=world, target=target, matches=matches)


def _predictions(
    world: World, target: Target, served: ServiceState | None, address: Address | None
) -> list[Prediction]:
    if address is not None:
        sources: Sequence[Source] = [world.source(address)]
    else:
        kind = flows.kind_of(served.service, target) if served else None
        sources = lookup.typical_sources(world, served, kind)
    return [flows.predict(world, target, served, source) for source in sources]


def concerning(differences: Sequence[Difference], served: ServiceState) -> list[Difference]:
    """Return the differences that packets to a service port may meet.

    Its own: those said to be, or that name it. And what is wanted and belongs to no service port:
    each of them may need it. What is there for nobody and was not wanted leaves it alone, unless
    it is among the rules that its packets pass.
    """
    service = served.service
    own = flows.addresses_of(service)
    places = {with_port(address, service.port) for address in own}

    def concerns(one: Difference) -> bool:
        if one.service is not None:
            return one.service == service.name
        words = f"{one.name} {one.want} {one.have}".replace(",", " ").split()
        if one.kind == ADDRESS:
            return any(address in words for address in own)
        if one.deviation is not Deviation.UNEXPECTED or one.kind in PASSED:
            return True
        return not places.isdisjoint(words)

    return sorted(filter(concerns, differences), key=lambda one: one.service is None)
