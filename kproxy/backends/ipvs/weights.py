"""Real servers with weight 0: which of them are stuck there, and giving those their weight. Pure.

Loaded only when somebody asks. A weight of 0 is right for a real server that is not wanted any
more and still has connections: it drains. One that is wanted gets no new connection by it, and
nobody complains: the scheduler takes the others.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kproxy.backends.ipvs.render import DESTINATION, DRAINING, Place
from kproxy.desired.model import ServicePortName
from kproxy.kernel.ipvs.types import DestinationKey, Dump, ServiceKey, SetDestination


class Resting(NamedTuple):
    """A real server with weight 0."""

    service: ServiceKey
    server: DestinationKey
    owner: ServicePortName
    connections: int

    def __str__(self) -> str:
        """Return how people name it."""
        return f"{self.service} → {self.server} ({self.owner})"


class Weights(NamedTuple):
    """The real servers with weight 0 of one family, of virtual servers that are wanted."""

    stuck: list[Resting]
    """They are wanted: they should have new connections."""
    draining: list[Resting]
    """They are not wanted any more: this is how they leave."""


def weigh(places: Mapping[ServiceKey, Place], dump: Dump) -> Weights:
    """Sort the real servers with weight 0."""
    found = Weights([], [])
    for key, place in sorted(places.items()):
        entry = dump.get(key)
        if entry is None:
            continue
        wanted = frozenset(place.real_servers)
        for server, one in sorted(entry.destinations.items()):
            if one.config.weight != DRAINING.weight:
                continue
            busy = one.stats.active + one.stats.inactive
            resting = Resting(key, server, place.owner, busy)
            (found.stuck if server in wanted else found.draining).append(resting)
    return found


def healing(stuck: Iterable[Resting]) -> list[SetDestination]:
    """Return the operations that let these have new connections again."""
    return [SetDestination(one.service, one.server, DESTINATION) for one in stuck]
