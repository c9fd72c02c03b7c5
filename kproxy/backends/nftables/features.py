"""What nftables mode asks of a kernel, one operation for each feature. Pure."""

from kproxy.backends.nftables import layout
from kproxy.desired import model
from kproxy.kernel.nft.expressions import (
    DROP,
    ChangeSet,
    Compare,
    Ct,
    CtKey,
    Decide,
    FibType,
    LookupData,
    LookupVerdict,
    Masquerade,
    Meta,
    MetaKey,
    Random,
    Reject,
    Rule,
    SetOp,
    Translate,
)
from kproxy.kernel.nft.types import (
    AddChain,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    Field,
    Hook,
    Operation,
    SetSpec,
)


def trial(family: model.Family) -> list[tuple[str, Operation]]:
    """Return operations to be tried and not kept, each with the feature that it needs."""
    words = layout.WORDS[family]
    place = (Field.PROTOCOL, words.address, Field.PORT)
    endpoint = (words.address, Field.PORT)
    tries: list[tuple[str, Operation]] = [
        (f"tables for {family}", AddTable()),
        ("verdict maps", AddSet("trial-verdicts", SetSpec(place, verdicts=True))),
        (
            "maps with concatenated keys",
            AddSet("trial-endpoints", SetSpec((*place, Field.NUMBER), endpoint)),
        ),
        (
            "concatenations of ranges",
            AddSet("trial-ranges", SetSpec((*place, words.address), interval=True)),
        ),
        (
            "sets that rules change",
            AddSet("trial-clients", SetSpec((words.address,), dynamic=True, max_elements=1)),
        ),
        ("chains of type nat", AddChain("trial-nat", BaseChain("nat", Hook.PREROUTING, -100))),
        (
            "chains of type filter",
            AddChain("trial-filter", BaseChain("filter", Hook.FORWARD, 0)),
        ),
        ("chains", AddChain("trial")),
    ]
    return tries + [(name, AddRule("trial", rule)) for name, rule in _rules(words).items()]


def _rules(words: layout.Words) -> dict[str, Rule]:
    key = 2 + words.words
    source = (Meta(MetaKey.L4PROTO, 0),)
    return {
        "ct": (Ct(CtKey.STATE, 0), Compare(0, bytes(4), negated=True), Decide(DROP)),
        "fib": (FibType(destination=True, to=0), Compare(0, bytes(4)), Decide(DROP)),
        "numgen": (Random(2, 0), Compare(0, bytes(4)), Decide(DROP)),
        "maps to verdicts": (*_zeros(words), LookupVerdict("trial-verdicts", 0)),
        "dnat": (
            *_zeros(words),
            Random(2, key),
            LookupData("trial-endpoints", 0, key),
            Translate(words.ipv6, key, key + words.words),
        ),
        "masquerade": (*source, Masquerade()),
        "reject": (*source, Reject(words.ipv6)),
        "sets changed by rules": (
            *_zeros(words),
            ChangeSet(SetOp.UPDATE, "trial-clients", 1, timeout_ms=1000),
        ),
    }


def _zeros(words: layout.Words) -> Rule:
    """Return loads into all registers of a place."""
    return tuple([Meta(MetaKey.L4PROTO, register) for register in range(2 + words.words)])
