"""Packing attributes, and reading many alike messages by a learned layout."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.kernel.attributes import (
    WHOLE,
    Records,
    attribute,
    be16,
    be32,
    find,
    nest,
    text,
    u8,
    u16,
    u32,
    walk,
)

SCHEMA = {1: "I", 2: {1: "H", 2: "4s"}, 5: "B"}


def message(one: int, two: int, raw: bytes, five: int, extra: bytes = b"") -> bytes:
    return u32(1, one) + nest(2, u16(1, two), attribute(2, raw)) + extra + u8(5, five)


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (u8(1, 7), struct.pack("=HHB3x", 5, 1, 7)),
        (u16(2, 7), struct.pack("=HHH2x", 6, 2, 7)),
        (u32(3, 7), struct.pack("=HHI", 8, 3, 7)),
        (be16(4, 0x102), struct.pack("=HH2s2x", 6, 4, b"\1\2")),
        (be32(5, 0x1020304), struct.pack("=HH4s", 8, 5, b"\1\2\3\4")),
        (text(6, "rr"), struct.pack("=HH4s", 7, 6, b"rr\0\0")),
        (nest(7, u8(1, 1)), struct.pack("=HH", 12, 0x8007) + u8(1, 1)),
        (attribute(8, b""), struct.pack("=HH", 4, 8)),
    ],
)
def test_packing(packed: bytes, expected: bytes) -> None:
    assert packed == expected


def test_walking_gives_types_without_flags_and_values_without_padding() -> None:
    data = text(1, "abcd") + nest(2, u8(3, 9))
    assert [(kind, data[a:b]) for kind, a, b in walk(data, 0, len(data))] == [
        (1, b"abcd\0"),
        (2, u8(3, 9)),
    ]
    assert find(data, 0, len(data)).keys() == {1, 2}


@pytest.mark.parametrize("broken", [b"\3\0\1\0", b"\x09\0\1\0abcd"])
def test_broken_lengths_are_refused(broken: bytes) -> None:
    with pytest.raises(ValueError, match="broken netlink attribute"):
        list(walk(broken, 0, len(broken)))


def test_values_come_in_the_order_of_the_schema() -> None:
    records = Records(SCHEMA)
    data = message(1, 2, b"abcd", 3)
    assert records.read(data, 0, len(data)) == (1, 2, b"abcd", 3)


def test_what_is_missing_is_none() -> None:
    records = Records(SCHEMA)
    for data in (u8(5, 3), u8(5, 4), b"", nest(2, u16(1, 8)) + u8(5, 9)):
        expected = {u8(5, 3): 3, u8(5, 4): 4, b"": None}.get(data, 9)
        two = 8 if len(data) > 8 else None
        assert records.read(data, 0, len(data)) == (None, two, None, expected)


def test_strings_of_any_length_are_taken_whole() -> None:
    records = Records({1: WHOLE, 2: "I"})
    for word in ("rr", "wrr", "rr", "sh", "lblcr", "wlc", ""):
        data = text(1, word) + u32(2, 7)
        assert records.read(data, 0, len(data)) == (word.encode() + b"\0", 7)


def test_too_short_values_are_refused() -> None:
    data = u16(1, 7)
    with pytest.raises(ValueError, match="too short"):
        Records(SCHEMA).read(data, 0, len(data))


def test_a_layout_of_the_same_length_but_another_order_is_not_mistaken() -> None:
    records = Records({1: "I", 2: "I"})
    one, two = u32(1, 10) + u32(2, 20), u32(2, 20) + u32(1, 10)
    assert len(one) == len(two)
    for data in (one, two, one, two, u32(3, 1) + u32(1, 5), one):
        expected = (5, None) if data.startswith(u32(3, 1)) else (10, 20)
        assert records.read(data, 0, len(data)) == expected


shuffled = st.permutations([0, 1, 2, 3]).flatmap(
    lambda order: st.tuples(
        st.just(order), st.integers(0, 4), st.integers(0, 2**32 - 1), st.binary(max_size=9)
    )
)


@given(st.lists(shuffled, max_size=20))
def test_learned_layouts_read_as_careful_reading_does(
    specs: list[tuple[list[int], int, int, bytes]],
) -> None:
    """One reader for all messages gives what a fresh one gives for each."""
    records = Records(SCHEMA)
    for order, kept, number, other in specs:
        parts = [
            u32(1, number),
            nest(2, u16(1, number & 0xFFFF), attribute(2, struct.pack("=I", number))),
            u8(5, number & 0xFF),
            attribute(9, other),
        ]
        data = b"".join(parts[at] for at in order[:kept])
        for offset in (0, 4):
            shifted = bytes(offset) + data
            end = len(shifted)
            fresh = Records(SCHEMA).read(shifted, offset, end)
            assert records.read(shifted, offset, end) == fresh
