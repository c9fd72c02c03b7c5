"""One nftables table in memory that refuses what the kernel refuses, with the same errno."""

import copy
import errno
from collections.abc import Callable, Sequence
from typing import Any

from kproxy.kernel.inet import Family
from kproxy.kernel.netlink import Refusal, kernel_error
from kproxy.kernel.nft.expressions import (
    ChangeSet,
    Code,
    Decide,
    Foreign,
    Lookup,
    LookupData,
    LookupVerdict,
    Rule,
    Verdict,
)
from kproxy.kernel.nft.types import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    BaseChain,
    Chain,
    Data,
    DelChain,
    DelElements,
    DelSet,
    DelTable,
    FlushChain,
    Operation,
    SetSpec,
    Table,
    describe,
    wrong_length,
)

NAME_LENGTH_MAX = 255


class _Contents:
    """What is in the table."""

    def __init__(self) -> None:
        self.sets: dict[str, SetSpec] = {}
        self.elements: dict[str, dict[bytes, Data]] = {}
        self.chains: dict[str, list[Rule]] = {}
        self.bases: dict[str, BaseChain] = {}

    def copy(self) -> "_Contents":
        other = _Contents()
        other.sets = dict(self.sets)
        other.elements = {name: dict(one) for name, one in self.elements.items()}
        other.chains = {name: list(one) for name, one in self.chains.items()}
        other.bases = dict(self.bases)
        return other


class FakeNft:
    """Implements :class:`~kproxy.kernel.nft.types.NftClient`.

    Faults to order: ``fail_run[n] = errno`` makes the n-th transaction from now (0 is the next)
    fail as a whole; ``missing`` is the answer of :meth:`unsupported`. ``written`` holds every
    transaction that was tried. With ``late`` this is a kernel before 6.2: it finds only some time
    after a transaction, when :meth:`settle` is called, that chains are not led to any more.
    """

    def __init__(self, family: Family = Family.IPV4) -> None:
        self.missing: str | None = None
        self.fail_run: dict[int, int] = {}
        self.written: list[tuple[Operation, ...]] = []
        self.reads = 0
        self.late = False
        self._busy: set[str] = set()
        self._family = family
        self._contents: _Contents | None = None
        self._generation = 1

    def unsupported(self, operations: Sequence[tuple[str, Operation]]) -> str | None:
        """Return what ``missing`` says, or the features whose operations are refused here."""
        contents = self._contents.copy() if self._contents else None
        refused = []
        for feature, operation in operations:
            try:
                contents, _ = _do(contents, operation)
            except _Refused:
                refused.append(feature)
        return self.missing or (f"lacks: {', '.join(refused)}" if refused else None)

    def run(self, transaction: Sequence[Operation]) -> None:
        """Do all operations in order: all of them or none."""
        if not transaction:
            return
        self.written.append(tuple(copy.deepcopy(list(transaction))))
        fault = self.fail_run.get(0)
        self.fail_run = {at - 1: code for at, code in self.fail_run.items() if at}
        if fault is not None:
            raise kernel_error("change the table", Refusal(fault))
        contents = self._contents.copy() if self._contents else None
        changes = 0
        busy = set(self._busy)
        for operation in transaction:
            try:
                busy |= _led_to(contents, operation) if self.late else set()
                if isinstance(operation, DelChain) and operation.name in busy:
                    raise _Refused(errno.EBUSY)
                contents, changed = _do(contents, operation)
                changes += changed
            except _Refused as refused:
                raise kernel_error(describe(operation), Refusal(refused.errno)) from None
        self._contents, self._busy = contents, busy
        self._generation += changes > 0

    def settle(self) -> None:
        """Let the time pass after which a kernel has noticed everything."""
        self._busy = set()

    def read(self) -> Table | None:
        """Return the whole table; None if there is none."""
        self.reads += 1
        found = self._contents.copy() if self._contents else None
        if found is None:
            return None
        chains = {
            name: Chain(tuple(rules), found.bases.get(name))
            for name, rules in found.chains.items()
        }
        elements = {
            name: one for name, one in found.elements.items() if not found.sets[name].dynamic
        }
        return Table(sets=found.sets, elements=elements, chains=chains)

    def exists(self) -> bool:
        """Tell whether the table is there."""
        return self._contents is not None

    def generation(self) -> int:
        """Return the number of the rule set."""
        return self._generation

    def change_elsewhere(self) -> None:
        """Raise the number of the rule set, as a change of another table does."""
        self._generation += 1

    def close(self) -> None:
        """Do nothing: the table outlives its clients, as the kernel's does."""


class _Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number


def _do(contents: _Contents | None, operation: Operation) -> tuple[_Contents | None, int]:
    """Return the contents after an operation, changed in place, and how much that changed."""
    if isinstance(operation, AddTable):
        return contents or _Contents(), contents is None
    if contents is None:
        raise _Refused(errno.ENOENT)
    if isinstance(operation, DelTable):
        return None, 1
    if wrong_length(operation):
        raise _Refused(errno.EINVAL)
    return contents, _DOERS[type(operation)](contents, operation)


