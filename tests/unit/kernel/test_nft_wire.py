"""Messages of nf_tables: what is packed reads back, what others wrote is told apart."""

import struct

import pytest

from kproxy.kernel.attributes import attribute, nest, text, u32, walk
from kproxy.kernel.inet import Family
from kproxy.kernel.nfnetlink import header
from kproxy.kernel.nft import expression_wire, listing, wire
from kproxy.kernel.nft.expressions import (
    DROP,
    Base,
    Bitwise,
    Compare,
    Decide,
    Expression,
    Foreign,
    Payload,
    Random,
    Rule,
    Translate,
    goto,
)
from kproxy.kernel.nft.types import (
    AddElements,
    Data,
    DelElements,
    Field,
    SetSpec,
    wrong_length,
)

ENDPOINTS = SetSpec((Field.IPV4, Field.NUMBER), (Field.IPV4, Field.PORT))
VERDICTS = SetSpec((Field.IPV4,), verdicts=True)
ADDRESSES = SetSpec((Field.IPV6,))
RANGES = SetSpec((Field.PORT, Field.IPV4), interval=True)


def key(number: int, length: int) -> bytes:
    return number.to_bytes(length, "big")


def parts(spec: SetSpec, elements: dict[bytes, Data]) -> list[bytes]:
    """Return the payloads of the messages that add elements."""
    packer = wire.Packer("t")
    bodies = packer.pack(AddElements("s", spec, elements))
    return [header(Family.IPV4.af) + body.attributes for body in bodies]


def as_the_kernel_tells(payload: bytes) -> bytes:
    """Return a payload whose nests are not marked as such, like the kernel's own."""
    marked, plain = bytearray(payload), 0x3FFF

    def unmark(start: int, end: int, depth: int) -> None:
        for kind, begin, stop in walk(marked, start, end):
            raw = struct.unpack_from("=H", marked, begin - 2)[0]
            if raw & 0x8000:
                struct.pack_into("=H", marked, begin - 2, kind & plain)
                unmark(begin, stop, depth + 1)

    unmark(4, len(marked), 0)
    return bytes(marked)


SAMPLES: list[tuple[SetSpec, dict[bytes, Data]]] = [
    (ENDPOINTS, {key(n, 8): key(n, 8) for n in range(3000)}),
    (ADDRESSES, {key(n, 16): None for n in range(3000)}),
    (VERDICTS, {key(n, 4): goto("a" * (n % 7 + 1)) if n % 3 else DROP for n in range(3000)}),
    (RANGES, {key(n, 8) + key(n + 1, 8): None for n in range(0, 6000, 2)}),
]


@pytest.mark.parametrize(("spec", "elements"), SAMPLES)
@pytest.mark.parametrize("told", [bytes, as_the_kernel_tells])
def test_elements_read_back(spec: SetSpec, elements: dict[bytes, Data], told: type[bytes]) -> None:
    reader = listing.ElementReader(spec)
    payloads = [told(one) for one in parts(spec, elements)]
    assert len(payloads) > 1
    assert max(map(len, payloads)) < 65_536
    found = [row for one in payloads for row in reader.read(one, 0, len(one))]
    assert found == list(elements.items())


def test_an_element_that_has_more_is_read_too() -> None:
    """Somebody may have given one of them a comment; its length tells nothing of the others."""
    reader = listing.ElementReader(ADDRESSES)

    def element(number: int, *more: bytes) -> bytes:
        value = attribute(1, key(number, 16))
        return attribute(1, attribute(1, value) + b"".join(more))

    comment = attribute(6, b"\0" * 20)  # as long as an element without
    rows = attribute(3, element(1) + element(2, comment) + element(3))
    payload = header(Family.IPV6.af) + text(1, "t") + rows
    found = reader.read(payload, 0, len(payload))
    assert found == [(key(number, 16), None) for number in (1, 2, 3)]


def test_an_answer_without_elements() -> None:
    payload = header(Family.IPV4.af) + text(1, "t")
    assert listing.ElementReader(ADDRESSES).read(payload, 0, len(payload)) == []


@pytest.mark.parametrize(
    ("spec", "elements"),
    [
        (ADDRESSES, {bytes(15): None}),
        (ADDRESSES, {bytes(16): b""}),
        (ENDPOINTS, {bytes(8): bytes(7)}),
        (ENDPOINTS, {bytes(8): DROP}),
        (VERDICTS, {bytes(4): bytes(8)}),
        (RANGES, {bytes(8): None}),
    ],
)
def test_wrong_lengths_are_seen(spec: SetSpec, elements: dict[bytes, Data]) -> None:
    assert wrong_length(AddElements("s", spec, elements))
    right = dict(SAMPLES)[spec]
    assert not wrong_length(AddElements("s", spec, right))
    assert not wrong_length(DelElements("s", spec, list(right)))
    assert wrong_length(DelElements("s", spec, [b"x"]))


def read(packed: bytes) -> Rule:
    ((_, begin, end),) = walk(packed, 0, len(packed))
    return expression_wire.read_rule(packed, begin, end)


def expression(name: str, *inside: bytes) -> bytes:
    return nest(4, nest(1, text(1, name), nest(2, *inside)))


def be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


@pytest.mark.parametrize(
    "one",
    [
        Payload(Base.TRANSPORT, 2, 2, 15),
        Random(3, 0, 65536),
        Bitwise(1, 2, b"\xff" * 16, bytes(16)),
        Compare(3, b"\1\2\3", negated=True),
        Translate(True, 4, 8),
        Decide(goto("x")),
    ],
)
def test_rules_read_back(one: Expression) -> None:
    assert read(expression_wire.pack_rule(4, (one, one))) == (one, one)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("counter", [u32(1, 0)]),
        ("payload", [be32(1, 8), be32(2, 0), be32(3, 0), be32(4, 6)]),  # of the link layer
        ("meta", [be32(1, 8), be32(2, 1)]),
        ("fib", [be32(1, 8), be32(2, 1), be32(3, 1)]),
        ("fib", [be32(1, 8), be32(2, 3), be32(3, 1 | 8)]),
        ("numgen", [be32(1, 8), be32(2, 3), be32(3, 0)]),  # one after the other, not at random
        ("cmp", [be32(1, 8), be32(2, 2), nest(3, attribute(1, b"\1"))]),
        ("bitwise", [be32(1, 8), be32(2, 8), be32(3, 4), be32(6, 1)]),  # a shift
        ("nat", [be32(1, 0), be32(2, 2), be32(3, 8), be32(5, 9)]),  # of the source
        ("nat", [be32(1, 1), be32(2, 2), be32(3, 8)]),
        ("masq", []),
        ("reject", [be32(1, 1)]),
        ("dynset", [text(1, "s"), be32(3, 1), be32(4, 8), nest(7)]),
        ("immediate", [be32(1, 0), nest(2, nest(2, be32(1, 0xFFFFFFFF)))]),  # continue
        ("ct", []),
    ],
)
def test_what_is_never_written_here_is_foreign(name: str, inside: list[bytes]) -> None:
    assert read(expression(name, *inside)) == (Foreign(name),)


def test_registers_by_their_old_numbers() -> None:
    """The kernel tells registers that begin a group of four as if they were of 16 bytes."""
    inside = [be32(1, 2), be32(2, 3), be32(3, 1), be32(4, 0)]
    assert read(expression("numgen", *inside)) == (Random(3, 4),)
