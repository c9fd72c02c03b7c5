"""Keeps iptables rules as a state wants them.

Read, compute, write: ``iptables-save``, ``chains.plan``, one ``iptables-restore`` that carries
only the chains that differ. Between full syncs what was written is trusted, not read again: on a
big table reading costs as much as writing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kproxy.backends import chains
from kproxy.backends.base import FAMILIES, Difference, Options, Planned, SyncResult, untold
from kproxy.backends.iptables import render
from kproxy.backends.udpflows import StaleFlows
from kproxy.desired import model
from kproxy.desired.model import State
from kproxy.errors import KernelError
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import IptablesClient, RuleSet
from kproxy.kernel.sysctl import SysctlClient

FORWARDING = {
    Family.IPV4: "net/ipv4/ip_forward",
    Family.IPV6: "net/ipv6/conf/all/forwarding",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The doors to the kernel that this backend uses."""

    iptables: IptablesClient
    conntrack: ConntrackClient
    sysctl: SysctlClient


class Backend:
    """iptables for one IP family of the current network namespace. Not for several threads."""

    name: ClassVar[str] = "iptables"

    def __init__(self, kernel: Kernel, family: Family) -> None:
        self._kernel = kernel
        self._family = family
        self._flows = StaleFlows(kernel.conntrack, family, keep_last=True)
        self._renderer = render.Renderer()
        self._rules: RuleSet | None = None
        self._switched = False
        self._refused: tuple[KernelError, ...] = ()

    def supported(self) -> str | None:
        """Return None, or why this kernel or machine cannot do it."""
        return self._kernel.iptables.supported()

    def reread(self) -> None:
        """Read the rules now; the next sync compares with them."""
        self._rules = None
        self._switched = False
        self._flows.forget()
        self._rules = self._kernel.iptables.save(*chains.TABLES)

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state (see :class:`kproxy.backends.base.Backend`)."""
        if self._rules is None:
            self._rules = self._kernel.iptables.save(*chains.TABLES)
        changes = chains.in_steps(
            chains.plan(self._rules, self._renderer.render(want)),
            self._rules,
            self._kernel.iptables.chains_at_once(),
        )
        planned(chains.writes(changes))
        # Until all of it is known to have been written, nothing is known of the kernel.
        rules, self._rules = self._rules, None
        switched, refused = self._switch(want)
        if changes:
            try:
                self._kernel.iptables.restore(changes)
            except KernelError as error:
                return SyncResult(
                    writes=switched,
                    failures=(error,),
                    refused=refused,
                    invalid=self._renderer.invalid,
                )
        self._rules = chains.applied(rules, changes)
        # Only now: before, a new flow could still have been led to an endpoint that is gone.
        forgotten, errors = self._flows.sync(want)
        writes = switched + chains.writes(changes) + forgotten
        return SyncResult(
            writes=writes,
            failures=tuple(errors),
            refused=refused,
            invalid=self._renderer.invalid,
        )

    def differences(self, want: State) -> Sequence[Difference]:
        """Return in which chains and rules the kernel now differs. Writes nothing."""
        from kproxy.backends import chaindiff  # not needed to sync

        have = self._kernel.iptables.save(*chains.TABLES)
        return chaindiff.differences(have, render.render(want))

    def left_over(self) -> bool:
        """Return whether there are rules of ours, without which nothing of ours has effect."""
        tables = self._kernel.iptables
        return tables.in_use() and chains.any_ours(tables.save(*chains.TABLES))

    def cleanup(self) -> int:
        """Remove all chains of ours and the rules that lead to them."""
        self._rules = None
        changes = chains.plan(self._kernel.iptables.save(*chains.TABLES), chains.NOTHING)
        if changes:
            self._kernel.iptables.restore(changes)
        return chains.writes(changes)

    def close(self) -> None:
        """Give the socket back."""
        self._kernel.conntrack.close()

    def _switch(self, want: State) -> tuple[int, tuple[KernelError, ...]]:
        """Let the node forward packets; looked at once after each reading.

        Not for nothing: a node that forwards IPv6 does not listen to router advertisements any
        more, unless accept_ra is 2.
        """
        if self._switched or (self._family is Family.IPV6 and not want.services):
            return 0, self._refused
        self._switched, self._refused = True, ()
        try:
            return int(sysctls.ensure(self._kernel.sysctl, FORWARDING[self._family], "1")), ()
        except KernelError as error:
            # Where /proc/sys is read-only, as in a container, somebody else sees to it.
            self._refused = (error,)
            return 0, self._refused


def load(family: model.Family, options: Options) -> Backend:
    """Return this backend on the kernel of the current network namespace."""
    ip = FAMILIES[family]
    kernel = Kernel(iptables=Iptables(ip), conntrack=Conntrack(), sysctl=sysctls.Sysctl())
    return Backend(kernel, ip)
