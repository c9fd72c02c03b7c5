"""Netlink attributes: packing them, and reading many alike messages fast. Pure.

Every attribute is a 4-byte header (length with header, type), its value, and padding to 4 bytes.
Reading them one by one costs several microseconds a message in Python, most of a dump. But the
messages of a dump look alike: :class:`Records` learns where the wanted values lie, and takes them
from the next messages with two ``struct`` calls, after checking that all headers are the same.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

Buffer = bytes | bytearray | memoryview
NESTED = 0x8000
"""Flag on the type of an attribute that holds others; newer parts of the kernel insist on it."""

_HEADER = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF


def attribute(kind: int, value: Buffer) -> bytes:
    """Return one attribute, padded."""
    length = 4 + len(value)
    return _HEADER.pack(length, kind) + bytes(value) + b"\0" * (-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | NESTED, b"".join(attributes))


def u8(kind: int, value: int) -> bytes:
    """Return an attribute with an 8-bit number."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """Return an attribute with a 16-bit number in the machine's byte order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number in the machine's byte order."""
    return attribute(kind, struct.pack("=I", value))


def be16(kind: int, value: int) -> bytes:
    """Return an attribute with a 16-bit number in network byte order."""
    return attribute(kind, struct.pack("!H", value))


def be32(kind: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number in network byte order."""
    return attribute(kind, struct.pack("!I", value))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a string and its closing zero."""
    return attribute(kind, value.encode() + b"\0")


def walk(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (type, start of value, end of value) of each attribute between two offsets."""
    unpack = _HEADER.unpack_from
    while start + 4 <= end:
        length, kind = unpack(buffer, start)
        if length < 4 or start + length > end:
            raise ValueError(f"broken netlink attribute of {length} bytes at {start}")
        yield kind & _TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def find(buffer: Buffer, start: int, end: int) -> dict[int, tuple[int, int]]:
    """Return where the value of each attribute begins and ends, by type."""
    return {kind: (begin, stop) for kind, begin, stop in walk(buffer, start, end)}


Schema = Mapping[int, "str | Schema"]
"""Wanted attributes by type: the schema of a nest, or a ``struct`` format without byte order, or
WHOLE for all bytes of the value, however many."""

WHOLE = "*"


class _Layout:
    """Where the wanted values lie in messages of one length."""

    __slots__ = ("expected", "headers", "slots", "values")

    def __init__(self, buffer: Buffer, start: int, walked: "_Walk", count: int) -> None:
        self.headers = struct.Struct("=" + walked.headers)
        self.values = struct.Struct("=" + walked.values)
        self.expected = self.headers.unpack_from(buffer, start)
        # None: the kernel's order is the schema's and nothing is missing, the usual case.
        self.slots = None if walked.slots == list(range(count)) else walked.slots


class Records:
    """Takes the same values out of many messages.

    The values come as one tuple, in the order of the schema, nests in place; None where a message
    lacks an attribute. Numbers are in the machine's byte order.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._count = _count(schema)
        self._layouts: dict[int, _Layout] = {}

    def read(self, buffer: Buffer, start: int, end: int) -> tuple[Any, ...]:
        """Return the values of the attributes between two offsets."""
        layout = self._layouts.get(end - start)
        if layout is not None and layout.headers.unpack_from(buffer, start) == layout.expected:
            found = layout.values.unpack_from(buffer, start)
            return found if layout.slots is None else self._spread(layout.slots, found)
        walked = _Walk(buffer, start)
        values: list[Any] = [None] * self._count
        walked.take(self._schema, start, end, values, 0)
        self._layouts[end - start] = _Layout(buffer, start, walked, self._count)
        return tuple(values)

    def _spread(self, slots: list[int], found: tuple[Any, ...]) -> tuple[Any, ...]:
        values: list[Any] = [None] * self._count
        for slot, value in zip(slots, found, strict=True):
            values[slot] = value
        return tuple(values)


class _Walk:
    """One careful reading of a message, which writes down the formats of its layout."""

    def __init__(self, buffer: Buffer, start: int) -> None:
        self._buffer = buffer
        self.headers = ""
        self.values = ""
        self.slots: list[int] = []
        self._header_end = start
        self._value_end = start

    def take(self, schema: Schema, start: int, end: int, into: list[Any], slot: int) -> None:
        slots: dict[int, int] = {}
        for kind, wanted in schema.items():
            slots[kind] = slot
            slot += 1 if isinstance(wanted, str) else _count(wanted)
        for kind, begin, stop in walk(self._buffer, start, end):
            self.headers += f"{begin - 4 - self._header_end}xI"
            self._header_end = begin
            wanted = schema.get(kind, "")
            if isinstance(wanted, str):
                if wanted:
                    self._value(wanted, begin, stop, into, slots[kind])
            else:
                self.take(wanted, begin, stop, into, slots[kind])

    def _value(self, wanted: str, begin: int, stop: int, into: list[Any], slot: int) -> None:
        if wanted == WHOLE:
            wanted = f"{stop - begin}s"
        if struct.calcsize("=" + wanted) > stop - begin:
            raise ValueError(f"netlink attribute of {stop - begin} bytes is too short")
        (into[slot],) = struct.unpack_from("=" + wanted, self._buffer, begin)
        self.slots.append(slot)
        self.values += f"{begin - self._value_end}x{wanted}"
        self._value_end = begin + struct.calcsize("=" + wanted)


def _count(schema: Schema) -> int:
    return sum(1 if isinstance(wanted, str) else _count(wanted) for wanted in schema.values())
