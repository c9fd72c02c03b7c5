"""Tables in readable words, close to those of ``nft list``. Pure.

Expressions work on registers; here they are run with words instead of values, so that a rule
reads as ``meta l4proto . ip daddr . th dport vmap @service-ips``.
"""

import ipaddress
import sys
from collections.abc import Callable, Mapping
from typing import Any

from kproxy.kernel.inet import PROTOCOLS
from kproxy.kernel.nft.expressions import (
    WORD,
    Base,
    Bitwise,
    ChangeSet,
    Compare,
    Constant,
    Ct,
    Decide,
    FibType,
    Foreign,
    Lookup,
    LookupData,
    LookupVerdict,
    Masquerade,
    Meta,
    Payload,
    Random,
    Reject,
    Rule,
    SetMeta,
    SetOp,
    Translate,
    Verdict,
)
from kproxy.kernel.nft.types import Chain, Data, Field, Fields, SetSpec

_PAYLOADS = {
    (Base.NETWORK, 12, 4): "ip saddr",
    (Base.NETWORK, 16, 4): "ip daddr",
    (Base.NETWORK, 8, 16): "ip6 saddr",
    (Base.NETWORK, 24, 16): "ip6 daddr",
    (Base.TRANSPORT, 0, 2): "th sport",
    (Base.TRANSPORT, 2, 2): "th dport",
}
_OPS = {SetOp.ADD: "add", SetOp.UPDATE: "update", SetOp.DELETE: "delete"}


def spec(one: SetSpec) -> str:
    """Return how a set is made."""
    words = [" . ".join(part.name.lower() for part in one.key)]
    if one.verdicts or one.data:
        data = " . ".join(part.name.lower() for part in one.data)
        words.append(f": {data or 'verdict'}")
    for name in ("interval", "dynamic"):
        if getattr(one, name):
            words.append(name)
    return " ".join(words)


def fields(kinds: Fields, value: bytes) -> str:
    """Return a concatenation; of a range, both ends."""
    length = sum(kind.padded for kind in kinds)
    if length and len(value) == 2 * length:
        return f"{fields(kinds, value[:length])} to {fields(kinds, value[length:])}"
    if len(value) != length:
        return value.hex()
    parts = []
    for kind in kinds:
        parts.append(_field(kind, value[: kind.length]))
        value = value[kind.padded :]
    return " . ".join(parts)


def data(one: SetSpec, value: Data) -> str:
    """Return what an element's key stands for; ``there`` in a set."""
    if isinstance(value, bytes):
        return fields(one.data, value)
    return str(value) if isinstance(value, Verdict) else "there"


def chain(one: Chain, sets: Mapping[str, SetSpec]) -> list[str]:
    """Return a chain line by line: where it stands, and its rules."""
    lines = []
    if one.base is not None:
        hook = one.base.hook.name.lower()
        lines.append(f"type {one.base.type} hook {hook} priority {one.base.priority}")
    return lines + [rule(each, sets) for each in one.rules]


def rule(one: Rule, sets: Mapping[str, SetSpec]) -> str:
    """Return a rule as one line."""
    return _Reader(sets).read(one)


def _field(kind: Field, value: bytes) -> str:
    match kind:
        case Field.IPV4 | Field.IPV6:
            return str(ipaddress.ip_address(value))
        case Field.PROTOCOL:
            return str(PROTOCOLS.get(value[0], value[0]))
        case Field.PORT:
            return str(int.from_bytes(value, "big"))
        case Field.NUMBER:
            return str(int.from_bytes(value, sys.byteorder))


