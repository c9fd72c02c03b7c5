"""Keeps iptables rules as a state wants them.

Read, compute, write: ``iptables-save``, ``chains.plan``, one ``iptables-restore`` that carries
only the chains that differ. Between full syncs what was written is trusted, not read again: on a
big table reading costs as much as writing. Then only chains that the state has touched are
compared at all.
"""

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import ClassVar

from kproxy.backends import chains
from kproxy.backends.base import (
    FAMILIES,
    Difference,
    Options,
    Planned,
    RuleCount,
    SyncResult,
    untold,
)
from kproxy.backends.chains import Wanted
from kproxy.backends.iptables import base_rules, render
from kproxy.backends.udpflows import StaleFlows
from kproxy.desired import model
from kproxy.desired.model import ServicePortName, ServiceState, State
from kproxy.errors import KernelError
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.text import chain_of
from kproxy.kernel.iptables.types import Chain, IptablesClient, RuleRefused, RuleSet, TableChange
from kproxy.kernel.sysctl import SysctlClient

FORWARDING = {
    Family.IPV4: "net/ipv4/ip_forward",
    Family.IPV6: "net/ipv6/conf/all/forwarding",
}
ROUTE_LOCALNET = "net/ipv4/conf/all/route_localnet"
"""Lets what comes from 127.0.0.1 leave for an endpoint: node ports on localhost need it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The doors to the kernel that this backend uses."""

    iptables: IptablesClient
    conntrack: ConntrackClient
    sysctl: SysctlClient


