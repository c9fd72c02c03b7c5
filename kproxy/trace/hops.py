"""From visits and what the kernel says of them to hops: one line each, in order. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.kernel.inet import with_port
from kproxy.kernel.links.card import Card
from kproxy.kernel.nft.types import Hook
from kproxy.kernel.routes.types import Route, RouteKind
from kproxy.trace.facts import Facts, Hop, Kind, flow_of, translated
from kproxy.trace.packet import Flow, Packet, Way, is_reset
from kproxy.trace.rules import Passage
from kproxy.trace.walk import Event, Visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Everything that is known of one visit."""

    visit: Visit
    facts: Facts
    passages: Sequence[Passage] = ()
    flow: Flow | None = None
    """That of the packet as it came, or began; None for ICMP errors."""
    cards: Mapping[int, Card] = field(default_factory=dict)


_AT = {
    Hook.PREROUTING: 10,
    Hook.INPUT: 40,
    Hook.FORWARD: 50,
    Hook.OUTPUT: 55,
    Hook.POSTROUTING: 70,
}
_IN, _BEGIN, _CONNTRACK, _ROUTE, _VIRTUAL, _OUT, _END = 0, 1, 20, 30, 45, 80, 90
_OUTPUT_FIRST = {Hook.OUTPUT: 10}


def of_visit(looked: Looked, *, ends: bool) -> list[Hop]:
    """Return the hops of one visit; ``ends``: the packet is at its destination."""
    visit = looked.visit
    found: list[tuple[int, Hop]] = []

    def add(at: int, kind: Kind, text: str, ns: int | None = None) -> None:
        hop = Hop(way=visit.way, place=visit.place, kind=kind, text=text, ns=ns)
        found.append((at, hop))

    begins = visit.came is None
    if visit.came is not None:
        add(_IN, Kind.DEVICE, f"in by {_device(visit.came, looked)}", visit.came.seen.ns)
        if visit.through:
            add(_IN, Kind.DEVICE, f"through {', '.join(visit.through)}")
    else:
        add(_BEGIN, Kind.SOCKET, _sent(visit, looked.flow))
    for passage in looked.passages:
        at = (_OUTPUT_FIRST if begins else {}).get(passage.hook, _AT[passage.hook])
        add(at, Kind.RULES, passage.text)
    if looked.facts.tracked is not None and looked.flow is not None:
        add(_CONNTRACK, Kind.CONNTRACK, _tracked(looked))
    if text := _virtual(looked):
        add(_VIRTUAL, Kind.VIRTUAL_SERVER, text)
    if looked.facts.route is not None:
        at = _ROUTE if looked.facts.virtual is None else _VIRTUAL + 1
        add(at, Kind.ROUTE, _route(looked.facts.route, looked.cards))
    if visit.left is not None:
        add(
            _OUT,
            Kind.DEVICE,
            f"out by {_device(visit.left, looked, out=True)}",
            visit.left.seen.ns,
        )
    elif ends and _reaches_sockets(looked):
        add(_END, Kind.SOCKET, _received(visit, looked))
    # Stable: chains of one hook stay in their order.
    return [hop for _, hop in sorted(found, key=lambda pair: pair[0])]


def _virtual(looked: Looked) -> str:
    """Return what IPVS makes of the packet; "" nothing."""
    if (one := looked.facts.virtual) is not None:
        return f"{one.protocol} {with_port(*one.virtual)} → real server {with_port(*one.real)}"
    if looked.facts.real_servers is not None and looked.flow is not None:
        where = with_port(looked.flow.destination, looked.flow.destination_port)
        return f"{where} has {looked.facts.real_servers} real servers"
    return ""


def _reaches_sockets(looked: Looked) -> bool:
    """Return whether no rule and no route has kept the packet from sockets."""
    route = looked.facts.route
    led_away = route is not None and route.kind not in (RouteKind.LOCAL, RouteKind.UNICAST)
    return not led_away and not any(passage.dropped for passage in looked.passages)


