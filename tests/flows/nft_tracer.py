"""A walk of a connection's first packet through an nftables table, expression by expression.

It runs rules as the kernel does, on registers of bytes, and knows nothing of how rules came to be.
Words for packets and outcomes are those of ``packet_tracer``.
"""

import ipaddress
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from packet_tracer import NODE_ADDRESSES, Outcome, Packet

from kproxy.kernel.inet import PROTOCOL_NUMBERS, PROTOCOLS, Protocol
from kproxy.kernel.nft.expressions import (
    WORD,
    Base,
    Bitwise,
    ChangeSet,
    Code,
    Compare,
    Constant,
    Ct,
    CtKey,
    Decide,
    Expression,
    FibType,
    Lookup,
    LookupData,
    LookupVerdict,
    Masquerade,
    Meta,
    MetaKey,
    Payload,
    Random,
    Reject,
    Rule,
    SetMeta,
    SetOp,
    Translate,
    Verdict,
)
from kproxy.kernel.nft.types import Chain, Data, Hook, SetSpec

NEW, DNAT = 1 << 3, 1 << 5
LOCAL, UNICAST = 2, 1


class Contents(NamedTuple):
    """What a table holds."""

    sets: Mapping[str, SetSpec]
    chains: Mapping[str, Chain]
    elements: Mapping[str, Mapping[bytes, Data]]


class UnknownExpression(AssertionError):
    """The tracer does not know what this expression does."""


@dataclass(frozen=True, slots=True)
class _State:
    """A packet on its way, and what rules have remembered."""

    packet: Packet
    memory: frozenset[tuple[str, bytes]] = frozenset()
    end: str = ""
    """How the walk ended: ``drop``, ``reject``, ``dnat``, ``masquerade``, or not yet."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A state in the middle of a rule."""

    state: _State
    registers: bytes
    verdict: Verdict | None = None
    broken: bool = False


class NftTracer:
    """Follows packets through one node's table."""

    def __init__(self, contents: Contents) -> None:
        self._sets, self._chains, self._elements = contents

    def trace(self, packet: Packet, *, from_node: bool = False, after: str = "") -> set[Outcome]:
        """Return every outcome that is possible: endpoints are picked at random.

        ``after``: the same client was served by this endpoint just before.
        """
        start = _State(packet)
        if after:
            start = replace(start, memory=self._memory(start, after, from_node=from_node))
        outcomes: set[Outcome] = set()
        for state in self._through(self._first_hook(from_node=from_node), start, outcomes):
            outcomes |= self._route(state, from_node=from_node)
        return outcomes

    def _first_hook(self, *, from_node: bool) -> Hook:
        return Hook.OUTPUT if from_node else Hook.PREROUTING

    def _memory(
        self, start: _State, after: str, *, from_node: bool
    ) -> frozenset[tuple[str, bytes]]:
        for state in self._through(self._first_hook(from_node=from_node), start, set()):
            if _place(state.packet) == after:
                return state.memory
        raise AssertionError(f"{after} cannot have served {start.packet}")

    def _route(self, state: _State, *, from_node: bool) -> set[Outcome]:
        outcomes: set[Outcome] = set()
        local = state.packet.destination in NODE_ADDRESSES
        ways = [state]
        if not local and not from_node:
            ways = list(self._through(Hook.FORWARD, state, outcomes))
        masqueraded = False
        for way in ways:
            # What the node sends to itself leaves it, too: over the loopback device.
            if from_node or not local:
                (way,) = self._through(Hook.POSTROUTING, way, outcomes)
                masqueraded = way.end == "masquerade"
            for arrived in self._through(Hook.INPUT, way, outcomes) if local else [way]:
                end = "node" if local else "passes"
                end = _place(arrived.packet) if arrived.packet.translated else end
                outcomes.add(Outcome(end, masqueraded=masqueraded))
        return outcomes

    def _through(self, hook: Hook, state: _State, outcomes: set[Outcome]) -> Iterator[_State]:
        """Yield the packet for each way it gets through all chains of a hook."""
        here = {
            name: one.base.priority
            for name, one in self._chains.items()
            if one.base and one.base.hook is hook
        }
        ways = [state]
        for name in sorted(here, key=here.__getitem__):
            passed = []
            for way in ways:
                for found in self._chain(name, 0, replace(way, end="")):
                    if found.end in ("drop", "reject"):
                        outcomes.add(Outcome("refused" if found.end == "reject" else "dropped"))
                    else:
                        passed.append(found)
            ways = passed
        yield from ways

    def _chain(self, name: str, number: int, state: _State) -> Iterator[_State]:
        """Walk on in a chain from a rule; yield how it may be left."""
        rules = self._chains[name].rules
        if number == len(rules):
            yield state
            return
        for step in self._rule(rules[number], 0, _Step(state, bytes(16 * WORD))):
            if step.state.end:
                yield step.state
            elif step.broken or step.verdict is None:
                yield from self._chain(name, number + 1, step.state)
            else:
                yield from self._follow(name, number, step.verdict, step.state)

    def _follow(self, name: str, number: int, verdict: Verdict, state: _State) -> Iterator[_State]:
        match verdict.code:
            case Code.DROP:
                yield replace(state, end="drop")
            case Code.ACCEPT | Code.RETURN:
                yield state
            case Code.GOTO:
                yield from self._chain(verdict.chain, 0, state)
            case Code.JUMP:
                for back in self._chain(verdict.chain, 0, state):
                    if back.end:
                        yield back
                    else:
                        yield from self._chain(name, number + 1, back)

    def _rule(self, rule: Rule, number: int, step: _Step) -> Iterator[_Step]:
        if number == len(rule) or step.broken or step.state.end or step.verdict:
            yield step
            return
        for after in self._expression(rule[number], step):
            yield from self._rule(rule, number + 1, after)

    def _expression(self, one: Expression, step: _Step) -> list[_Step]:
        packet = step.state.packet
        match one:
            case Payload(base, offset, length, to):
                return [_put(step, to, _payload(packet, base, offset, length))]
            case Meta(key, to):
                return [_put(step, to, _meta(packet, key))]
            case SetMeta(MetaKey.MARK, source):
                mark = int.from_bytes(_get(step, source, WORD), sys.byteorder)
                return [_with(step, replace(step.state, packet=replace(packet, mark=mark)))]
            case Ct(key, to):
                bits = NEW if key is CtKey.STATE else DNAT if packet.translated else 0
                return [_put(step, to, _number(bits))]
            case FibType(destination, to):
                address = packet.destination if destination else packet.source
                return [_put(step, to, _number(LOCAL if address in NODE_ADDRESSES else UNICAST))]
            case Random(modulus, to, first):
                return [_put(step, to, _number(first + draw)) for draw in range(modulus)]
            case Bitwise(source, to, mask, xor):
                value = _get(step, source, len(mask))
                mixed = bytes(v & m ^ x for v, m, x in zip(value, mask, xor, strict=True))
                return [_put(step, to, mixed)]
            case Constant(value, to):
                return [_put(step, to, value)]
            case Compare(source, value, negated):
                return [_if(step, (_get(step, source, len(value)) == value) != negated)]
            case _:
                return [self._lookup(one, step)]

    def _lookup(self, one: Expression, step: _Step) -> _Step:
        match one:
            case Lookup(name, register, negated):
                return _if(step, self._has(step, name, register) != negated)
            case LookupData(name, register, to):
                data = self._elements[name].get(self._key(step, name, register))
                return _put(step, to, data) if isinstance(data, bytes) else _if(step, False)
            case LookupVerdict(name, register):
                data = self._elements[name].get(self._key(step, name, register))
                return replace(step, verdict=data) if isinstance(data, Verdict) else step
            case ChangeSet(SetOp.UPDATE, name, register):
                known = (name, self._key(step, name, register))
                return _with(step, replace(step.state, memory=step.state.memory | {known}))
        return _decide(one, step)

    def _key(self, step: _Step, name: str, register: int) -> bytes:
        return _get(step, register, sum(kind.padded for kind in self._sets[name].key))

    def _has(self, step: _Step, name: str, register: int) -> bool:
        key, spec = self._key(step, name, register), self._sets[name]
        if spec.dynamic:
            return (name, key) in step.state.memory
        if not spec.interval:
            return key in self._elements[name]
        return any(_within(spec, key, element) for element in self._elements[name])


