"""What was seen and what is known, as values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kproxy.kernel.conntrack import types as conntrack
from kproxy.kernel.ipvs.connections import Connection
from kproxy.kernel.routes.types import Route
from kproxy.trace.packet import Flow, Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A frame on a device of a namespace. ``order`` counts within it; ``ns`` is CLOCK_REALTIME."""

    place: str
    order: int
    ns: int
    device: int
    outgoing: bool
    to_us: bool
    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one visit. ``route`` None: it was not asked for, or not answered.

    ``socket``: who would take the packet here; "": nobody. ``real_servers``: how many the virtual
    server has to which the packet goes; None: it goes to none.
    """

    tracked: conntrack.Flow | None = None
    virtual: Connection | None = None
    route: Route | None = None
    socket: str = ""
    real_servers: int | None = None
    drivers: Mapping[str, str] | None = None


def flow_of(tracked: conntrack.Flow) -> Flow:
    """Return the flow of a connection's first packet, as it was before any translation."""
    return Flow(tracked.source, tracked.source_port, tracked.destination, tracked.destination_port)


def translated(tracked: conntrack.Flow) -> Flow:
    """Return the same flow after translation: the reverse of that of its answers."""
    return Flow(
        tracked.reply_destination,
        tracked.reply_destination_port,
        tracked.reply_source,
        tracked.reply_source_port,
    )


class Kind(StrEnum):
    """What a hop is."""

    SOCKET = "socket"
    RULES = "rules"
    CONNTRACK = "conntrack"
    VIRTUAL_SERVER = "virtual server"
    ROUTE = "route"
    DEVICE = "device"
    LOST = "LOST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One thing that happened to the packet. ``ns`` None: nobody has stamped it."""

    way: Way
    place: str
    kind: Kind
    text: str
    ns: int | None = None


ANSWERED = "answered"
"""The outcome of a packet that had an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The way of one packet. ``notes`` say what could not be seen."""

    protocol: str
    flow: Flow
    outcome: str
    took_ms: float | None
    answer: str
    sent_ns: int
    hops: tuple[Hop, ...]
    verdict: str
    notes: tuple[str, ...]

    @property
    def answered(self) -> bool:
        """Whether the packet had an answer."""
        return self.outcome == ANSWERED
