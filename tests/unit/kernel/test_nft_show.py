"""Rules and elements of nftables in words."""

import pytest

from kproxy.kernel.nft import show
from kproxy.kernel.nft.expressions import (
    DROP,
    Base,
    Bitwise,
    ChangeSet,
    Compare,
    Constant,
    Ct,
    CtKey,
    Decide,
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
    goto,
)
from kproxy.kernel.nft.types import BaseChain, Chain, Field, Hook, SetSpec

SETS = {
    "endpoints": SetSpec(
        (Field.PROTOCOL, Field.IPV4, Field.PORT, Field.NUMBER), (Field.IPV4, Field.PORT)
    ),
    "services": SetSpec((Field.PROTOCOL, Field.IPV6, Field.PORT), verdicts=True),
    "clients": SetSpec((Field.IPV4,), dynamic=True),
}
PLACE = (
    Meta(MetaKey.L4PROTO, 0),
    Payload(Base.NETWORK, 16, 4, 1),
    Payload(Base.TRANSPORT, 2, 2, 2),
)

RULES: list[tuple[Rule, str]] = [
    (
        (*PLACE, Random(3, 3), LookupData("endpoints", 0, 3), Translate(False, 3, 4)),
        "dnat to meta l4proto . ip daddr . th dport . numgen random mod 3 map @endpoints",
    ),
    (
        (
            Meta(MetaKey.L4PROTO, 0),
            Payload(Base.NETWORK, 24, 16, 1),
            Payload(Base.TRANSPORT, 2, 2, 5),
            LookupVerdict("services", 0),
        ),
        "meta l4proto . ip6 daddr . th dport vmap @services",
    ),
    (
        (
            Payload(Base.NETWORK, 12, 4, 0),
            Bitwise(0, 0, b"\xff\x80\0\0", bytes(4)),
            Compare(0, b"\x0a\x80\0\0", negated=True),
            Meta(MetaKey.MARK, 0),
            Bitwise(0, 0, b"\xff\xff\xff\xff", b"\0\x40\0\0"),
            SetMeta(MetaKey.MARK, 0),
        ),
        "ip saddr & 255.128.0.0 != 10.128.0.0 meta mark set meta mark ^ 0x4000",
    ),
    (
        (Meta(MetaKey.IIFNAME, 0), Compare(0, b"cali"), Decide(DROP)),
        'meta iifname == "cali*" drop',
    ),
    (
        (Meta(MetaKey.IIFNAME, 0), Compare(0, b"br0".ljust(16, b"\0")), Decide(goto("x"))),
        'meta iifname == "br0" goto x',
    ),
    (
        (
            Payload(Base.NETWORK, 12, 4, 0),
            Lookup("clients", 0),
            ChangeSet(SetOp.UPDATE, "clients", 0, timeout_ms=60_000),
            Constant(b"\x0a\0\0\1", 1),
            Constant(b"\0\x50\0\0", 2),
            Translate(False, 1, 2),
        ),
        "ip saddr @clients update @clients { ip saddr timeout 60s }"
        " dnat to 0x0a000001 : 0x00500000",
    ),
    (
        (Ct(CtKey.STATE, 0), Bitwise(0, 0, b"\x08\0\0\0", bytes(4)), Compare(0, bytes(4), True)),
        "ct state & 0x8 != 0x0",
    ),
    ((FibType(False, 0), Compare(0, b"\2\0\0\0"), Reject(False)), "fib saddr type == 0x2 reject"),
    (
        (Lookup("unknown", 4, negated=True), Masquerade()),
        "register 4 != @unknown masquerade fully-random",
    ),
    ((Foreign("counter"),), "[counter]"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "text"), RULES, ids=[text for _, text in RULES])
def test_rules(rule: Rule, text: str) -> None:
    assert show.rule(rule, SETS) == text


def test_chains() -> None:
    chain = Chain(((Decide(DROP),),), BaseChain("filter", Hook.FORWARD, -110))
    assert show.chain(chain, SETS) == ["type filter hook forward priority -110", "drop"]


def test_elements() -> None:
    key = b"\x06\0\0\0\x0a\x60\0\x0a\0\x50\0\0\1\0\0\0"
    spec = SETS["endpoints"]
    assert show.fields(spec.key, key) == "tcp . 10.96.0.10 . 80 . 1"
    assert show.data(spec, b"\x0a\0\0\1\x1f\x90\0\0") == "10.0.0.1 . 8080"
    assert show.data(SETS["services"], goto("x")) == "goto x"
    assert show.fields((Field.IPV4,), bytes(4) + b"\0\0\0\xff") == "0.0.0.0 to 0.0.0.255"
    assert show.fields((Field.IPV4,), b"\1") == "01"


def test_sets() -> None:
    assert show.spec(SETS["endpoints"]) == "protocol . ipv4 . port . number : ipv4 . port"
    assert show.spec(SETS["services"]) == "protocol . ipv6 . port : verdict"
    assert show.spec(SETS["clients"]) == "ipv4 dynamic"