class _Reader:
    """Runs the expressions of one rule with words in the registers."""

    def __init__(self, sets: Mapping[str, SetSpec]) -> None:
        self._sets = sets
        self._registers: dict[int, str] = {}
        self._said: list[str] = []

    def read(self, one: Rule) -> str:
        for expression in one:
            _READERS[type(expression)](self, expression)
        return " ".join(self._said)

    def _get(self, register: int) -> str:
        return self._registers.get(register, f"register {register}")

    def _key(self, name: str, register: int) -> str:
        """Return the words of the fields that make a key."""
        parts = []
        known = self._sets.get(name)
        for kind in known.key if known else ():
            parts.append(self._get(register))
            register += kind.padded // WORD
        return " . ".join(parts) or self._get(register)

    def payload(self, one: Payload) -> None:
        place = (one.base, one.offset, one.length)
        otherwise = f"@{one.base.name.lower()},{one.offset},{one.length}"
        self._registers[one.to] = _PAYLOADS.get(place, otherwise)

    def meta(self, one: Meta) -> None:
        self._registers[one.to] = f"meta {one.key.name.lower()}"

    def set_meta(self, one: SetMeta) -> None:
        self._said.append(f"meta {one.key.name.lower()} set {self._get(one.source)}")

    def ct(self, one: Ct) -> None:
        self._registers[one.to] = f"ct {one.key.name.lower()}"

    def fib(self, one: FibType) -> None:
        self._registers[one.to] = f"fib {'daddr' if one.destination else 'saddr'} type"

    def random(self, one: Random) -> None:
        first = f" offset {one.first}" if one.first else ""
        self._registers[one.to] = f"numgen random mod {one.modulus}{first}"

    def bitwise(self, one: Bitwise) -> None:
        words = self._get(one.source)
        if set(one.mask) != {0xFF}:
            words += f" & {self._value(words, one.mask)}"
        if any(one.xor):
            words += f" ^ 0x{_number(one.xor):x}"
        self._registers[one.to] = words

    def constant(self, one: Constant) -> None:
        self._registers[one.to] = f"0x{one.value.hex()}"

    def compare(self, one: Compare) -> None:
        sign = "!=" if one.negated else "=="
        words = self._get(one.source)
        self._said.append(f"{words} {sign} {self._value(words, one.value)}")

    def _value(self, words: str, value: bytes) -> str:
        """Return a value that is compared or mixed with what these words name."""
        if words.startswith("meta iifname"):
            # Of a name that is to begin so there is no closing zero.
            name = value.rstrip(b"\0").decode(errors="replace")
            return f'"{name}"' if value.endswith(b"\0") else f'"{name}*"'
        if words.startswith(("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr")):
            return str(ipaddress.ip_address(value))
        return f"0x{_number(value):x}"

    def lookup(self, one: Lookup) -> None:
        negated = "!= " if one.negated else ""
        self._said.append(f"{self._key(one.set, one.key)} {negated}@{one.set}")

    def lookup_data(self, one: LookupData) -> None:
        self._registers[one.to] = f"{self._key(one.map, one.key)} map @{one.map}"

    def lookup_verdict(self, one: LookupVerdict) -> None:
        self._said.append(f"{self._key(one.map, one.key)} vmap @{one.map}")

    def change(self, one: ChangeSet) -> None:
        timeout = f" timeout {one.timeout_ms // 1000}s" if one.timeout_ms else ""
        value = f" : {self._get(one.data)}" if one.data is not None else ""
        element = f"{self._key(one.set, one.key)}{timeout}{value}"
        self._said.append(f"{_OPS[one.op]} @{one.set} {{ {element} }}")

    def decide(self, one: Decide) -> None:
        self._said.append(str(one.verdict))

    def translate(self, one: Translate) -> None:
        port = self._registers.get(one.port)
        place = self._get(one.address) + (f" : {port}" if port else "")
        self._said.append(f"dnat to {place}")

    def masquerade(self, _: Masquerade) -> None:
        self._said.append("masquerade fully-random")

    def reject(self, _: Reject) -> None:
        self._said.append("reject")

    def foreign(self, one: Foreign) -> None:
        self._said.append(f"[{one.name}]")


_READERS: Mapping[type, Callable[[_Reader, Any], None]] = {
    Payload: _Reader.payload,
    Meta: _Reader.meta,
    SetMeta: _Reader.set_meta,
    Ct: _Reader.ct,
    FibType: _Reader.fib,
    Random: _Reader.random,
    Bitwise: _Reader.bitwise,
    Constant: _Reader.constant,
    Compare: _Reader.compare,
    Lookup: _Reader.lookup,
    LookupData: _Reader.lookup_data,
    LookupVerdict: _Reader.lookup_verdict,
    ChangeSet: _Reader.change,
    Decide: _Reader.decide,
    Translate: _Reader.translate,
    Masquerade: _Reader.masquerade,
    Reject: _Reader.reject,
    Foreign: _Reader.foreign,
}


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder if len(value) == WORD else "big")
