"""What the kernel tells of tables: sets, chains, rules, elements. Pure.

Elements are many and alike: one costs a fraction of a microsecond, because in a set of plain data
all attribute headers are the same bytes, so ``struct`` takes hundreds of elements at once.
"""

import struct
from typing import NamedTuple

from kproxy.kernel.attributes import Buffer, find, walk
from kproxy.kernel.nfnetlink import HEADER_SIZE
from kproxy.kernel.nft import expression_wire, wire
from kproxy.kernel.nft.expressions import Rule
from kproxy.kernel.nft.types import BaseChain, Data, Field, Fields, Hook, SetSpec

_FIELDS = {one.number: one for one in Field}
_HEADERS = struct.Struct("=HH")

Place = tuple[int, int]


class SetRow(NamedTuple):
    """A set; ``spec`` is None if it is of a kind that is never made here."""

    table: str
    name: str
    spec: SetSpec | None


class ChainRow(NamedTuple):
    """A chain; ``known`` is false if it is of a kind that is never made here."""

    table: str
    name: str
    base: BaseChain | None
    known: bool


class RuleRow(NamedTuple):
    """A rule, in the order of its chain."""

    table: str
    chain: str
    rule: Rule


def read_table(buffer: Buffer, start: int, end: int) -> int:
    """Return the flags of a table: 0 unless it is dormant, or a process's own."""
    place = find(buffer, start + HEADER_SIZE, end).get(wire.TABLE_FLAGS)
    return _number(buffer, place) if place else 0


def read_generation(buffer: Buffer, start: int, end: int) -> int:
    """Return the number of the rule set."""
    return _number(buffer, find(buffer, start + HEADER_SIZE, end)[1])


def read_set(buffer: Buffer, start: int, end: int) -> SetRow:
    """Return a set without its elements."""
    places = find(buffer, start + HEADER_SIZE, end)
    return SetRow(
        _text(buffer, places[1]), _text(buffer, places[wire.SET_NAME]), _spec(buffer, places)
    )


def read_chain(buffer: Buffer, start: int, end: int) -> ChainRow:
    """Return a chain without its rules."""
    places = find(buffer, start + HEADER_SIZE, end)
    table, name = _text(buffer, places[1]), _text(buffer, places[wire.CHAIN_NAME])
    if wire.CHAIN_HOOK not in places:
        return ChainRow(table, name, None, known=True)
    inside = find(buffer, *places[wire.CHAIN_HOOK])
    number = _number(buffer, inside[wire.HOOK_NUMBER])
    (priority,) = struct.unpack_from("!i", buffer, inside[wire.HOOK_PRIORITY][0])
    accepts = wire.CHAIN_POLICY not in places or _number(buffer, places[wire.CHAIN_POLICY]) == 1
    if number not in _HOOKS or not accepts:
        return ChainRow(table, name, None, known=False)
    base = BaseChain(_text(buffer, places[wire.CHAIN_TYPE]), Hook(number), priority)
    return ChainRow(table, name, base, known=True)


_HOOKS = frozenset(Hook)


def read_rule(buffer: Buffer, start: int, end: int) -> RuleRow:
    """Return a rule."""
    places = find(buffer, start + HEADER_SIZE, end)
    expressions = places.get(wire.RULE_EXPRESSIONS)
    rule = expression_wire.read_rule(buffer, *expressions) if expressions else ()
    return RuleRow(_text(buffer, places[1]), _text(buffer, places[wire.RULE_CHAIN]), rule)


ElementRows = list[tuple[bytes, Data]]


