"""What rules are made of: the expressions of nf_tables' little machine. Pure.

A packet's rule is a straight line of expressions. Each loads something of the packet into
registers, looks at registers (the rule ends there if that fails), or does something. Written as
expressions, a rule can do what the language of ``nft`` cannot say: look up, as part of a key, what
the expression before has drawn or found.

A register is a number 0…15: one of 16 words of 4 bytes. Values longer than a word take the
following ones too; shorter ones are padded with zeros.
"""

import enum
from typing import NamedTuple

WORD = 4
"""Bytes in a register."""


class Code(enum.IntEnum):
    """What becomes of a packet; the kernel's numbers."""

    DROP = 0
    ACCEPT = 1
    RETURN = -5
    GOTO = -4
    JUMP = -3


class Verdict(NamedTuple):
    """What becomes of a packet, and in which chain if it goes on in one."""

    code: Code
    chain: str = ""

    def __str__(self) -> str:
        return f"{self.code.name.lower()} {self.chain}".rstrip()


DROP = Verdict(Code.DROP)
RETURN = Verdict(Code.RETURN)


def goto(chain: str) -> Verdict:
    """Return the verdict that leaves this chain for another one."""
    return Verdict(Code.GOTO, chain)


def jump(chain: str) -> Verdict:
    """Return the verdict that goes through another chain and comes back."""
    return Verdict(Code.JUMP, chain)


class Base(enum.IntEnum):
    """Where an offset into a packet is counted from."""

    NETWORK = 1
    TRANSPORT = 2


class MetaKey(enum.IntEnum):
    """What is known of a packet beside its bytes."""

    MARK = 3
    IIFNAME = 6
    NFTRACE = 12
    L4PROTO = 16


class CtKey(enum.IntEnum):
    """What connection tracking knows of a packet."""

    STATE = 0
    STATUS = 2


class SetOp(enum.IntEnum):
    """What a rule does to a set."""

    ADD = 0
    UPDATE = 1
    DELETE = 2


class Payload(NamedTuple):
    """Load bytes of the packet."""

    base: Base
    offset: int
    length: int
    to: int


class Meta(NamedTuple):
    """Load what is known of the packet; MARK in the machine's byte order."""

    key: MetaKey
    to: int


class SetMeta(NamedTuple):
    """Write a register to the packet's mark; NFTRACE: have it traced, or not."""

    key: MetaKey
    source: int


class Ct(NamedTuple):
    """Load what connection tracking knows: bits, in the machine's byte order."""

    key: CtKey
    to: int


class FibType(NamedTuple):
    """Load which type of address (RTN_LOCAL …) a packet's source or destination is."""

    destination: bool
    to: int


class Random(NamedTuple):
    """Draw one of ``modulus`` numbers from ``first`` on, in the machine's byte order."""

    modulus: int
    to: int
    first: int = 0


class Bitwise(NamedTuple):
    """Put ``(source & mask) ^ xor`` into a register."""

    source: int
    to: int
    mask: bytes
    xor: bytes


class Constant(NamedTuple):
    """Put bytes into a register."""

    value: bytes
    to: int


class Compare(NamedTuple):
    """Go on only if the register's bytes are these (or are not, if negated)."""

    source: int
    value: bytes
    negated: bool = False


class Lookup(NamedTuple):
    """Go on only if the key that begins at a register is in a set (or is not, if negated)."""

    set: str
    key: int
    negated: bool = False


class LookupData(NamedTuple):
    """Load what a map has for the key that begins at a register; go on only if it has it."""

    map: str
    key: int
    to: int


class LookupVerdict(NamedTuple):
    """Do what a verdict map has for the key that begins at a register, if it has it."""

    map: str
    key: int


class ChangeSet(NamedTuple):
    """Put a key (and data) from registers into a dynamic set or map, or take it out.

    UPDATE of a key that is there renews its time-out and nothing else. Goes on only if that could
    be done: a full set ends the rule.
    """

    op: SetOp
    set: str
    key: int
    data: int | None = None
    timeout_ms: int = 0


class Decide(NamedTuple):
    """Say what becomes of the packet."""

    verdict: Verdict


class Translate(NamedTuple):
    """Translate the destination to the address and port in registers. The rule ends."""

    ipv6: bool
    address: int
    port: int


class Masquerade(NamedTuple):
    """Translate the source to the outgoing interface's address, the port drawn at random."""


class Reject(NamedTuple):
    """Refuse the packet with ICMP port unreachable."""

    ipv6: bool


class Foreign(NamedTuple):
    """An expression that others wrote and this library does not read; it cannot be written."""

    name: str


Expression = (
    Payload
    | Meta
    | SetMeta
    | Ct
    | FibType
    | Random
    | Bitwise
    | Constant
    | Compare
    | Lookup
    | LookupData
    | LookupVerdict
    | ChangeSet
    | Decide
    | Translate
    | Masquerade
    | Reject
    | Foreign
)
Rule = tuple[Expression, ...]
