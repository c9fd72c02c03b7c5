"""Traces one packet: listens everywhere, sends it, asks the kernel what it did with it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kproxy.errors import KernelError, Unsupported, UsageError
from kproxy.kernel.conntrack import types as conntrack
from kproxy.kernel.counters.drops import Drop, DropMonitor
from kproxy.kernel.inet import Family, IPAddress, Protocol
from kproxy.kernel.ipvs.connections import Connection
from kproxy.kernel.nft import tracing
from kproxy.kernel.nft.traced import Traced
from kproxy.kernel.routes.client import Routes
from kproxy.kernel.routes.types import RouteKind
from kproxy.trace import hops, kernel, probe, rules, walk
from kproxy.trace.facts import ANSWERED, Facts, Hop, Kind, Trace, translated
from kproxy.trace.hops import Looked
from kproxy.trace.observer import Observer
from kproxy.trace.packet import Flow, Mark, Way, parse, parse_ip
from kproxy.trace.places import Place, entered
from kproxy.trace.probe import Probe, Reply
from kproxy.trace.walk import Visit

SETTLE_SECONDS = 0.05
"""So long what was still under way when the answer came may take to be told; and so long may the
kernel take to begin to stamp packets after it was asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to trace. ``origin`` sends; it and ``others`` are listened to."""

    protocol: Protocol
    target: IPAddress
    port: int
    origin: Place
    others: Sequence[Place] = ()
    timeout_s: float = 2.0
    request: bytes = b""


def trace(asked: Asked) -> Trace:
    """Send a packet and return its way. UsageError, MeasurementError, KernelError."""
    with contextlib.ExitStack() as stack:
        with entered(asked.origin):
            sender = stack.enter_context(Probe(asked.protocol, asked.target, asked.port))
        family = Family(asked.target.version)
        observers: dict[str, Observer] = {}
        notes: list[str] = []
        for place in _distinct(asked):
            watcher = Observer(place, family, sender.mark, sender.flow.source_port)
            with _vanishing(place, notes, must=place == asked.origin):
                observers[place.name] = stack.enter_context(watcher)
        monitor = _monitor(stack, notes)
        time.sleep(SETTLE_SECONDS)
        reply = sender.send(asked.timeout_s, asked.request)
        time.sleep(SETTLE_SECONDS)
        return _Story(asked, sender, observers, monitor, notes).told(reply)


def _distinct(asked: Asked) -> list[Place]:
    """Return the namespaces to listen in, each once, under different names."""
    known = {asked.origin.identity: asked.origin}
    for one in asked.others:
        with contextlib.suppress(OSError):  # it has gone
            known.setdefault(one.identity, one)
    names: set[str] = set()
    found = []
    for one in known.values():
        name, number = one.name, 2
        while name in names:
            name, number = f"{one.name}/{number}", number + 1
        names.add(name)
        found.append(Place(name, one.path))
    return found


@contextlib.contextmanager
def _vanishing(place: Place, notes: list[str], *, must: bool) -> Iterator[None]:
    """Bear that one cannot listen in a namespace, unless one must."""
    try:
        yield
    except (OSError, UsageError, KernelError) as error:
        if must:
            raise
        notes.append(f"{place.name}: not listened to: {error}")


def _monitor(stack: contextlib.ExitStack, notes: list[str]) -> DropMonitor | None:
    try:
        return stack.enter_context(DropMonitor())
    except (Unsupported, KernelError) as error:
        notes.append(f"why the kernel drops is not told: {error.message}")
        return None


class _Story:
    """Puts together what was seen."""

    def __init__(
        self,
        asked: Asked,
        sender: Probe,
        observers: Mapping[str, Observer],
        monitor: DropMonitor | None,
        notes: list[str],
    ) -> None:
        self._asked = asked
        self._mark: Mark = sender.mark
        self._flow = sender.flow
        self._observers = observers
        self._notes = notes
        self._steps = {name: rules.traversals(one.steps()) for name, one in observers.items()}
        events = {
            name: walk.wanted(one.frames(), one.cards, self._mark, self._flow)
            for name, one in observers.items()
        }
        self._visits = walk.walk(events, asked.origin.name)
        self._drops = monitor.read() if monitor is not None else []

    def told(self, reply: Reply) -> Trace:
        """Return the whole trace."""
        looked = [self._look(visit) for visit in self._visits]
        if reply.outcome != ANSWERED and (kept := self._kept(looked[-1])) is not None:
            self._visits.append(kept)
            looked.append(self._look(kept))
        found: list[Hop] = []
        for number, one in enumerate(looked):
            found += hops.of_visit(one, ends=self._ends(number, one))
        lost = None
        if not found or reply.outcome != ANSWERED:
            lost = self._lost(looked[-1])
        if lost is not None:
            found.append(lost)
        self._note_untraced()
        return Trace(
            protocol=str(self._asked.protocol),
            flow=self._flow,
            outcome=reply.outcome,
            took_ms=self._took_ms(reply),
            answer=reply.text,
            sent_ns=reply.sent_ns,
            hops=tuple(found),
            verdict=_verdict(reply, self._took_ms(reply), lost, looked[-1]),
            notes=tuple(self._notes),
        )

    def _kept(self, looked: Looked) -> Visit | None:
        """Return the visit of an answer that met rules, but no device; None: there is none."""
        visit = looked.visit
        if visit.way is Way.BACK or visit.left is not None or visit.came is None:
            return None
        answer = self._after(looked).reverse
        if rules.of_flow(self._steps[visit.place], answer, 0) is None:
            return None
        return Visit(place=visit.place, way=Way.BACK, came=None, left=None)

    def _took_ms(self, reply: Reply) -> float | None:
        """Return when the answer came, by the kernel's stamp if there is one."""
        came = self._visits[-1].came
        if came is not None and self._visits[-1].way is Way.BACK and came.seen.ns:
            return (came.seen.ns - reply.sent_ns) / 1e6
        return reply.took_ms

    def _ends(self, number: int, looked: Looked) -> bool:
        """Return whether the packet, or the answer, has come where it belongs in this visit."""
        visit = looked.visit
        if visit.left is not None or visit.came is None:
            return False
        if number + 1 < len(self._visits):
            return True  # an answer begins there
        return visit.way is Way.BACK or self._lost(looked) is None

    def _look(self, visit: Visit) -> Looked:
        observer = self._observers[visit.place]
        first, came = visit.first, visit.came
        protocol = self._asked.protocol
        flow = first.packet.flow if first is not None else self._flow
        if came is None and visit.way is Way.THERE:
            flow = self._flow
        elif first is None:
            flow = self._after(self._look(self._visits[-2])).reverse
        plain = (first is None or first.packet.quoted is None) and not visit.switched
        with entered(observer.place):
            tracked = kernel.tracked(protocol, flow) if plain else None
            virtual = kernel.virtual(protocol, flow) if plain else None
            target = _after(flow, visit, tracked, virtual)
            asked = dataclasses.replace(target, source=flow.source, source_port=flow.source_port)
            # What comes by loopback was routed when it was sent; asked again it is a martian.
            routed = came is not None and virtual is None and not came.card.loopback
            way_in = came.card if came is not None and routed else None
            facts = Facts(
                tracked=tracked,
                virtual=virtual,
                route=kernel.route(protocol, asked, came_by=way_in, foreign=virtual is not None)
                if plain
                else None,
                socket="" if visit.left else kernel.taker(protocol, target),
                real_servers=None if visit.left else kernel.real_servers(protocol, flow),
                drivers=kernel.drivers(one.card for one in (came, visit.left) if one is not None),
            )
            passages = self._passages(visit, flow, observer)
        return Looked(
            visit=visit,
            facts=facts,
            passages=passages,
            flow=flow if plain else None,
            cards=observer.cards,
        )

    def _passages(self, visit: Visit, flow: Flow, observer: Observer) -> list[rules.Passage]:
        iif = visit.came.card.index if visit.came is not None else 0
        own = rules.of_flow(self._steps[visit.place], flow, iif)
        steps = list(own.steps) if own is not None else []
        if iif and visit.left is not None:
            # IPVS sends it on as if it began here.
            again = rules.of_flow(self._steps[visit.place], visit.left.packet.flow, 0)
            steps += again.steps if again is not None and again is not own else []
        legacy = rules.legacy_passages(observer.met()) if visit.way is Way.THERE else []
        return [*rules.passages(steps, observer.chains, _commented()), *legacy]

    def _lost(self, looked: Looked) -> Hop | None:
        """Return where the packet ended that should have gone on; None: it arrived."""
        visit = looked.visit

        def hop(text: str, ns: int | None = None) -> Hop:
            return Hop(way=visit.way, place=visit.place, kind=Kind.LOST, text=text, ns=ns)

        if visit.left is not None:
            left = visit.left
            where = f"left by {left.card.name} for {left.to_mac}, and arrived nowhere that is seen"
            return hop(where, left.seen.ns)
        for passage in looked.passages:
            if passage.dropped:
                return hop(f"dropped by a rule: {passage.text}")
        drop = self._drop(visit)
        if drop is not None:
            return hop(f"dropped by the kernel: {_reason(drop)}", drop.ns)
        if visit.way is Way.BACK:
            return None if visit.came is not None else hop("it was not sent, and nothing says why")
        return self._unsent(looked, hop)

    def _unsent(self, looked: Looked, hop: Callable[[str], Hop]) -> Hop | None:
        """Return why a packet does not go on that no rule and no monitor has dropped."""
        route = looked.facts.route
        if route is not None and route.kind not in (RouteKind.UNICAST, RouteKind.LOCAL):
            return hop(f"no route: {route.kind.words}")
        if route is not None and route.kind is RouteKind.UNICAST:
            to = route.gateway or self._after(looked).destination
            with entered(self._observers[looked.visit.place].place), Routes() as routes:
                known = routes.neighbour(route.device, to)
            if known is None or not known.mac:
                return hop(f"nobody answers for {to} on the link")
            return hop("it did not go on, and nothing says why")
        if looked.visit.came is None:
            return hop("it did not go on, and nothing says why")
        if looked.facts.socket:
            return None
        return hop("nobody listens on this port")

    def _after(self, looked: Looked) -> Flow:
        flow = looked.flow or self._flow
        return _after(flow, looked.visit, looked.facts.tracked, looked.facts.virtual)

    def _drop(self, visit: Visit) -> Drop | None:
        """Return the drop of our packet in this direction, if the kernel has told one."""
        for drop in reversed(self._drops):
            packet = parse(drop.frame) or parse_ip(drop.frame)
            if packet is None:
                continue
            way = self._mark.way(packet)
            if way is visit.way:
                return drop
        return None

    def _note_untraced(self) -> None:
        for name in dict.fromkeys(visit.place for visit in self._visits):
            if why := self._observers[name].untraced:
                self._notes.append(f"{name}: rules are not told: {why}")


