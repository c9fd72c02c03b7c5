"""In which order a packet was where: from frames seen in many namespaces to one way. Pure.

Each namespace tells what passed its devices in order; between namespaces only time stamps would
say, and in virtual time all of them are the same. So frames are joined like the ends of a cable:
what left by one device is what arrived, unchanged and under the MAC that it was sent to, at
another. Within a namespace a packet that comes in either leaves again (translated perhaps), or is
answered, or ends there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kproxy.kernel.links.card import Card
from kproxy.trace.facts import Seen
from kproxy.trace.packet import Flow, Mark, Packet, Way, parse

MOST_VISITS = 64


@dataclass(frozen=True, slots=True)
class Event:
    """A frame that was seen, what it says, and on which device.

    ``marked``: it carries the mark itself; an echo of it does, too.
    """

    seen: Seen
    packet: Packet
    card: Card
    marked: bool

    @property
    def to_mac(self) -> str:
        """The MAC that the frame was sent to."""
        return self.seen.frame[:6].hex(":")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A packet in one namespace. ``came`` None: it began there; ``left`` None: it ended there.

    ``through`` are other devices of it that it passed, such as a bridge over a port.
    """

    place: str
    way: Way
    came: Event | None
    left: Event | None
    through: tuple[str, ...] = ()

    @property
    def switched(self) -> bool:
        """Whether a bridge passes it from port to port: nothing is routed there."""
        ports = [one.card.master for one in (self.came, self.left) if one is not None]
        return len(ports) == 2 and ports[0] == ports[1] != 0

    @property
    def first(self) -> Event | None:
        """The first event, if there is any."""
        return self.came or self.left


@dataclass(slots=True)
class _Board:
    """What was seen, and what of it is not placed yet."""

    events: dict[str, list[Event]]
    used: set[tuple[str, int]] = field(default_factory=set)

    def take(self, event: Event) -> None:
        self.used.add((event.seen.place, event.seen.order))

    def is_free(self, event: Event) -> bool:
        return (event.seen.place, event.seen.order) not in self.used

    def after(self, place: str, order: int) -> list[Event]:
        """Return what was seen in a namespace after a moment and is not placed yet."""
        return [
            one
            for one in self.events.get(place, ())
            if one.seen.order > order and self.is_free(one)
        ]

    def arrival(self, left: Event) -> Event | None:
        """Return where a frame that left arrived."""
        found = [
            one
            for events in self.events.values()
            for one in events
            if not one.seen.outgoing
            and self.is_free(one)
            and one.packet.flow == left.packet.flow
            and one.packet.kind == left.packet.kind
            and one.packet.flags == left.packet.flags
            and one.to_mac == left.to_mac
            and _may_arrive(one, left)
        ]
        mine = [one for one in found if one.card.mac == left.to_mac or one.card.loopback]
        # A switch on the way has not the MAC: the other end of a veth pair comes first.
        ends = [one for one in found if _pair(one.card, left.card)]
        return min(
            ends or mine or found, key=lambda one: (one.seen.ns, one.seen.order), default=None
        )


def _pair(a: Card, b: Card) -> bool | None:
    """Return whether these may be the ends of one veth pair; None: they are no such devices."""
    if a.kind != "veth" or b.kind != "veth" or not a.link or not b.link:
        return None
    return a.link == b.index and b.link == a.index


def _may_arrive(event: Event, left: Event) -> bool:
    if event.card.loopback or left.card.loopback:
        return event.card.loopback and left.card.loopback and event.seen.place == left.seen.place
    if _pair(event.card, left.card) is False:
        return False
    return event.seen.place != left.seen.place and (event.seen.to_us or event.card.master != 0)


def wanted(
    frames: Iterable[Seen], cards: Mapping[int, Card], mark: Mark, flow: Flow
) -> list[Event]:
    """Return the frames that may be the marked packet or an answer to it."""
    found = []
    for seen in frames:
        packet = parse(seen.frame)
        if packet is None or seen.device not in cards:
            continue
        way = mark.way(packet)
        by_port = packet.protocol == mark.protocol == "udp" and flow.source_port in (
            packet.flow.source_port,
            packet.flow.destination_port,
        )
        if way is not None or by_port:
            found.append(Event(seen, packet, cards[seen.device], way is Way.THERE))
    return found


def walk(events: Mapping[str, list[Event]], origin: str) -> list[Visit]:
    """Return the visits of the packet that ``origin`` sends and of its answer, in their order."""
    board = _Board({place: list(some) for place, some in events.items()})
    way, came = Way.THERE, None
    place, order = origin, -1
    visits: list[Visit] = []
    while len(visits) < MOST_VISITS:
        left, through = _leaving(board, place, order, came)
        answered = came is not None and left is not None and _answers(left, came)
        if answered and way is Way.THERE:
            visits.append(_visit(place, way, came, None, ()))
            way, came = Way.BACK, None
        visits.append(_visit(place, way, came, left, through))
        arrived = None if left is None else board.arrival(left)
        if arrived is None:
            break
        board.take(arrived)
        place, order, came = arrived.seen.place, arrived.seen.order, arrived
    return visits


def _visit(
    place: str, way: Way, came: Event | None, left: Event | None, through: tuple[str, ...]
) -> Visit:
    return Visit(place=place, way=way, came=came, left=left, through=through)


def _answers(left: Event, came: Event) -> bool:
    """Return whether what leaves is an answer to what came, and not the same packet going on."""
    if left.packet.quoted is not None:
        return came.packet.quoted is None
    return left.packet.flow == came.packet.flow.reverse


def _leaving(
    board: _Board, place: str, order: int, came: Event | None
) -> tuple[Event | None, tuple[str, ...]]:
    """Return how the packet leaves a namespace, and which other devices it passes there."""
    later = board.after(place, order)
    leaving = [one for one in later if one.seen.outgoing and _belongs(one, came)]
    if not leaving:
        return None, tuple(_passed(board, later, came))
    # A bridge sends by several ports what it does not know: the one where it arrives counts.
    exit_ = next((one for one in leaving if board.arrival(one) is not None), leaving[-1])
    same = [
        one
        for one in leaving
        if one.packet.flow == exit_.packet.flow
        and one.packet.flags == exit_.packet.flags
        and (one is exit_ or one.card.index != exit_.card.index)
    ]
    through = [*_passed(board, later, came), *(o.card.name for o in same if o is not exit_)]
    for one in same:
        board.take(one)
    return exit_, tuple(dict.fromkeys(through))


def _belongs(event: Event, came: Event | None) -> bool:
    """Return whether it is the first packet, or what became of the one that came."""
    if came is None:
        return event.marked
    if event.packet.quoted is not None or _answers(event, came):
        return True
    return came.packet.quoted is None and event.packet.flags == came.packet.flags


def _passed(board: _Board, later: list[Event], came: Event | None) -> list[str]:
    """Return the devices above the one by which it came that saw it, too (a bridge, a VLAN)."""
    if came is None:
        return []
    found = []
    for one in later:
        again = not one.seen.outgoing and one.packet.flow == came.packet.flow
        if again and one.to_mac == came.to_mac and one.card.index != came.card.index:
            board.take(one)
            found.append(one.card.name)
    return found
