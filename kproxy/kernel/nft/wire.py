"""nf_tables messages: requests, and packing operations. What the kernel tells: ``listing``."""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from kproxy.kernel.attributes import NESTED, be32, nest, text
from kproxy.kernel.inet import Family
from kproxy.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST
from kproxy.kernel.nfnetlink import SUBSYSTEM_NFTABLES, header, message, message_type
from kproxy.kernel.nft import expression_wire
from kproxy.kernel.nft.expressions import Verdict
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    Data,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    Fields,
    FlushChain,
    Operation,
    SetSpec,
)

NEW_TABLE, GET_TABLE, DEL_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN, DEL_CHAIN = 3, 4, 5
NEW_RULE, GET_RULE, DEL_RULE = 6, 7, 8
NEW_SET, GET_SET, DEL_SET = 9, 10, 11
NEW_ELEMENTS, GET_ELEMENTS, DEL_ELEMENTS = 12, 13, 14
GET_GENERATION = 16

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLM_F_APPEND = 0x800
_CREATE = NLM_F_CREATE | NLM_F_EXCL

LIST_ELEM = 1
TABLE_FLAGS = 2
CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 3, 4, 5, 7
ELEMENTS = 3
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
RULE_CHAIN, RULE_EXPRESSIONS = 2, 4
SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN = 2, 3, 4, 5
SET_DATA_TYPE, SET_DATA_LEN, SET_DESC, SET_ID = 6, 7, 9, 10
DESC_SIZE, DESC_CONCAT = 1, 2
FLAG_INTERVAL, FLAG_MAP, FLAG_TIMEOUT, FLAG_EVAL, FLAG_CONCAT = 4, 8, 0x10, 0x20, 0x80
KNOWN_FLAGS = FLAG_INTERVAL | FLAG_MAP | FLAG_TIMEOUT | FLAG_EVAL | FLAG_CONCAT
TYPE_VERDICT = 0xFFFFFF00
TYPE_BITS = 6
ELEM_KEY, ELEM_DATA, ELEM_KEY_END = 1, 2, 10
DATA_VALUE = 1

ELEMENTS_BYTES = 60_000
"""Of elements in one message: the length of an attribute has 16 bits."""

_HEADERS = struct.Struct("=HH")


def kind(command: int) -> int:
    """Return the type of a message."""
    return message_type(SUBSYSTEM_NFTABLES, command)


def request(family: Family, table: str = "", *attributes: bytes) -> bytes:
    """Return the payload of a request about one table, or about everything of a family."""
    named = [text(1, table)] if table else []
    return header(family.af) + b"".join([*named, *attributes])


def set_request(family: Family, table: str, name: str) -> bytes:
    """Return the payload of a request about one set."""
    return request(family, table, text(SET_NAME, name))


def batch_begin(sequence: int) -> bytes:
    """Return the message with which every transaction begins."""
    return _batch(_BATCH_BEGIN, sequence)


def batch_end(sequence: int) -> bytes:
    """Return the message without which a transaction is checked and then forgotten."""
    return _batch(_BATCH_END, sequence)


def _batch(command: int, sequence: int) -> bytes:
    subsystem = struct.pack("!BBH", 0, 0, SUBSYSTEM_NFTABLES)
    return struct.pack("=IHHII", 20, command, NLM_F_REQUEST, sequence, 0) + subsystem


class Body(NamedTuple):
    """A message but for its sequence number."""

    command: int
    flags: int
    attributes: bytes

    def pack(self, family: Family, sequence: int) -> bytes:
        """Return the message. The kernel answers only if it refuses."""
        flags = NLM_F_REQUEST | self.flags
        return message(kind(self.command), flags, sequence, family.af, self.attributes)


class Packer:
    """Packs operations on one table."""

    def __init__(self, table: str) -> None:
        self._table = text(1, table)
        self._set_id = 0

    def pack(self, operation: Operation) -> Iterator[Body]:
        """Yield the messages of an operation."""
        match operation:
            case AddElements(name, spec, elements):
                yield from self._elements(NEW_ELEMENTS, NLM_F_CREATE, name, spec, elements.items())
            case DelElements(name, spec, keys):
                only_keys = SetSpec(spec.key, interval=spec.interval)
                rows = [(key, None) for key in keys]
                yield from self._elements(DEL_ELEMENTS, 0, name, only_keys, rows)
            case AddSet(name, spec):
                self._set_id += 1
                attributes = self._table + _set(name, spec, self._set_id)
                yield Body(NEW_SET, _CREATE, attributes)
            case _:
                command, flags, attributes = _simple(operation)
                yield Body(command, flags, self._table + attributes)

    def _elements(
        self,
        command: int,
        flags: int,
        name: str,
        spec: SetSpec,
        elements: Iterable[tuple[bytes, Data]],
    ) -> Iterator[Body]:
        head = self._table + text(SET_NAME, name)
        for part in _lists(spec, elements):
            yield Body(command, flags, head + part)


