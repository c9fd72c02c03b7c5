"""Tables, chains and rules as values. Pure.

A rule is its canonical text, exactly as ``iptables-save`` prints it without counters
(``-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-X``): so a rule is
compared without parsing it, and what a user sees with the tool is what the program reasons about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kproxy.errors import KernelError

CHAIN_NAME_LENGTH_MAX = 28
"""Longest name of a chain (XT_EXTENSION_MAXNAMELEN less its closing zero)."""

BUILTIN_CHAINS: Mapping[str, tuple[str, ...]] = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}

Rule = str


@dataclass(frozen=True, slots=True)
class Chain:
    """The rules of a chain in order. ``policy`` is None for a chain made by users."""

    rules: tuple[Rule, ...] = ()
    policy: str | None = None


Table = Mapping[str, Chain]
RuleSet = Mapping[str, Table]

KnownRules = Mapping[str, Mapping[str, tuple[Rule, ...]]]
"""Table → chain → its rules."""
NOTHING_KNOWN: KnownRules = {}


@dataclass(frozen=True, slots=True)
class TableChange:
    """What is to become of one table; everything not named here stays, with its counters.

    Order of application, so that nothing ever jumps to nowhere: chains of ``replace`` are made or
    emptied, and filled; ``remove`` (rules taken out of built-in chains), ``insert`` (put in front
    of a built-in chain, the first of them first) and ``append``; ``delete`` (chains, which nothing
    may refer to by then). The table takes all of it or none.
    """

    table: str
    replace: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    remove: Sequence[Rule] = ()
    insert: Sequence[Rule] = ()
    append: Sequence[Rule] = ()
    delete: Sequence[str] = ()


class RuleRefused(KernelError):
    """A rule was refused, by the tool or by the kernel: others may be taken without it.

    ``table`` and ``rule`` say which one; empty where only the table as a whole was refused.
    """

    def __init__(self, operation: str, detail: str, *, table: str = "", rule: Rule = "") -> None:
        super().__init__(operation, 0, detail)
        self.table = table
        self.rule = rule


class IptablesClient(Protocol):
    """What :class:`~kproxy.kernel.iptables.client.Iptables` and its fake have in common."""

    def supported(self) -> str | None:
        """Return None, or in words why rules cannot be set here."""

    def in_use(self) -> bool:
        """Return False if there are no tables for sure. Executes nothing and makes none."""

    def save(self, *tables: str, known: KnownRules = NOTHING_KNOWN) -> RuleSet:
        """Return these tables (one execution of the tool, however many).

        Chains that are still as ``known`` come with the very same rules.
        A table that the kernel has not needed yet comes with its empty built-in chains.
        """

    def packets(self, table: str, chain: str) -> tuple[int, ...]:
        """Return how many packets met each rule of a user's chain, in order.

        Nothing if there is no such chain. Neither reads other chains, as far as the kernel lets
        it, nor keeps anybody from writing. Counters last as long as the chain is not replaced.
        """

    def chains_at_once(self) -> int | None:
        """Return how many new chains a change should have at most; None: any number."""

    def restore(self, changes: Sequence[TableChange]) -> None:
        """Apply the changes in their order, each atomically (one execution of the tool).

        RuleRefused naming the refused line; the changes before that one are made already.
        Other KernelErrors: nothing is known of what was made.
        """
