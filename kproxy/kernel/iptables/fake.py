"""Tables, chains and rules in memory that refuse what the kernel and its tools refuse."""

from collections.abc import Sequence

from kproxy.errors import KernelError
from kproxy.kernel.iptables import text
from kproxy.kernel.iptables.types import (
    BUILTIN_CHAINS,
    CHAIN_NAME_LENGTH_MAX,
    NOTHING_KNOWN,
    Chain,
    KnownRules,
    Rule,
    RuleRefused,
    RuleSet,
    Table,
    TableChange,
)

TARGETS = frozenset(
    (
        *("ACCEPT", "DROP", "RETURN", "REJECT", "LOG", "MARK", "CONNMARK", "NOTRACK", "CT"),
        *("MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "TCPMSS", "NFLOG", "SET"),
    )
)
"""Targets that are not chains."""


class FakeIptables:
    """Implements :class:`~kproxy.kernel.iptables.types.IptablesClient`.

    Faults to order: ``fail_restore`` counts down the restores that fail as a whole; a rule that
    contains a text of ``reject`` is refused, and not even named if ``anonymous`` (as ip_tables
    does it); ``unsupported`` is the answer of :meth:`supported`.
    ``best`` is the answer of :meth:`chains_at_once`. ``restored`` and ``saves`` tell what was
    asked. ``load`` puts foreign rules in. ``met`` says how many packets a rule of a table met.
    """

    def __init__(self) -> None:
        self.unsupported: str | None = None
        self.fail_restore = 0
        self.best: int | None = None
        self.reject: tuple[str, ...] = ()
        self.anonymous = False
        self.restored: list[TableChange] = []
        self.saves = 0
        self.met: dict[tuple[str, Rule], int] = {}
        self._tables: dict[str, dict[str, Chain]] = {
            table: {chain: Chain(policy="ACCEPT") for chain in chains}
            for table, chains in BUILTIN_CHAINS.items()
        }

    def load(self, listing: str) -> None:
        """Take the tables of an ``iptables-save`` listing in place of those that are here."""
        for name, table in text.parse_save(listing).items():
            self._tables[name] = dict(table)

    def supported(self) -> str | None:
        """Return what ``unsupported`` says."""
        return self.unsupported

    def in_use(self) -> bool:
        """Return True: as with nf_tables, only reading tells."""
        return True

    def save(self, *tables: str, known: KnownRules = NOTHING_KNOWN) -> RuleSet:
        """Return these tables."""
        self.saves += 1
        return {name: dict(self._tables[name]) for name in tables}

    def packets(self, table: str, chain: str) -> tuple[int, ...]:
        """Return what ``met`` says."""
        rules = self._tables[table].get(chain, Chain()).rules
        return tuple(self.met.get((table, rule), 0) for rule in rules)

    def chains_at_once(self) -> int | None:
        """Return what a test has set."""
        return self.best

    def restore(self, changes: Sequence[TableChange]) -> None:
        """Apply the changes in their order, each as a whole or not at all."""
        if not changes:
            return
        text.render_restore(changes)
        self.restored.extend(changes)
        if self.fail_restore:
            self.fail_restore -= 1
            raise KernelError("iptables-restore", 0, "refused, as was ordered")
        for change in changes:
            try:
                self._tables[change.table] = self._changed(change)
            except RuleRefused as error:
                error.table = change.table
                if self.anonymous:
                    error.rule = ""
                raise

    def _changed(self, change: TableChange) -> dict[str, Chain]:
        if change.table not in self._tables:
            raise _error(f"*{change.table}", "no such table")
        table = dict(self._tables[change.table])
        for name in (*change.replace, *change.delete):
            _check_name(name)
            table[name] = Chain(tuple(change.replace.get(name, ())))
        for rule in change.remove:
            _remove(table, rule)
        for rule in reversed(change.insert):
            chain = _chain(table, rule)
            table[text.chain_of(rule)] = Chain((rule, *chain.rules), chain.policy)
        for rule in change.append:
            chain = _chain(table, rule)
            table[text.chain_of(rule)] = Chain((*chain.rules, rule), chain.policy)
        for name in change.delete:
            del table[name]
        self._check(table)
        return table

    def _check(self, table: Table) -> None:
        for chain in table.values():
            for rule in chain.rules:
                target = text.target_of(rule)
                if target is not None and target not in TARGETS and target not in table:
                    raise _error(rule, f"no chain or target {target}")
                if any(part in rule for part in self.reject):
                    raise _error(rule, "refused, as was ordered")


def _chain(table: Table, rule: Rule) -> Chain:
    name = text.chain_of(rule)
    if name not in table:
        raise _error(rule, f"no chain {name}")
    return table[name]


def _remove(table: dict[str, Chain], rule: Rule) -> None:
    chain = _chain(table, rule)
    if rule not in chain.rules:
        raise KernelError("iptables-restore", 0, f"line ({rule}): no such rule")
    at = chain.rules.index(rule)
    rules = chain.rules[:at] + chain.rules[at + 1 :]
    table[text.chain_of(rule)] = Chain(rules, chain.policy)


def _check_name(name: str) -> None:
    if len(name) > CHAIN_NAME_LENGTH_MAX:
        raise _error(f":{name}", f"name longer than {CHAIN_NAME_LENGTH_MAX}")


def _error(line: str, why: str) -> RuleRefused:
    return RuleRefused("iptables-restore", f"line ({line}): {why}", rule=line)
