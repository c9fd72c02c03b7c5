"""Expressions of rules as netlink attributes, and back. Pure.

What the kernel adds of its own when it tells a rule (defaults, flags that follow from others) is
left out, so that a rule read back equals the rule that was written.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kproxy.kernel.attributes import Buffer, attribute, be32, find, nest, text, u8, walk
from kproxy.kernel.nft.expressions import (
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
    Foreign,
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

_LIST_ELEM = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

_REGISTER_VERDICT = 0
_REGISTER_FIRST = (
    8  # NFT_REG32_00; what the kernel can it tells by the old numbers 1…4 of 16 bytes
)
_OLD_REGISTERS = 4

_LOOKUP_INVERTED = 1
_CMP_EQ, _CMP_NEQ = 0, 1
_RANDOM = 1
_FIB_ADDRTYPE = 3
_FIB_SOURCE, _FIB_DESTINATION = 1, 2
_NAT_DNAT = 1
_AF = {False: 2, True: 10}
_RANGE_PROTO_RANDOM_FULLY = 0x10
_ICMP_UNREACHABLE = 0
_PORT_UNREACHABLE = {False: 3, True: 4}

Attributes = dict[int, tuple[int, int]]


def verdict_data(kind: int, verdict: Verdict) -> bytes:
    """Return an attribute with a verdict as data."""
    parts = [be32(_VERDICT_CODE, verdict.code & 0xFFFFFFFF)]
    if verdict.chain:
        parts.append(text(_VERDICT_CHAIN, verdict.chain))
    return nest(kind, nest(_DATA_VERDICT, *parts))


def read_verdict(buffer: Buffer, start: int, end: int) -> Verdict | None:
    """Read the inside of a data attribute; None if it is a verdict that is never written here."""
    place = find(buffer, start, end).get(_DATA_VERDICT)
    if place is None:
        return None
    inside = find(buffer, *place)
    (code,) = struct.unpack_from("!i", buffer, inside[_VERDICT_CODE][0])
    chain = _text(buffer, inside[_VERDICT_CHAIN]) if _VERDICT_CHAIN in inside else ""
    return Verdict(Code(code), chain) if code in _CODES else None


_CODES = frozenset(Code)


def pack_rule(kind: int, rule: Rule) -> bytes:
    """Return an attribute with all expressions of a rule."""
    return nest(kind, *[_pack(one) for one in rule])


def read_rule(buffer: Buffer, start: int, end: int) -> Rule:
    """Read the inside of an attribute of expressions."""
    return tuple([_read(buffer, begin, stop) for _, begin, stop in walk(buffer, start, end)])


def _pack(expression: Expression) -> bytes:
    if isinstance(expression, Foreign):
        return nest(_LIST_ELEM, text(_EXPR_NAME, expression.name))  # The kernel refuses it.
    form = _FORMS[type(expression)]
    inside = form.pack(expression)
    return nest(_LIST_ELEM, text(_EXPR_NAME, form.name), nest(_EXPR_DATA, *inside))


def _read(buffer: Buffer, start: int, end: int) -> Expression:
    outside = find(buffer, start, end)
    name = _text(buffer, outside[_EXPR_NAME])
    reader = _READERS.get(name)
    inside = find(buffer, *outside[_EXPR_DATA]) if _EXPR_DATA in outside else {}
    try:
        found = reader(_Reading(buffer, inside)) if reader else None
    except (KeyError, ValueError):
        found = None  # A form of the expression that is never written here.
    return found if found is not None else Foreign(name)


def _text(buffer: Buffer, place: tuple[int, int]) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode(errors="replace")


def _register(kind: int, number: int) -> bytes:
    return be32(kind, _REGISTER_FIRST + number)


def _value(kind: int, value: bytes) -> bytes:
    return nest(kind, attribute(_DATA_VALUE, value))


class _Reading:
    """The attributes of one expression."""

    def __init__(self, buffer: Buffer, places: Attributes) -> None:
        self._buffer = buffer
        self._places = places

    def number(self, kind: int, otherwise: int | None = None) -> int:
        if otherwise is not None and kind not in self._places:
            return otherwise
        begin, end = self._places[kind]
        return int.from_bytes(self._buffer[begin:end], "big")

    def has(self, kind: int) -> bool:
        return kind in self._places

    def register(self, kind: int) -> int:
        number = self.number(kind)
        if number >= _REGISTER_FIRST:
            return number - _REGISTER_FIRST
        if not 1 <= number <= _OLD_REGISTERS:
            raise ValueError(f"register {number}")
        return (number - 1) * 4

    def text(self, kind: int) -> str:
        return _text(self._buffer, self._places[kind])

    def value(self, kind: int) -> bytes:
        begin, end = find(self._buffer, *self._places[kind])[_DATA_VALUE]
        return bytes(self._buffer[begin:end])

    def verdict(self, kind: int) -> Verdict | None:
        return read_verdict(self._buffer, *self._places[kind])


class _Form(NamedTuple):
    """How one kind of expression is written."""

    name: str
    pack: Callable[[Any], list[bytes]]


def _pack_lookup_verdict(one: LookupVerdict) -> list[bytes]:
    return [text(1, one.map), _register(2, one.key), be32(3, _REGISTER_VERDICT)]


def _pack_lookup(one: Lookup) -> list[bytes]:
    flags = [be32(5, _LOOKUP_INVERTED)] if one.negated else []
    return [text(1, one.set), _register(2, one.key), *flags]


def _pack_change(one: ChangeSet) -> list[bytes]:
    parts = [text(1, one.set), be32(3, one.op), _register(4, one.key)]
    if one.data is not None:
        parts.append(_register(5, one.data))
    if one.timeout_ms:
        parts.append(attribute(6, one.timeout_ms.to_bytes(8, "big")))
    return parts


def _pack_fib(one: FibType) -> list[bytes]:
    flag = _FIB_DESTINATION if one.destination else _FIB_SOURCE
    return [_register(1, one.to), be32(2, _FIB_ADDRTYPE), be32(3, flag)]


def _pack_bitwise(one: Bitwise) -> list[bytes]:
    return [
        _register(1, one.source),
        _register(2, one.to),
        be32(3, len(one.mask)),
        _value(4, one.mask),
        _value(5, one.xor),
    ]


def _pack_compare(one: Compare) -> list[bytes]:
    operator = _CMP_NEQ if one.negated else _CMP_EQ
    return [_register(1, one.source), be32(2, operator), _value(3, one.value)]


def _pack_translate(one: Translate) -> list[bytes]:
    parts = [be32(1, _NAT_DNAT), be32(2, _AF[one.ipv6])]
    return [*parts, _register(3, one.address), _register(5, one.port)]


def _pack_payload(one: Payload) -> list[bytes]:
    parts = [_register(1, one.to), be32(2, one.base)]
    return [*parts, be32(3, one.offset), be32(4, one.length)]


def _pack_reject(one: Reject) -> list[bytes]:
    return [be32(1, _ICMP_UNREACHABLE), u8(2, _PORT_UNREACHABLE[one.ipv6])]


def _pack_random(one: Random) -> list[bytes]:
    return [_register(1, one.to), be32(2, one.modulus), be32(3, _RANDOM), be32(4, one.first)]


_FORMS: Mapping[type, _Form] = {
    Payload: _Form("payload", _pack_payload),
    Meta: _Form("meta", lambda one: [_register(1, one.to), be32(2, one.key)]),
    SetMeta: _Form("meta", lambda one: [be32(2, one.key), _register(3, one.source)]),
    Ct: _Form("ct", lambda one: [_register(1, one.to), be32(2, one.key)]),
    FibType: _Form("fib", _pack_fib),
    Random: _Form("numgen", _pack_random),
    Bitwise: _Form("bitwise", _pack_bitwise),
    Constant: _Form("immediate", lambda one: [_register(1, one.to), _value(2, one.value)]),
    Compare: _Form("cmp", _pack_compare),
    Lookup: _Form("lookup", _pack_lookup),
    LookupData: _Form(
        "lookup", lambda one: [text(1, one.map), _register(2, one.key), _register(3, one.to)]
    ),
    LookupVerdict: _Form("lookup", _pack_lookup_verdict),
    ChangeSet: _Form("dynset", _pack_change),
    Decide: _Form(
        "immediate", lambda one: [be32(1, _REGISTER_VERDICT), verdict_data(2, one.verdict)]
    ),
    Translate: _Form("nat", _pack_translate),
    Masquerade: _Form("masq", lambda _: [be32(1, _RANGE_PROTO_RANDOM_FULLY)]),
    Reject: _Form("reject", _pack_reject),
}


def _read_meta(found: _Reading) -> Expression:
    key = MetaKey(found.number(2))
    if found.has(3):
        return SetMeta(key, found.register(3))
    return Meta(key, found.register(1))


def _read_lookup(found: _Reading) -> Expression:
    name, key = found.text(1), found.register(2)
    if found.has(3):
        if found.number(3) == _REGISTER_VERDICT:
            return LookupVerdict(name, key)
        return LookupData(name, key, found.register(3))
    return Lookup(name, key, bool(found.number(5, 0) & _LOOKUP_INVERTED))


def _read_change(found: _Reading) -> Expression | None:
    if found.has(7) or found.has(10):
        return None  # Elements with expressions of their own.
    data = found.register(5) if found.has(5) else None
    operation = SetOp(found.number(3))
    return ChangeSet(operation, found.text(1), found.register(4), data, found.number(6, 0))


def _read_fib(found: _Reading) -> Expression | None:
    flags = found.number(3)
    if found.number(2) != _FIB_ADDRTYPE or flags not in (_FIB_SOURCE, _FIB_DESTINATION):
        return None
    return FibType(flags == _FIB_DESTINATION, found.register(1))


def _read_random(found: _Reading) -> Expression | None:
    if found.number(3) != _RANDOM:
        return None
    return Random(found.number(2), found.register(1), found.number(4, 0))


def _read_bitwise(found: _Reading) -> Expression | None:
    if found.number(6, 0) or not found.has(4):
        return None
    return Bitwise(found.register(1), found.register(2), found.value(4), found.value(5))


def _read_compare(found: _Reading) -> Expression | None:
    operator = found.number(2)
    if operator not in (_CMP_EQ, _CMP_NEQ):
        return None
    return Compare(found.register(1), found.value(3), operator == _CMP_NEQ)


def _read_translate(found: _Reading) -> Expression | None:
    address, port = found.register(3), found.register(5)
    single = found.number(4, found.number(3)) == found.number(3)
    if found.number(1) != _NAT_DNAT or not single:
        return None
    return Translate(found.number(2) == _AF[True], address, port)


def _read_immediate(found: _Reading) -> Expression | None:
    if found.number(1) != _REGISTER_VERDICT:
        return Constant(found.value(2), found.register(1))
    verdict = found.verdict(2)
    return Decide(verdict) if verdict is not None else None


def _read_masquerade(found: _Reading) -> Expression | None:
    wanted = found.number(1, 0) == _RANGE_PROTO_RANDOM_FULLY
    return Masquerade() if wanted else None


def _read_reject(found: _Reading) -> Expression | None:
    for ipv6, code in _PORT_UNREACHABLE.items():
        if (found.number(1), found.number(2, -1)) == (_ICMP_UNREACHABLE, code):
            return Reject(ipv6)
    return None


_READERS: Mapping[str, Callable[[_Reading], Expression | None]] = {
    "payload": lambda found: Payload(
        Base(found.number(2)), found.number(3), found.number(4), found.register(1)
    ),
    "meta": _read_meta,
    "ct": lambda found: Ct(CtKey(found.number(2)), found.register(1)),
    "fib": _read_fib,
    "numgen": _read_random,
    "bitwise": _read_bitwise,
    "cmp": _read_compare,
    "lookup": _read_lookup,
    "dynset": _read_change,
    "immediate": _read_immediate,
    "nat": _read_translate,
    "masq": _read_masquerade,
    "reject": _read_reject,
}
