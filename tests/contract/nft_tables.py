"""A table with one of everything, for the contract of nftables."""

import pytest

from kproxy.backends.nftables import features
from kproxy.desired import model
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.expressions import (
    DROP,
    RETURN,
    Base,
    Bitwise,
    ChangeSet,
    Compare,
    Constant,
    Ct,
    CtKey,
    Decide,
    FibType,
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
    jump,
)
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddSet,
    AddTable,
    BaseChain,
    Field,
    Hook,
    NftClient,
    SetSpec,
    Table,
)

PLACE = (Field.PROTOCOL, Field.IPV4, Field.PORT)
VERDICTS = SetSpec(PLACE, verdicts=True)
ENDPOINTS = SetSpec((*PLACE, Field.NUMBER), (Field.IPV4, Field.PORT))
ADDRESSES = SetSpec((Field.IPV4,))
RANGES = SetSpec((*PLACE, Field.IPV4), interval=True)
CLIENTS = SetSpec((Field.IPV4,), dynamic=True, max_elements=16)
SETS = {
    "verdicts": VERDICTS,
    "endpoints": ENDPOINTS,
    "addresses": ADDRESSES,
    "ranges": RANGES,
    "clients": CLIENTS,
}
WEB = b"\x06\0\0\0\x0a\x60\0\x0a\0\x50\0\0"
DNS = b"\x11\0\0\0\x0a\x60\0\x0b\0\x35\0\0"
ONE = WEB + b"\1\0\0\0"
TO_ONE = b"\x0a\x80\0\5\x1f\x90\0\0"
RANGE = WEB + b"\xc6\x33\x64\0" + WEB + b"\xc6\x33\x64\xff"

LOADS = (
    Meta(MetaKey.L4PROTO, 0),
    Payload(Base.NETWORK, 16, 4, 1),
    Payload(Base.TRANSPORT, 2, 2, 2),
    Payload(Base.NETWORK, 12, 4, 3),
)
RULES: dict[str, Rule] = {
    "payload, compare": (Payload(Base.NETWORK, 12, 4, 0), Compare(0, b"\x0a\0\0\1"), Decide(DROP)),
    "negated": (Meta(MetaKey.L4PROTO, 9), Compare(9, b"\6", negated=True), Decide(RETURN)),
    "interface": (Meta(MetaKey.IIFNAME, 4), Compare(4, b"cali"), Decide(jump("other"))),
    "whole interface": (Meta(MetaKey.IIFNAME, 4), Compare(4, b"br0".ljust(16, b"\0"))),
    "bits": (
        Ct(CtKey.STATE, 0),
        Bitwise(0, 0, b"\x08\0\0\0", bytes(4)),
        Compare(0, bytes(4), negated=True),
    ),
    "status": (Ct(CtKey.STATUS, 5), Bitwise(5, 15, b"\x20\0\0\0", bytes(4))),
    "mark": (
        Meta(MetaKey.MARK, 0),
        Bitwise(0, 0, b"\xff\xbf\xff\xff", b"\0\x40\0\0"),
        SetMeta(MetaKey.MARK, 0),
    ),
    "source type": (FibType(False, 0), Compare(0, b"\2\0\0\0")),
    "destination type": (FibType(True, 3), Compare(3, b"\2\0\0\0")),
    "lookup": (Payload(Base.NETWORK, 16, 4, 1), Lookup("addresses", 1), Decide(goto("other"))),
    "negated lookup": (*LOADS, Lookup("ranges", 0, negated=True), Decide(DROP)),
    "verdict": (*LOADS, LookupVerdict("verdicts", 0)),
    "translate": (
        *LOADS,
        Random(3, 3, 65536),
        LookupData("endpoints", 0, 3),
        Translate(False, 3, 4),
    ),
    "constants": (Constant(b"\x0a\0\0\1", 0), Constant(b"\0\x50\0\0", 1), Translate(False, 0, 1)),
    "update": (
        Payload(Base.NETWORK, 12, 4, 0),
        ChangeSet(SetOp.UPDATE, "clients", 0, timeout_ms=10_800_000),
    ),
    "add": (Payload(Base.NETWORK, 12, 4, 0), ChangeSet(SetOp.ADD, "clients", 0, timeout_ms=1000)),
    "delete": (Payload(Base.NETWORK, 12, 4, 0), ChangeSet(SetOp.DELETE, "clients", 0)),
    "masquerade": (Masquerade(),),
    "reject": (Reject(False),),
    "nothing": (),
}  # fmt: skip


def base_of(name: str) -> BaseChain:
    """Return a base chain in which a rule may stand."""
    if name in ("translate", "constants"):
        return BaseChain("nat", Hook.PREROUTING, -100)
    if name == "masquerade":
        return BaseChain("nat", Hook.POSTROUTING, 100)
    return BaseChain("filter", Hook.FORWARD, -110)


def needs_nftables(client: Nft) -> None:
    if why := client.unsupported(features.trial(model.Family.IPV4)):
        pytest.skip(f"needs a kernel that can: {why}")


def prepared(nft: NftClient) -> None:
    """Make the sets and a chain without rules."""
    nft.run(
        [
            AddTable(),
            *[AddSet(name, spec) for name, spec in SETS.items()],
            AddChain("other"),
            AddChain("front", BaseChain("filter", Hook.FORWARD, 0)),
            AddElements("addresses", ADDRESSES, {b"\x0a\0\0\1": None}),
            AddElements("verdicts", VERDICTS, {WEB: goto("other")}),
            AddElements("endpoints", ENDPOINTS, {ONE: TO_ONE}),
        ]
    )


def table(nft: NftClient) -> Table:
    found = nft.read()
    assert found is not None
    return found