class ElementReader:
    """Reads the elements of one set, many at once."""

    def __init__(self, spec: SetSpec) -> None:
        self._spec = spec
        self._careful = spec.verdicts or spec.interval
        key = spec.key_length
        data = 8 + spec.data_length if spec.data else 0
        whole = _HEADERS.pack(4 + 8 + key + data, wire.LIST_ELEM)
        self._head = whole + wire.value_header(key, wire.ELEM_KEY, nested=False)
        self._middle = b""
        form = f"={len(self._head)}s{key}s"
        if data:
            self._middle = wire.value_header(spec.data_length, wire.ELEM_DATA, nested=False)
            form += f"{len(self._middle)}s{spec.data_length}s"
        self._form = struct.Struct(form)

    def read(self, buffer: Buffer, start: int, end: int) -> ElementRows:
        """Return the elements of one message. ValueError: one is not of this set's kind."""
        place = find(buffer, start + HEADER_SIZE, end).get(wire.ELEMENTS)
        if place is None:
            return []
        if not self._careful and (place[1] - place[0]) % self._form.size == 0:
            found = self._read_alike(buffer, place)
            if found is not None:
                return found
        return [self._read_one(buffer, begin, stop) for _, begin, stop in walk(buffer, *place)]

    def _read_alike(self, buffer: Buffer, place: Place) -> ElementRows | None:
        """Return the elements if all headers are as expected; the last one may lack nothing."""
        columns = tuple(zip(*self._form.iter_unpack(buffer[place[0] : place[1]]), strict=True))
        count = len(columns[0]) if columns else 0
        if not count or columns[0].count(self._head) != count:
            return None
        if not self._middle:
            return [(key, None) for key in columns[1]]
        if columns[2].count(self._middle) != count:
            return None
        return list(zip(columns[1], columns[3], strict=True))

    def _read_one(self, buffer: Buffer, start: int, end: int) -> tuple[bytes, Data]:
        places = find(buffer, start, end)
        key = _value(buffer, places[wire.ELEM_KEY])
        if self._spec.interval:
            key += _value(buffer, places.get(wire.ELEM_KEY_END, places[wire.ELEM_KEY]))
        data: Data = None
        if self._spec.verdicts:
            data = expression_wire.read_verdict(buffer, *places[wire.ELEM_DATA])
        elif self._spec.data:
            data = _value(buffer, places[wire.ELEM_DATA])
        return key, data


def _spec(buffer: Buffer, places: dict[int, Place]) -> SetSpec | None:
    flags = _number(buffer, places[wire.SET_FLAGS]) if wire.SET_FLAGS in places else 0
    key = _fields(_number(buffer, places[wire.SET_KEY_TYPE]))
    if key is None or flags & ~wire.KNOWN_FLAGS:
        return None
    data: Fields | None = ()
    verdicts = False
    if flags & wire.FLAG_MAP:
        kind = _number(buffer, places[wire.SET_DATA_TYPE])
        verdicts = kind == wire.TYPE_VERDICT
        data = () if verdicts else _fields(kind)
    timeout, dynamic = flags & wire.FLAG_TIMEOUT, flags & wire.FLAG_EVAL
    if data is None or bool(timeout) != bool(dynamic):
        return None
    size = 0
    if wire.SET_DESC in places:
        inside = find(buffer, *places[wire.SET_DESC])
        size = _number(buffer, inside[wire.DESC_SIZE]) if wire.DESC_SIZE in inside else 0
    return SetSpec(
        key=key,
        data=data,
        verdicts=verdicts,
        interval=bool(flags & wire.FLAG_INTERVAL),
        dynamic=bool(dynamic),
        max_elements=size,
    )


def _fields(number: int) -> Fields | None:
    """Return the fields of a type; None if it has others."""
    found: list[Field] = []
    while number:
        one = _FIELDS.get(number & (1 << wire.TYPE_BITS) - 1)
        if one is None:
            return None
        found.insert(0, one)
        number >>= wire.TYPE_BITS
    return tuple(found)


def _value(buffer: Buffer, place: Place) -> bytes:
    begin, end = find(buffer, *place)[wire.DATA_VALUE]
    return bytes(buffer[begin:end])


def _text(buffer: Buffer, place: Place) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode(errors="replace")


def _number(buffer: Buffer, place: Place) -> int:
    return int.from_bytes(buffer[place[0] : place[1]], "big")
