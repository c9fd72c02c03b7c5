"""The wire format of protobuf: fields are a number and a value of one of a few types."""

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class Malformed(ValueError):
    """The bytes are no protobuf message."""


def varint(number: int) -> bytes:
    """Return a whole number, not negative, as it is written."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(number: int, data: bytes) -> bytes:
    """Return a field that holds a message, or bytes."""
    return varint(number << 3 | LENGTH) + varint(len(data)) + data


def text(number: int, value: str) -> bytes:
    """Return a field that holds text."""
    return message(number, value.encode())


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field: a whole number, or bytes. Raises Malformed."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire_type == LENGTH:
            size, place = _varint(data, place)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise Malformed(f"unknown wire type {wire_type}")
        if place + size > len(data):
            raise Malformed("a field is longer than its message")
        yield number, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, place
    raise Malformed("a number does not end")


def signed(value: int) -> int:
    """Return a number of type int32 or int64, which may be negative."""
    return value - (1 << 64) if value >= 1 << 63 else value
