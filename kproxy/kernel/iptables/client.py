"""The kernel's packet filter rules, through the iptables tools.

Two variants exist, for two parts of the kernel: *legacy* (ip_tables) and *nft* (nf_tables). The
one in PATH is the system's choice and is taken where the kernel can serve it. Whether it can is
asked of the kernel itself: ``iptables-nft-save`` succeeds, with nothing, where nf_tables is there
but lacks the IP family, as in Debian's User-Mode Linux. Executing a tool is dear (up to 45 ms in
such a guest), so nothing is executed to find out.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.execer import TIMEOUT_S, Completed, Execer, ExecerClient, find_program
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import nftprobe, text, turn
from kproxy.kernel.iptables.types import (
    NOTHING_KNOWN,
    KnownRules,
    RuleRefused,
    RuleSet,
    TableChange,
)

LOCK_WAIT_S = 5
"""So long a tool waits for another one to give the xtables lock back, as in kube-proxy."""

OTHERS_WAIT_S = 10.0
"""So long reading waits for the restore of a proxy that was killed."""

LINE_S = 0.01
"""A restore may take so much longer for each line: a hundred times what it normally takes."""

CHAINS_AT_ONCE = 100
"""The time that ``--noflush`` takes with nf_tables grows with the square of the chains it makes:
11,000 took 9 s in changes of 1,500, 4.2 s of 500, and 2.2 s of 100, as without that option
(2.1 s)."""

_LINE = re.compile(r"(?:^|\b)line:? (\d+)")
_NOISE = re.compile(
    r"^Error occurred.*|^Try `.*|^#.*"
    r"|^(?:ip6?tables(?:-\w+)*(?: v[\d.]+ \(\w+\))?: *)*(?:line \d+ failed:? *)?"
)
"""What the tools say beside the reason: their name, that there is one, and where to get help."""

_NO_KERNEL = "can't initialize"

_PASSING = re.compile(
    "Cannot allocate memory|Memory allocation problem|No buffer space available"
    "|Resource temporarily unavailable|Device or resource busy|Interrupted system call"
    "|Too many open files"
)
"""What is said of a machine short of something: no fault of a rule, nor of the kernel's making."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the programs of one variant."""

    variant: str
    save: str
    restore: str


