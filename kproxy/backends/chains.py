"""Which iptables chains belong to the proxy, and what turns the rules that are into those wanted.

Shared by the modes that use iptables. Pure: rules are text in the form of ``iptables-save``.
A chain of ours that is right is not touched; one that is wrong is replaced as a whole; rules of
built-in chains are only added or removed singly, because these chains belong to everybody.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.desired.model import Prefix
from kproxy.kernel.iptables.text import target_of
from kproxy.kernel.iptables.types import BUILTIN_CHAINS, Chain, Rule, RuleSet, Table, TableChange

TABLES = ("filter", "nat")
"""The tables in which the proxy has chains; filter first, so that no packet is translated before
the rules that refuse it are there."""

OUR_CHAINS = frozenset({
    "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-NODE-PORT",
    "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-LOAD-BALANCER", "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER", "KUBE-PROXY-CANARY",
})  # fmt: skip
"""All names that kube-proxy uses: a node where it ran before is adopted. KUBE-FIREWALL,
KUBE-MARK-DROP and KUBE-KUBELET-CANARY are the kubelet's."""

OUR_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")


@dataclass(frozen=True, slots=True)
class WantedTable:
    """What one table should hold of ours."""

    chains: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    jumps: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """Built-in chain → the rules in it that lead to ours, in their order."""
    shared: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """Chain of another program → rules that must be in it. They are added, never removed: whose
    they are cannot be told, for that program may have written the same."""


Wanted = Mapping[str, WantedTable]
NOTHING: Wanted = {}


def is_ours(chain: str) -> bool:
    """Return whether the proxy owns a chain of this name."""
    return chain in OUR_CHAINS or chain.startswith(OUR_PREFIXES)


def any_ours(have: RuleSet) -> bool:
    """Return whether there is any chain of ours."""
    return any(is_ours(chain) for table in have.values() for chain in table)


def plan(have: RuleSet, want: Wanted) -> list[TableChange]:
    """Return the changes that turn ``have`` into ``want``; empty when all is right."""
    changes = (_plan_table(name, have.get(name, {}), want.get(name)) for name in TABLES)
    return [change for change in changes if change is not None]


def _plan_table(name: str, have: Table, want: WantedTable | None) -> TableChange | None:
    want = want or WantedTable()
    replace = {
        chain: tuple(rules)
        for chain, rules in want.chains.items()
        if chain not in have or have[chain].rules != tuple(rules)
    }
    insert = [
        rule
        for chain, rules in want.jumps.items()
        for rule in rules
        if chain not in have or rule not in have[chain].rules
    ]
    append = []
    for chain, rules in want.shared.items():
        if chain not in have:
            replace[chain] = tuple(rules)
        else:
            append += [rule for rule in rules if rule not in have[chain].rules]
    stale = stale_chains(have, want)
    remove = stray_jumps(have, want)
    held = _held_by_others(have, stale)
    replace.update({chain: () for chain in stale if chain in held and have[chain].rules})
    delete = tuple(chain for chain in stale if chain not in held)
    if not (replace or insert or append or remove or delete):
        return None
    return TableChange(
        table=name,
        replace=replace,
        remove=remove,
        insert=tuple(insert),
        append=tuple(append),
        delete=delete,
    )


def stale_chains(have: Table, want: WantedTable) -> tuple[str, ...]:
    """Return the chains of ours that should not be there."""
    return tuple([chain for chain in have if chain not in want.chains and is_ours(chain)])


def stray_jumps(have: Table, want: WantedTable) -> tuple[Rule, ...]:
    """Return the rules of built-in chains that lead to chains of ours and should not be there."""
    wanted = {rule for rules in want.jumps.values() for rule in rules}
    return tuple(rule for rule in _jumps_to_ours(have) if rule not in wanted)


def _jumps_to_ours(have: Table) -> Iterator[Rule]:
    for name, chain in have.items():
        if chain.policy is not None:
            for rule in chain.rules:
                if (
                    "KUBE-" in rule
                    and rule.startswith(f"-A {name} ")
                    and is_ours(target_of(rule) or "")
                ):
                    yield rule


def _held_by_others(have: Table, stale: Sequence[str]) -> set[str | None]:
    """Return the chains to which foreign rules jump: they can only be emptied."""
    if not stale:
        return set()
    foreign = {
        target_of(rule)
        for name, chain in have.items()
        if chain.policy is None and not is_ours(name)
        for rule in chain.rules
    }
    return foreign & set(stale)