def _after(
    flow: Flow, visit: Visit, tracked: conntrack.Flow | None, virtual: Connection | None
) -> Flow:
    """Return the flow of the packet after what this namespace did to its destination."""
    if visit.left is not None and visit.left.packet.quoted is None:
        return visit.left.packet.flow
    if virtual is not None:
        return Flow(flow.source, flow.source_port, *virtual.real)
    if tracked is not None and visit.way is Way.THERE:
        changed = translated(tracked)
        return Flow(flow.source, flow.source_port, changed.destination, changed.destination_port)
    return flow


def _commented() -> rules.Comment:
    """Return what reads the comments of rules in the namespace that is entered, each once."""
    known: dict[tuple[str, str, str, int], str] = {}

    def comment(step: Traced) -> str:
        key = (step.family, step.table, step.chain, step.handle)
        if key not in known:
            try:
                known[key] = tracing.comment(*key)
            except KernelError:
                known[key] = ""
        return known[key]

    return comment


def _reason(drop: Drop) -> str:
    return " in ".join(word for word in (drop.reason, drop.symbol) if word) or "no reason given"


def _verdict(reply: Reply, took_ms: float | None, lost: Hop | None, last: Looked) -> str:
    if reply.outcome == ANSWERED:
        took = "" if took_ms is None else f" after {took_ms:.3f} ms"
        return f"answered{took}"
    if lost is not None and reply.outcome == probe.NOTHING:
        return f"no answer: lost on the way {lost.way} at {lost.place}"
    if reply.outcome == probe.NOTHING:
        taken = last.facts.socket or "somebody"
        return f"no answer: it arrived at {last.visit.place}, {taken} took it and has not answered"
    return reply.outcome
