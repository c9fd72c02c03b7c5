"""In what rules differ from those wanted, in words for a user.

Shared by the modes that use iptables, beside :mod:`kproxy.backends.chains`, which computes what to
write. Loaded only when somebody asks. Pure.
"""

from collections.abc import Callable, Iterator, Sequence

from kproxy.backends import chains
from kproxy.backends.base import Deviation, Difference
from kproxy.backends.chains import Wanted, WantedTable
from kproxy.desired.model import ServicePortName
from kproxy.kernel.iptables.types import Chain, Rule, RuleSet, Table

Owner = Callable[[str, str, Rule], ServicePortName | None]
"""Table, chain and rule (empty: the whole chain) → whose it is."""


def nobody(_table: str, _chain: str, _rule: Rule) -> None:
    """Tell of every rule that it is no single service's."""


def differences(have: RuleSet, want: Wanted, owner: Owner = nobody) -> list[Difference]:
    """Return every chain and rule that :func:`chains.plan` would write or remove."""
    found: list[Difference] = []
    for table in chains.TABLES:
        wanted = want.get(table, WantedTable())
        for one in _of_table(have.get(table, {}), wanted):
            chain, rule = one.name, one.want or one.have
            if one.kind == "chain":
                rule = ""
            found.append(
                Difference(
                    deviation=one.deviation,
                    kind=one.kind,
                    name=f"{table} {chain}",
                    want=one.want,
                    have=one.have,
                    service=owner(table, chain, rule),
                )
            )
    return found


def _of_table(have: Table, want: WantedTable) -> Iterator[Difference]:
    for chain, rules in want.chains.items():
        if chain not in have:
            yield _one(Deviation.MISSING, "chain", chain, want=_count(rules))
        elif have[chain].rules != tuple(rules):
            yield from _of_chain(chain, have[chain].rules, rules)
    for chain, rules in (*want.jumps.items(), *want.shared.items()):
        there = have.get(chain, Chain()).rules
        for rule in rules:
            if rule not in there:
                yield _one(Deviation.MISSING, "rule", chain, want=rule)
    for rule in chains.stray_jumps(have, want):
        yield _one(Deviation.UNEXPECTED, "rule", rule.split(" ", 2)[1], have=rule)
    for chain in chains.stale_chains(have, want):
        yield _one(Deviation.UNEXPECTED, "chain", chain, have=_count(have[chain].rules))


def _of_chain(chain: str, have: Sequence[Rule], want: Sequence[Rule]) -> Iterator[Difference]:
    wanted, there = set(want), set(have)
    missing = [rule for rule in want if rule not in there]
    unexpected = [rule for rule in have if rule not in wanted]
    for rule in missing:
        yield _one(Deviation.MISSING, "rule", chain, want=rule)
    for rule in unexpected:
        yield _one(Deviation.UNEXPECTED, "rule", chain, have=rule)
    if not missing and not unexpected:
        yield _one(
            Deviation.DIFFERENT,
            "chain",
            chain,
            want=_count(want),
            have=f"{_count(have)}, in another order or more than once",
        )


def _one(
    deviation: Deviation, kind: str, chain: str, *, want: str = "", have: str = ""
) -> Difference:
    return Difference(deviation=deviation, kind=kind, name=chain, want=want, have=have)


def _count(rules: Sequence[Rule]) -> str:
    return f"{len(rules)} {'rule' if len(rules) == 1 else 'rules'}"
