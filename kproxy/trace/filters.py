"""Which packets are wanted: as a filter of sockets (classic BPF), and as rules of nf_tables. Pure.

Both look at what marks the packet and at its ports, so that on a busy node nothing else is copied.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.nft.expressions import (
    Base,
    Bitwise,
    Compare,
    Expression,
    Meta,
    MetaKey,
    Payload,
)
from kproxy.trace.packet import TOKEN_BYTES, Mark

_NET = 0xFFF00000
"""SKF_NET_OFF: offsets count from the network header, whatever the link is."""
_LDB, _LDXMSH, _LDXIMM = 0x30, 0xB1, 0x01
_LDW_X, _LDH_X = 0x40, 0x48
_JEQ, _AND, _RET = 0x15, 0x54, 0x06
_ICMP = {Family.IPV4: 1, Family.IPV6: 58}
_IP_HEADER = {Family.IPV4: 20, Family.IPV6: 40}
_ICMP_HEADER = 8
_SNAP = 256
_INSTRUCTION = struct.Struct("=HBBI")


@dataclass(frozen=True, slots=True)
class _Test:
    """Load what lies so far behind the transport header; wanted if it is the value."""

    load: int
    offset: int
    value: int


def socket_filter(family: Family, mark: Mark, source_port: int) -> bytes:
    """Return the program (``struct sock_filter``\\ s) that lets the marked packet and answers by.

    Answers that carry no mark are known by the port to which they go.
    """
    ports = [_Test(_LDH_X, 0, source_port), _Test(_LDH_X, 2, source_port)]
    inner = _ICMP_HEADER + _IP_HEADER[family]
    if mark.protocol is Protocol.TCP:
        own = [_Test(_LDW_X, 4, mark.isn), _Test(_LDW_X, 8, (mark.isn + 1) & 0xFFFFFFFF)]
        quoted = _Test(_LDW_X, inner + 4, mark.isn)
    else:
        word = int.from_bytes(mark.token[:4], "big")
        own = [*ports, _Test(_LDW_X, 8, word)]
        quoted = _Test(_LDW_X, inner + 8, word)
    body = _tests(own)
    head = [(_LDB, 0, 0, _NET), (_AND, 0, 0, 0xF0), (_JEQ, 1, 0, family << 4), (_RET, 0, 0, 0)]
    next_header = 9 if family is Family.IPV4 else 6
    if family is Family.IPV4:
        head.append((_LDXMSH, 0, 0, _NET))
    else:
        head.append((_LDXIMM, 0, 0, _IP_HEADER[family]))
    head += [
        (_LDB, 0, 0, _NET + next_header),
        (_JEQ, 0, len(body), mark.protocol.number),
        *body,
        (_JEQ, 1, 0, _ICMP[family]),
        (_RET, 0, 0, 0),
        *_tests([quoted]),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in head)


def _tests(tests: Sequence[_Test]) -> list[tuple[int, int, int, int]]:
    """Return instructions that accept if one of the tests fits, and else reject."""
    found = []
    for test in tests:
        found += [
            (test.load, 0, 0, _NET + test.offset),
            (_JEQ, 0, 1, test.value),
            (_RET, 0, 0, _SNAP),
        ]
    return [*found, (_RET, 0, 0, 0)]


def rules(family: Family, mark: Mark, source_port: int) -> list[tuple[Expression, ...]]:
    """Return what rules look for: the marked packet, its answer, and errors about it."""
    inner = _ICMP_HEADER + _IP_HEADER[family]
    icmp = _is(_ICMP[family])
    own = _is(mark.protocol.number)
    if mark.protocol is Protocol.TCP:
        isn, acknowledged = _word(mark.isn), _word(mark.isn + 1)
        syn_or_reset = (Payload(Base.TRANSPORT, 13, 1, 0), Bitwise(0, 0, b"\x06", b"\0"))
        return [
            (*own, *_loaded(4, isn)),
            (*own, *_loaded(8, acknowledged), *syn_or_reset, Compare(0, b"\0", negated=True)),
            (*icmp, *_loaded(inner + 4, isn)),
        ]
    return [
        (*own, *_loaded(8, mark.token)),
        (*own, *_loaded(2, source_port.to_bytes(2, "big"))),
        (*icmp, *_loaded(inner + 8, mark.token)),
    ]


def _is(protocol: int) -> tuple[Expression, ...]:
    return Meta(MetaKey.L4PROTO, 0), Compare(0, bytes([protocol]))


def _loaded(offset: int, value: bytes) -> tuple[Expression, ...]:
    assert len(value) <= TOKEN_BYTES
    return Payload(Base.TRANSPORT, offset, len(value), 0), Compare(0, value)


def _word(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "big")
