"""From what differs to one transaction. Pure."""

from collections.abc import Mapping, Set

from kproxy.backends.nftables import layout
from kproxy.backends.nftables.render import ABSENT, Delta, Tables, compare
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    Elements,
    FlushChain,
    Operation,
    SetSpec,
    Table,
)


def seen(table: Table | None) -> Tables:
    """Return a table that was read as one that can be compared."""
    if table is None:
        return Tables()
    return Tables(
        sets=dict(table.sets),
        chains=dict(table.chains),
        elements={name: dict(elements) for name, elements in table.elements.items()},
    )


def adoptable(table: Table | None, want: Tables) -> bool:
    """Tell whether a table that is there can become the wanted one by changes.

    Not if it is made otherwise: by kube-proxy itself, or by another version of this program. Then
    it is replaced as a whole, in one transaction, so that no packet meets anything between.
    """
    if table is None or table.unknown:
        return False
    if any(table.sets.get(name, spec) != spec for name, spec in want.sets.items()):
        return False
    for name, chain in table.chains.items():
        wanted = want.chains.get(name)
        if chain.base != (wanted.base if wanted else None):
            return False
    return layout.SERVICE_IPS in table.sets


def replacement(want: Tables, *, there: bool) -> list[Operation]:
    """Return the operations that make the wanted table from nothing, or instead of another."""
    before: list[Operation] = [DelTable()] if there else []
    return [*before, AddTable(), *operations(compare(Tables(), want), want)]


def operations(delta: Delta, want: Tables) -> list[Operation]:
    """Return the operations for what differs, in an order that the kernel accepts."""
    steps: list[Operation] = []
    for name, before in delta.sets.items():
        if name in want.sets and before is None:
            steps.append(AddSet(name, want.sets[name]))
    rules: list[Operation] = []
    gone: list[Operation] = []
    for name, known in delta.chains.items():
        wanted = want.chains.get(name)
        if known is None and wanted is not None:
            steps.append(AddChain(name, wanted.base))
        elif known is not None and known.rules:
            rules.append(FlushChain(name))
        if wanted is not None:
            rules += [AddRule(name, rule) for rule in wanted.rules]
        else:
            gone.append(DelChain(name))
    steps += rules
    for name, differing in delta.elements.items():
        steps += _elements(name, want.sets[name], differing, want.elements[name])
    steps += [DelSet(name) for name in delta.sets if name not in want.sets]
    return steps + gone


def with_stale(steps: list[Operation], stale: Set[str], want: Tables) -> list[Operation]:
    """Return the operations where some chains are still there, empty, that should be gone."""
    if not stale:
        return steps
    kept = [step for step in steps if not (isinstance(step, AddChain) and step.name in stale)]
    return kept + [DelChain(name) for name in sorted(stale) if name not in want.chains]


def _elements(
    name: str, spec: SetSpec, before: Mapping[bytes, object], now: Elements
) -> list[Operation]:
    """Return what makes the elements of one set right: a changed one goes and comes."""
    steps: list[Operation] = []
    if (
        len(before) == len(now)
        and before.keys() == now.keys()
        and set(before.values()) == {ABSENT}
    ):
        return [AddElements(name, spec, now)]
    doomed = [key for key, old in before.items() if old is not ABSENT]
    if doomed:
        steps.append(DelElements(name, spec, doomed))
    new = {key: now[key] for key in before if key in now}
    if new:
        steps.append(AddElements(name, spec, new))
    return steps


def writes(steps: list[Operation]) -> int:
    """Return how many kernel objects the operations add, change and remove."""
    return sum([_count(step) for step in steps])


def _count(step: Operation) -> int:
    match step:
        case AddElements(_, _, elements):
            return len(elements)
        case DelElements(_, _, keys):
            return len(keys)
    return 1