def _decide(one: Expression, step: _Step) -> _Step:
    state = step.state
    match one:
        case Decide(verdict):
            return replace(step, verdict=verdict)
        case Masquerade():
            return _with(step, replace(state, end="masquerade"))
        case Reject():
            return _with(step, replace(state, end="reject"))
        case Translate(ipv6, address, port):
            to = ipaddress.ip_address(_get(step, address, 16 if ipv6 else 4))
            number = int.from_bytes(_get(step, port, 2), "big")
            packet = replace(state.packet, destination=str(to), port=number, translated=True)
            return _with(step, replace(state, packet=packet, end="dnat"))
    raise UnknownExpression(str(one))


def _with(step: _Step, state: _State) -> _Step:
    return replace(step, state=state)


def _if(step: _Step, holds: bool) -> _Step:
    return step if holds else replace(step, broken=True)


def _put(step: _Step, register: int, value: bytes) -> _Step:
    padded = value + bytes(-len(value) % WORD)
    at = register * WORD
    assert at + len(padded) <= len(step.registers), "no such register"
    registers = step.registers[:at] + padded + step.registers[at + len(padded) :]
    return replace(step, registers=registers)


def _get(step: _Step, register: int, length: int) -> bytes:
    at = register * WORD
    assert at + length <= len(step.registers), "no such register"
    return step.registers[at : at + length]


def _payload(packet: Packet, base: Base, offset: int, length: int) -> bytes:
    source, destination = (
        ipaddress.ip_address(one).packed for one in (packet.source, packet.destination)
    )
    if base is Base.TRANSPORT and (offset, length) == (2, 2):
        return packet.port.to_bytes(2, "big")
    places = {(12, 4): source, (16, 4): destination}
    if len(source) == 16:
        places = {(8, 16): source, (24, 16): destination}
    if base is Base.NETWORK and (offset, length) in places:
        return places[offset, length]
    raise UnknownExpression(f"{length} bytes at {base.name} {offset}")


def _meta(packet: Packet, key: MetaKey) -> bytes:
    match key:
        case MetaKey.MARK:
            return _number(packet.mark)
        case MetaKey.IIFNAME:
            return packet.interface.encode().ljust(16, b"\0")
        case MetaKey.L4PROTO:
            return bytes([PROTOCOL_NUMBERS[Protocol(packet.protocol)]])


def _within(spec: SetSpec, key: bytes, element: bytes) -> bool:
    """Tell whether a key is between two others in every field."""
    first, last = element[: len(key)], element[len(key) :]
    at = 0
    for kind in spec.key:
        part = slice(at, at + kind.padded)
        if not first[part] <= key[part] <= last[part]:
            return False
        at += kind.padded
    return True


def _number(value: int) -> bytes:
    return value.to_bytes(WORD, sys.byteorder)


def _place(packet: Packet) -> str:
    host = f"[{packet.destination}]" if ":" in packet.destination else packet.destination
    assert packet.protocol in PROTOCOLS.values()
    return f"{host}:{packet.port}"