def _device(event: Event, looked: Looked, *, out: bool = False) -> str:
    card = event.card
    kind = card.kind or (looked.facts.drivers or {}).get(card.name, "") or "physical"
    words = ["loopback" if card.loopback else kind]
    if out:
        words.append("its one queue" if card.queues == 1 else f"one of {card.queues} queues")
        words.append(f"to {event.to_mac}")
    elif event.packet.ttl:
        words.append(f"TTL {event.packet.ttl}")
    return f"{card.name} ({', '.join(words)}): {_what(event.packet)}"


def _what(packet: Packet) -> str:
    flow = packet.flow
    if packet.quoted is not None:
        return f"ICMP {icmp(packet)} from {flow.source} to {flow.destination}"
    kind = {0x02: " SYN", 0x12: " SYN ACK"}.get(packet.flags & 0x17, "")
    kind = " RST" if is_reset(packet) else kind
    return f"{packet.protocol}{kind} {flow}"


_UNREACHABLE = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 3): "port unreachable",
    (3, 4): "too big",
    (3, 9): "network prohibited",
    (3, 10): "host prohibited",
    (3, 13): "prohibited",
    (11, 0): "time exceeded",
}
_UNREACHABLE6 = {
    (1, 0): "no route",
    (1, 1): "prohibited",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (2, 0): "too big",
    (3, 0): "time exceeded",
}


def icmp(packet: Packet) -> str:
    """Return what an ICMP error says."""
    known = _UNREACHABLE if packet.flow.source.version == 4 else _UNREACHABLE6
    return known.get(packet.kind, f"type {packet.kind[0]} code {packet.kind[1]}")


def _sent(visit: Visit, flow: Flow | None) -> str:
    left = visit.left
    if left is not None and left.packet.quoted is not None:
        return f"the kernel answers: {icmp(left.packet)}"
    if visit.way is Way.THERE:
        return f"sends {flow}"
    if left is not None and is_reset(left.packet):
        return "the kernel answers: reset (nobody listens)"
    return f"answers {flow}"


def _received(visit: Visit, looked: Looked) -> str:
    came = visit.came
    if visit.way is Way.BACK:
        if came is not None and came.packet.quoted is not None:
            return f"learns: {icmp(came.packet)}"
        if came is not None and is_reset(came.packet):
            return "learns: refused"
        return "has its answer"
    if looked.facts.real_servers is not None:
        return "refused by the virtual server"
    if looked.facts.socket:
        return f"taken by {looked.facts.socket}"
    return "nobody listens on this port"


def _tracked(looked: Looked) -> str:
    """Return what connection tracking makes of the packet."""
    one = looked.facts.tracked
    assert one is not None
    first, changed = flow_of(one), translated(one)
    if looked.visit.way is Way.BACK:
        back = first.reverse
        return (
            "an answer, goes on as it is"
            if looked.flow == back
            else f"an answer, goes on as {back}"
        )
    if first == changed:
        return "a connection, not translated"
    parts = []
    if (first.destination, first.destination_port) != (
        changed.destination,
        changed.destination_port,
    ):
        parts.append(f"to {with_port(changed.destination, changed.destination_port)}")
    if (first.source, first.source_port) != (changed.source, changed.source_port):
        parts.append(f"as from {with_port(changed.source, changed.source_port)}")
    return f"a connection, translated {' '.join(parts)}"


def _route(route: Route, cards: Mapping[int, Card]) -> str:
    if route.kind is RouteKind.LOCAL:
        return "local: to a socket of this host"
    if route.kind is not RouteKind.UNICAST:
        return f"{route.kind.words}: nothing leads there"
    name = cards[route.device].name if route.device in cards else f"device {route.device}"
    table = "" if route.table in (0, 254) else f", table {route.table}"
    return f"via {route.gateway} dev {name}{table}" if route.gateway else f"dev {name}{table}"