class Backend:
    """iptables for one IP family of the current network namespace. Not for several threads."""

    name: ClassVar[str] = "iptables"

    def __init__(self, kernel: Kernel, family: Family, options: Options | None = None) -> None:
        options = options or Options()
        self._kernel = kernel
        self._family = family
        self._flows = StaleFlows(kernel.conntrack, family, keep_last=not options.clean_last)
        self._liberal = options.tcp_be_liberal
        self._renderer = render.Renderer(tcp_be_liberal=self._liberal)
        self._saved: RuleSet | None = None
        """The rules as read and not yet compared."""
        self._others: RuleSet | None = None
        """The chains of others, where ours are known to be as the renderer has confirmed."""
        self._before: RuleSet = {}
        self._changes: Sequence[TableChange] = ()
        """What was attempted last, while it has not succeeded."""
        self._writes = 0
        self._counts: dict[str, RuleCount] = {}
        self._bad: dict[ServicePortName, tuple[ServiceState | None, KernelError]] = {}
        """Service ports whose rules are refused, until they change or all is looked at again."""
        self._switched: set[str] = set()
        self._refused: dict[str, KernelError] = {}

    def supported(self) -> str | None:
        """Return None, or why this kernel or machine cannot do it."""
        return self._kernel.iptables.supported()

    def reread(self) -> None:
        """Read the rules now; the next sync compares with them."""
        self._saved = self._others = None
        self._bad.clear()
        self._switched.clear()
        self._refused.clear()
        self._flows.forget()
        self._saved = self._save()

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state (see :class:`kproxy.backends.base.Backend`)."""
        known = want.services
        self._bad = {name: bad for name, bad in self._bad.items() if known.get(name) is bad[0]}
        self._writes = 0
        self._counts = {table: one._replace(written=0) for table, one in self._counts.items()}
        try:
            waiting = self._write_all(want, planned)
        except KernelError as error:
            return self._result([error])
        # Only now: before, a new flow could still have been led to an endpoint that is gone.
        forgotten, failures = self._flows.sync(want, time.monotonic())
        if waiting:
            # Rules that stayed lead flows to endpoints that are gone, still.
            self._flows.forget()
        self._writes += forgotten
        return self._result([*waiting, *failures])

    def differences(self, want: State) -> Sequence[Difference]:
        """Return in which chains and rules the kernel now differs. Writes nothing."""
        from kproxy.backends import chaindiff  # not needed to sync

        have = self._kernel.iptables.save(*chains.TABLES)
        renderer = render.Renderer(tcp_be_liberal=self._liberal)
        renderer.render(want, left_out=self._bad.keys())
        return chaindiff.differences(have, renderer.wanted(), renderer.owners().of)

    def left_over(self) -> bool:
        """Return whether there are rules of ours, without which nothing of ours has effect."""
        tables = self._kernel.iptables
        return tables.in_use() and chains.any_ours(tables.save(*chains.TABLES))

    def cleanup(self, *, keep_chains: bool = False) -> int:
        """Remove all chains of ours and the rules that lead to them.

        The kubelet's chain stays as it is, and so do the switches: the node may need them anyway.
        """
        self._saved = self._others = None
        have = self._kernel.iptables.save(*chains.TABLES)
        changes = [] if keep_chains else chains.plan(have, chains.NOTHING)
        guard = base_rules.unguard(have["filter"]) if self._family is Family.IPV4 else None
        if guard is not None:
            # While the guard is there nobody else relies on what it makes harmless.
            sysctls.ensure(self._kernel.sysctl, ROUTE_LOCALNET, "0")
            changes.append(guard)
        if changes:
            self._kernel.iptables.restore(changes)
        return chains.writes(changes)

    def close(self) -> None:
        """Give the socket back."""
        self._kernel.conntrack.close()

    def _result(self, failures: Sequence[KernelError]) -> SyncResult:
        bad = [self._bad[name][1] for name in sorted(self._bad)]
        return SyncResult(
            writes=self._writes,
            failures=tuple(failures),
            refused=(*self._refused.values(), *bad),
            invalid=self._renderer.invalid,
            swept=self._flows.take_swept(),
            rules=tuple(self._counts.values()),
            flows_again_in=self._flows.take_again_in(),
        )

    def _write_all(self, want: State, planned: Planned) -> list[KernelError]:
        """Write what differs; return what has to wait for the next sync."""
        try:
            self._write(want, planned=planned)
        except RuleRefused:
            try:
                # What was known may not be true any more: a rule may lead to a lost chain.
                self._write(want)
            except RuleRefused as error:
                return self._write_most(want, error)
        return []

    def _write_most(self, want: State, error: RuleRefused) -> list[KernelError]:
        """Find whose rules are refused, write all others; return what has to wait."""
        from kproxy.backends.iptables import isolate  # rarely needed

        owners = self._renderer.owners()
        bad = set(self._bad)

        def attempt(refused: Set[ServicePortName], held: Set[ServicePortName]) -> None:
            self._write(want, left_out=bad | refused, held=held)

        def owner(of: RuleRefused) -> ServicePortName | None:
            return owners.of(of.table, chain_of(of.rule), of.rule) if of.rule else None

        suspects = {*_owners_of(self._changes, self._before, owners)}
        if not suspects:
            raise error
        found = isolate.isolate(suspects, attempt, owner)
        for name, why in found.refused.items():
            told = KernelError(f"rules of Service {name}", 0, str(why))
            self._bad[name] = want.services.get(name), told
        return [
            KernelError(
                f"rules of Service {name}", 0, "not tried yet, too many others are refused"
            )
            for name in sorted(found.waiting)
        ]

    def _write(
        self,
        want: State,
        *,
        left_out: Set[ServicePortName] | None = None,
        held: Set[ServicePortName] = frozenset(),
        planned: Planned = untold,
    ) -> None:
        """Write what differs, as far as is known, or else read it."""
        self._renderer.render(
            want, left_out=set(self._bad) if left_out is None else left_out, held=held
        )
        have, wanted = self._compared()
        # Until all of it is known to have been written, nothing is known of the kernel.
        self._saved = self._others = None
        changes = chains.in_steps(
            chains.plan(have, wanted), have, self._kernel.iptables.chains_at_once()
        )
        planned(chains.writes(changes))
        self._switch(want)
        self._before, self._changes = have, changes
        self._kernel.iptables.restore(changes)
        self._before, self._changes = {}, ()
        self._others = chains.others_after(have, changes)
        self._renderer.confirm()
        self._writes += chains.writes(changes)
        self._count(changes)

    def _count(self, changes: Sequence[TableChange]) -> None:
        for table, total in self._renderer.counts.items():
            before = self._counts.get(table, RuleCount(table, 0, 0))
            written = sum(chains.rules_written(one) for one in changes if one.table == table)
            self._counts[table] = RuleCount(table, total, before.written + written)

    def _compared(self) -> tuple[RuleSet, Wanted]:
        """Return the rules to compare: all as read, or only what was touched since."""
        if self._others is None:
            have = self._saved or self._save()
            return have, self._renderer.wanted()
        delta = self._renderer.delta()
        have = {table: {**self._others[table], **delta.before[table]} for table in self._others}
        return have, delta.after

    def _save(self) -> RuleSet:
        return self._kernel.iptables.save(*chains.TABLES, known=self._renderer.chains)

    def _switch(self, want: State) -> None:
        """Set the kernel's switches; looked at once after each reading.

        Not for nothing: a node that forwards IPv6 does not listen to router advertisements any
        more, unless accept_ra is 2.
        Where /proc/sys is read-only, as in a container, somebody else sees to it.
        """
        switches = []
        if self._family is Family.IPV4 or want.services:
            switches.append(FORWARDING[self._family])
        if self._family is Family.IPV4 and want.node_ports.localhost:
            switches.append(ROUTE_LOCALNET)
        for switch in switches:
            if switch not in self._switched:
                self._switched.add(switch)
                try:
                    self._writes += sysctls.ensure(self._kernel.sysctl, switch, "1")
                except KernelError as error:
                    self._refused[switch] = error


def _owners_of(
    changes: Sequence[TableChange], before: RuleSet, owners: render.Owners
) -> Iterator[ServicePortName]:
    """Yield whose chains and rules the changes would write."""
    for change in changes:
        for chain, rules in change.replace.items():
            known = set(before[change.table].get(chain, NO_CHAIN).rules)
            found = {owners.of(change.table, chain, rule) for rule in rules if rule not in known}
            yield from (name for name in found if name is not None)


NO_CHAIN = Chain()


def load(family: model.Family, options: Options) -> Backend:
    """Return this backend on the kernel of the current network namespace."""
    ip = FAMILIES[family]
    kernel = Kernel(iptables=Iptables(ip), conntrack=Conntrack(), sysctl=sysctls.Sysctl())
    return Backend(kernel, ip, options)