def _simple(operation: Operation) -> Body:
    """Return the message of an operation, without the table's name."""
    match operation:
        case AddTable():
            return Body(NEW_TABLE, NLM_F_CREATE, b"")
        case DelTable():
            return Body(DEL_TABLE, 0, b"")
        case AddChain(name, base):
            return Body(NEW_CHAIN, _CREATE, text(CHAIN_NAME, name) + _hook(base))
        case DelChain(name):
            return Body(DEL_CHAIN, 0, text(CHAIN_NAME, name))
        case AddRule(chain, rule):
            rules = expression_wire.pack_rule(RULE_EXPRESSIONS, rule)
            return Body(NEW_RULE, NLM_F_CREATE | _NLM_F_APPEND, text(RULE_CHAIN, chain) + rules)
        case FlushChain(chain):
            return Body(DEL_RULE, 0, text(RULE_CHAIN, chain))
        case DelSet(name):
            return Body(DEL_SET, 0, text(SET_NAME, name))
    raise AssertionError(f"no message for {operation}")


def _hook(base: BaseChain | None) -> bytes:
    if base is None:
        return b""
    priority = be32(HOOK_PRIORITY, base.priority & 0xFFFFFFFF)
    hook = nest(CHAIN_HOOK, be32(HOOK_NUMBER, base.hook), priority)
    return hook + text(CHAIN_TYPE, base.type)


def _type(fields: Fields) -> int:
    number = 0
    for one in fields:
        number = number << TYPE_BITS | one.number
    return number


def _set(name: str, spec: SetSpec, number: int) -> bytes:
    flags = FLAG_MAP if spec.data or spec.verdicts else 0
    flags |= FLAG_TIMEOUT | FLAG_EVAL if spec.dynamic else 0
    flags |= FLAG_INTERVAL if spec.interval else 0
    flags |= FLAG_CONCAT if spec.interval and len(spec.key) > 1 else 0
    parts = [
        text(SET_NAME, name),
        be32(SET_KEY_TYPE, _type(spec.key)),
        be32(SET_KEY_LEN, sum(one.padded for one in spec.key)),
    ]
    if spec.verdicts:
        parts += [be32(SET_DATA_TYPE, TYPE_VERDICT), be32(SET_DATA_LEN, 0)]
    elif spec.data:
        parts += [be32(SET_DATA_TYPE, _type(spec.data)), be32(SET_DATA_LEN, spec.data_length)]
    description = []
    if spec.max_elements:
        description.append(be32(DESC_SIZE, spec.max_elements))
    if flags & FLAG_CONCAT:
        lengths = [nest(LIST_ELEM, be32(1, one.length)) for one in spec.key]
        description.append(nest(DESC_CONCAT, *lengths))
    parts += [be32(SET_FLAGS, flags), be32(SET_ID, number)]
    if description:
        parts.append(nest(SET_DESC, *description))
    return b"".join(parts)


def value_header(length: int, outer: int, *, nested: bool = True) -> bytes:
    """Return the headers of an attribute that holds a value (the kernel's own are not marked)."""
    return _HEADERS.pack(8 + length, outer | (NESTED if nested else 0)) + _HEADERS.pack(
        4 + length, DATA_VALUE
    )


def _lists(spec: SetSpec, elements: Iterable[tuple[bytes, Data]]) -> Iterator[bytes]:
    """Yield attributes that hold the elements, none longer than an attribute may be."""
    part: list[bytes] = []
    size = 0
    pack = _element_packer(spec)
    for key, data in elements:
        one = pack(key, data)
        if size + len(one) > ELEMENTS_BYTES:
            yield _list(part)
            part, size = [], 0
        part.append(one)
        size += len(one)
    if part:
        yield _list(part)


def _list(elements: list[bytes]) -> bytes:
    return nest(ELEMENTS, *elements)


def _element_packer(spec: SetSpec) -> Callable[[bytes, Data], bytes]:
    """Return the function that packs an element of one set."""
    half = spec.key_length // 2 if spec.interval else 0
    length = half or spec.key_length
    key_header = value_header(length, ELEM_KEY)
    if spec.verdicts:
        return _verdict_packer(key_header, length)
    if spec.data:
        data_header = value_header(spec.data_length, ELEM_DATA)
        whole = 4 + 8 + length + 8 + spec.data_length
        head = _HEADERS.pack(whole, LIST_ELEM | NESTED) + key_header
        return lambda key, data: (
            head + key + data_header + data  # type: ignore[operator]  # bytes: no verdicts here
        )
    if spec.interval:
        end_header = value_header(length, ELEM_KEY_END)
        outer = _HEADERS.pack(4 + 2 * (8 + length), LIST_ELEM | NESTED) + key_header
        return lambda key, _: outer + key[:half] + end_header + key[half:]
    only = _HEADERS.pack(4 + 8 + length, LIST_ELEM | NESTED) + key_header
    return lambda key, _: only + key


def _verdict_packer(key_header: bytes, length: int) -> Callable[[bytes, Data], bytes]:
    known: dict[Data, tuple[bytes, bytes]] = {}

    def pack(key: bytes, data: Data) -> bytes:
        around = known.get(data)
        if around is None:
            assert isinstance(data, Verdict)
            packed = expression_wire.verdict_data(ELEM_DATA, data)
            whole = _HEADERS.pack(4 + 8 + length + len(packed), LIST_ELEM | NESTED)
            around = known[data] = whole + key_header, packed
        return around[0] + key + around[1]

    return pack