class Iptables:
    """Rules of one IP family in the caller's network namespace.

    Contract: :class:`~kproxy.kernel.iptables.types.IptablesClient`. Methods raise Unsupported if
    no tool is installed, or the kernel serves none of those that are; KernelError if that cannot
    be found out.
    """

    def __init__(self, family: Family = Family.IPV4, execer: ExecerClient | None = None) -> None:
        self._family = family
        self._execer = execer or Execer()
        self._prefix = "iptables" if family is Family.IPV4 else "ip6tables"
        self._tools: Tools | None = None

    def supported(self) -> str | None:
        """Return None, or in words why rules cannot be set here. Executes nothing.

        A kernel without ip_tables is only noticed by :meth:`save`, which raises Unsupported.
        """
        try:
            self.tools()
        except (KernelError, Unsupported) as error:
            return str(error)
        return None

    def in_use(self) -> bool:
        """Return False if there are no tables for sure. Executes nothing and makes none."""
        return self.tools().variant != "legacy" or bool(self._legacy_tables())

    def save(self, *tables: str, known: KnownRules = NOTHING_KNOWN) -> RuleSet:
        """Return these tables (one execution of the tool, however many)."""
        if not tables:
            return {}
        tools = self.tools()
        arguments: list[str] = []
        if tools.variant == "legacy" and self._legacy_tables() is None:
            # Nothing is there yet. Naming a table makes the tool load what it needs, or fail.
            arguments = ["-t", tables[0]]
        turn.wait(self._turn(), OTHERS_WAIT_S)
        done = self._execer.run([tools.save, *arguments])
        if done.returncode != 0:
            failure = _failure(done)
            if isinstance(failure, Unsupported) and self._other_variant(tools):
                return self.save(*tables, known=known)
            raise failure
        listing = done.stdout.decode(errors="surrogateescape")
        del done  # up to 50 MB
        return self.parsed(listing, tables, known)

    def parsed(
        self, listing: str, tables: Sequence[str], known: KnownRules = NOTHING_KNOWN
    ) -> RuleSet:
        """Return these tables of a listing. KernelError: one is there but cannot be listed."""
        for table in text.incompatible(listing) & set(tables):
            kind = "ip" if self._family is Family.IPV4 else "ip6"
            raise KernelError(
                f"read table {table}",
                0,
                f"table {table} holds rules that {self._prefix} cannot express",
                remedy=f"see nft list table {kind} {table}; move rules made with nft elsewhere",
            )
        return text.with_builtin_chains(text.parse_save(listing, known), tables)

    def packets(self, table: str, chain: str) -> tuple[int, ...]:
        """Return how many packets met each rule of a chain of ours. Executes nothing.

        The tables are there: asking for one that is not makes ip_tables load it.
        """
        from kproxy.kernel.iptables import counters

        tools = self.tools()
        try:
            return counters.of_chain(self._family, tools.variant, table, chain)
        except Unsupported:
            if not self._other_variant(tools):
                raise
            return counters.of_chain(self._family, self.tools().variant, table, chain)

    def chains_at_once(self) -> int | None:
        """Return how many new chains a change should have at most; None: any number."""
        # ip_tables takes and gives whole tables, so fewer changes are better.
        return CHAINS_AT_ONCE if self.tools().variant == "nft" else None

    def restore(self, changes: Sequence[TableChange]) -> None:
        """Apply the changes in their order, each atomically (one execution of the tool)."""
        if not changes:
            return
        lines = text.render_restore(changes)
        stdin = "\n".join(lines) + "\n"
        argv = [self.tools().restore, "--noflush", "-w", str(LOCK_WAIT_S)]
        limit = TIMEOUT_S + len(lines) * LINE_S
        with turn.held(self._turn()) as inherit:
            done = self._execer.run(
                argv, stdin.encode(errors="surrogateescape"), timeout_s=limit, inherit=inherit
            )
        if done.returncode != 0:
            raise _failure(done, lines)

    def tools(self) -> Tools:
        """Return the tools in use. Unsupported: there are none that this kernel serves."""
        if self._tools is None:
            self._tools = self._choose()
        return self._tools

    def _turn(self) -> str:
        return f"kproxy-{self._prefix}-restore"

    def _choose(self) -> Tools:
        prefix = self._prefix
        save, restore = find_program(f"{prefix}-save"), find_program(f"{prefix}-restore")
        if save is None or restore is None:
            raise Unsupported(
                f"{prefix}-save and {prefix}-restore are not in PATH", remedy="install iptables"
            )
        variant = "nft" if "nft" in Path(os.path.realpath(save)).name else "legacy"
        chosen = Tools(variant, save, restore)
        if variant == "legacy" or nftprobe.supports(self._family):
            return chosen
        legacy = self._named("legacy")
        if legacy is None:
            raise Unsupported(
                f"this kernel's nf_tables lacks IPv{self._family.value}, and {prefix} is its tool",
                remedy=f"install {prefix}-legacy, or load the module nf_tables",
            )
        return legacy

    def _named(self, variant: str) -> Tools | None:
        save = find_program(f"{self._prefix}-{variant}-save")
        restore = find_program(f"{self._prefix}-{variant}-restore")
        return Tools(variant, save, restore) if save and restore else None

    def _other_variant(self, tools: Tools) -> bool:
        """Turn from legacy to nft if the kernel can do that; return whether it was done."""
        if tools.variant == "legacy" and nftprobe.supports(self._family):
            other = self._named("nft")
            if other is not None:
                self._tools = other
                return True
        return False

    def _legacy_tables(self) -> str | None:
        """Return the names of the tables that are there; None if ip_tables itself is not."""
        names = "ip_tables_names" if self._family is Family.IPV4 else "ip6_tables_names"
        try:
            return Path("/proc/thread-self/net", names).read_text()
        except OSError:
            return None


def _failure(done: Completed, lines: Sequence[str] = ()) -> KernelError | Unsupported:
    program = Path(done.argv[0]).name
    parts = (_NOISE.sub("", line).strip() for line in done.stderr.splitlines())
    said = "; ".join(part for part in parts if part)
    if _PASSING.search(said):
        return KernelError(program, 0, said)
    if _NO_KERNEL in said:
        return Unsupported(f"this kernel does not serve {program}: {said}")
    if done.returncode == 4 and "xtables lock" in said:
        detail = f"another program kept the xtables lock for {LOCK_WAIT_S} s"
        return KernelError(program, 0, detail)
    found = _LINE.search(done.stderr)
    if found and 0 < int(found[1]) <= len(lines):
        number = int(found[1])
        detail = f"line {number} ({lines[number - 1]}): {said or 'refused by the kernel'}"
        return _refused(program, detail, lines, number - 1)
    return KernelError(program, 0, said or "refused by the kernel")


def _refused(program: str, detail: str, lines: Sequence[str], at: int) -> KernelError:
    line = lines[at]
    # A refused -D or -X says that the rules are not what they were when they were read.
    if not line.startswith("-A ") and line != "COMMIT":
        return KernelError(program, 0, detail)
    table = next(lines[n][1:] for n in range(at, -1, -1) if lines[n].startswith("*"))
    rule = line if line != "COMMIT" else ""
    return RuleRefused(program, detail, table=table, rule=rule)