def _led_to(contents: _Contents | None, operation: Operation) -> set[str]:
    """Return to which chains the elements lead that an operation takes away."""
    if contents is None or not isinstance(operation, DelElements):
        return set()
    known = contents.elements.get(operation.set, {})
    return {data.chain for key in operation.keys if isinstance(data := known.get(key), Verdict)}


def _add_set(contents: _Contents, operation: AddSet) -> int:
    _check_name(operation.name)
    if operation.name in contents.sets:
        raise _Refused(errno.EEXIST)
    contents.sets[operation.name] = operation.spec
    contents.elements[operation.name] = {}
    return 1


def _del_set(contents: _Contents, operation: DelSet) -> int:
    if operation.name not in contents.sets:
        raise _Refused(errno.ENOENT)
    for rules in contents.chains.values():
        if any(operation.name in _sets_of(rule) for rule in rules):
            raise _Refused(errno.EBUSY)
    del contents.sets[operation.name], contents.elements[operation.name]
    return 1


def _add_chain(contents: _Contents, operation: AddChain) -> int:
    _check_name(operation.name)
    if operation.name in contents.chains:
        raise _Refused(errno.EEXIST)
    contents.chains[operation.name] = []
    if operation.base is not None:
        contents.bases[operation.name] = operation.base
    return 1


def _del_chain(contents: _Contents, operation: DelChain) -> int:
    name = operation.name
    if name not in contents.chains:
        raise _Refused(errno.ENOENT)
    led_to = any(
        verdict.chain == name
        for rules in contents.chains.values()
        for rule in rules
        for verdict in _verdicts_of(rule)
    ) or any(
        isinstance(data, Verdict) and data.chain == name
        for elements in contents.elements.values()
        for data in elements.values()
    )
    if led_to or contents.chains[name]:
        raise _Refused(errno.EBUSY)
    del contents.chains[name]
    contents.bases.pop(name, None)
    return 1


def _add_rule(contents: _Contents, operation: AddRule) -> int:
    if operation.chain not in contents.chains:
        raise _Refused(errno.ENOENT)
    rule = operation.rule
    if any(isinstance(one, Foreign) for one in rule):
        raise _Refused(errno.ENOENT)
    for name in _sets_of(rule):
        if name not in contents.sets:
            raise _Refused(errno.ENOENT)
    for verdict in _verdicts_of(rule):
        _check_verdict(contents, verdict)
    contents.chains[operation.chain].append(rule)
    return 1


def _flush_chain(contents: _Contents, operation: FlushChain) -> int:
    if operation.chain not in contents.chains:
        raise _Refused(errno.ENOENT)
    doomed = len(contents.chains[operation.chain])
    contents.chains[operation.chain] = []
    return doomed


def _add_elements(contents: _Contents, operation: AddElements) -> int:
    into = contents.elements.get(operation.set)
    if into is None:
        raise _Refused(errno.ENOENT)
    new = 0
    for key, data in operation.elements.items():
        if isinstance(data, Verdict):
            _check_verdict(contents, data)
        if key in into and into[key] != data:
            raise _Refused(errno.EEXIST)
        new += key not in into
        into[key] = data
    return new


def _del_elements(contents: _Contents, operation: DelElements) -> int:
    known = contents.elements.get(operation.set)
    if known is None:
        raise _Refused(errno.ENOENT)
    for key in operation.keys:
        if key not in known:
            raise _Refused(errno.ENOENT)
        del known[key]
    return len(operation.keys)


def _check_name(name: str) -> None:
    if not name or len(name) > NAME_LENGTH_MAX:
        raise _Refused(errno.EINVAL)


def _check_verdict(contents: _Contents, verdict: Verdict) -> None:
    if verdict.code in (Code.GOTO, Code.JUMP):
        if verdict.chain not in contents.chains:
            raise _Refused(errno.ENOENT)
        if verdict.chain in contents.bases:
            raise _Refused(errno.EOPNOTSUPP)


def _sets_of(rule: Rule) -> set[str]:
    found = set()
    for one in rule:
        if isinstance(one, Lookup | ChangeSet):
            found.add(one.set)
        elif isinstance(one, LookupData | LookupVerdict):
            found.add(one.map)
    return found


def _verdicts_of(rule: Rule) -> list[Verdict]:
    return [one.verdict for one in rule if isinstance(one, Decide)]


_DOERS: dict[type, Callable[[_Contents, Any], int]] = {
    AddSet: _add_set,
    DelSet: _del_set,
    AddChain: _add_chain,
    DelChain: _del_chain,
    AddRule: _add_rule,
    FlushChain: _flush_chain,
    AddElements: _add_elements,
    DelElements: _del_elements,
}