def in_steps(
    changes: Sequence[TableChange], have: RuleSet, chains_at_once: int | None
) -> list[TableChange]:
    """Split what makes very many new chains, so that each table is changed several times.

    A new chain to which nothing leads yet has no effect, so packets see no difference: endpoints'
    chains come first, then services', and what leads to those, and all that changes or removes
    anything, in one last change. ``chains_at_once`` None: there is no need to split.
    """
    if chains_at_once is None:
        return list(changes)
    return [step for change in changes for step in _steps(change, have, chains_at_once)]


def _steps(change: TableChange, have: RuleSet, chains_at_once: int) -> Iterator[TableChange]:
    known = have.get(change.table, {})
    new = [chain for prefix in _BELOW for chain in change.replace if chain.startswith(prefix)]
    new = [chain for chain in new if chain not in known]
    early = frozenset(new)
    if len(new) <= chains_at_once:
        yield change
        return
    for at in range(0, len(new), chains_at_once):
        part = new[at : at + chains_at_once]
        yield TableChange(change.table, replace={chain: change.replace[chain] for chain in part})
    last = {chain: rules for chain, rules in change.replace.items() if chain not in early}
    yield TableChange(
        change.table, last, change.remove, change.insert, change.append, change.delete
    )


_BELOW = ("KUBE-MARK-MASQ", "KUBE-SEP-", "KUBE-SVC-", "KUBE-SVL-")
"""Chains to which only chains lead that come after them here, or built-in ones."""


def applied(have: RuleSet, changes: Sequence[TableChange]) -> RuleSet:
    """Return what the kernel holds after it has accepted the changes."""
    after = dict(have)
    for change in changes:
        table = dict(after.get(change.table, {}))
        for name in BUILTIN_CHAINS[change.table]:
            table.setdefault(name, Chain(policy="ACCEPT"))
        for name, rules in change.replace.items():
            table[name] = Chain(tuple(rules))
        for rule in change.remove:
            chain = table[_chain_of(rule)]
            at = chain.rules.index(rule)
            table[_chain_of(rule)] = Chain(chain.rules[:at] + chain.rules[at + 1 :], chain.policy)
        for rule in reversed(change.insert):
            chain = table[_chain_of(rule)]
            table[_chain_of(rule)] = Chain((rule, *chain.rules), chain.policy)
        for rule in change.append:
            chain = table[_chain_of(rule)]
            table[_chain_of(rule)] = Chain((*chain.rules, rule), chain.policy)
        for name in change.delete:
            del table[name]
        after[change.table] = table
    return after


def others_after(have: RuleSet, changes: Sequence[TableChange]) -> RuleSet:
    """Return the chains of others, as they are when the kernel has accepted the changes."""
    others = {table: _others(chains) for table, chains in have.items()}
    only = [
        TableChange(
            table=change.table,
            replace={name: rules for name, rules in change.replace.items() if not is_ours(name)},
            remove=change.remove,
            insert=change.insert,
            append=change.append,
        )
        for change in changes
    ]
    return applied(others, only)


def _others(table: Table) -> Table:
    return {
        name: chain
        for name, chain in table.items()
        if not name.startswith(OUR_PREFIXES) and name not in OUR_CHAINS
    }


def _chain_of(rule: Rule) -> str:
    return rule.split(" ", 2)[1]


def writes(changes: Sequence[TableChange]) -> int:
    """Return how many chains and rules of built-in chains the changes touch."""
    return sum(
        len(change.replace)
        + len(change.remove)
        + len(change.insert)
        + len(change.append)
        + len(change.delete)
        for change in changes
    )


def rules_written(change: TableChange) -> int:
    """Return how many rules a change writes into chains of ours."""
    return sum([len(rules) for chain, rules in change.replace.items() if is_ours(chain)])


def not_from(cluster_cidrs: Sequence[Prefix]) -> str:
    """Return the match of sources that are not pods; kube-proxy, too, knows one range a family."""
    return f"! -s {cluster_cidrs[0]}"


def masquerade_marked(mark: str) -> tuple[str, ...]:
    """Return the rules of KUBE-POSTROUTING that masquerade what is marked.

    The mark is taken off first, so that it is not seen again where the packet passes once more
    (a tunnel, a node in a namespace).
    """
    return (
        f"-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --set-xmark {mark}/0x0",
        "-A KUBE-POSTROUTING -m comment --comment"
        ' "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    )
