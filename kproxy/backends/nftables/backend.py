"""Keeps an nftables table as a state wants it.

Read, compute, write: one reading of the table, ``render`` and ``plan``, one atomic transaction
with what differs. Between full syncs what was written is trusted, not read again; and a full sync
does not read it again either while the number of the kernel's rule set says that nobody has
changed anything in any table since.
"""

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from kproxy.backends.base import FAMILIES, Difference, Options, Planned, SyncResult, untold
from kproxy.backends.nftables import layout, plan
from kproxy.backends.nftables.render import Renderer, compare
from kproxy.backends.udpflows import StaleFlows
from kproxy.desired import model
from kproxy.desired.model import State
from kproxy.errors import KernelError
from kproxy.kernel import bulk
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.inet import Family
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.nft.types import DelChain, DelTable, NftClient, Operation, Table, describe
from kproxy.kernel.sysctl import SysctlClient

FORWARDING = {
    Family.IPV4: "net/ipv4/ip_forward",
    Family.IPV6: "net/ipv6/conf/all/forwarding",
}
GENERATIONS = 1 << 32

DELETING_A_CHAIN = describe(DelChain(""))
"""How the operation of an error begins if it was that."""

SETTLED_S = 2.0
"""After this time kernels before 6.2 have noticed that a chain is not led to any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The doors to the kernel that this backend uses."""

    nft: NftClient
    conntrack: ConntrackClient
    sysctl: SysctlClient


@dataclass(frozen=True, slots=True)
class _Seen:
    """The table as it was read; ``table`` is None if there is none."""

    table: Table | None


class Backend:
    """nftables for one IP family of the current network namespace. Not for several threads."""

    name: ClassVar[str] = "nftables"

    def __init__(
        self,
        kernel: Kernel,
        family: Family,
        options: Options = Options(),  # noqa: B008  frozen
    ) -> None:
        self._kernel = kernel
        self._family = family
        self._flows = StaleFlows(kernel.conntrack, family, keep_last=not options.clean_last)
        self._renderer = Renderer()
        self._in_step = False
        self._first = True
        self._seen: _Seen | None = None
        self._stale: set[str] = set()
        self._generation: int | None = None
        self._switched = False
        self._refused: tuple[KernelError, ...] = ()

    def supported(self) -> str | None:
        """Return None, or why this kernel cannot do it: which feature is missing."""
        ip = model.Family.IPV4 if self._family is Family.IPV4 else model.Family.IPV6
        from kproxy.backends.nftables import features

        return self._kernel.nft.unsupported(features.trial(ip))

    def reread(self) -> None:
        """Read the table now, unless nobody has changed it; the next sync compares with it."""
        self._switched = False
        self._flows.forget()
        if self._in_step and self._generation == self._kernel.nft.generation():
            return
        self._in_step = False
        self._seen = None
        self._seen = self._read()

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state (see :class:`kproxy.backends.base.Backend`)."""
        with bulk.collector_paused():
            steps = self._steps(want)
        planned(plan.writes(steps))
        # Until all of it is known to have been written, nothing is known of the kernel.
        self._seen = None
        switched, refused = self._switch(want)
        if steps:
            try:
                self._write_in_time(steps)
            except KernelError as error:
                self._generation, self._stale = None, set()
                return SyncResult(
                    writes=switched,
                    failures=(error,),
                    refused=refused,
                    invalid=self._renderer.invalid,
                )
        self._in_step = True
        if self._first:
            self._first = False
            # A reading may lack elements while the kernel lets its hash table grow, as it does
            # soon after many were written (linux/rhashtable.h, rhashtable_walk_next). So what was
            # found at the start is looked at once more, at the next full sync.
            self._generation = None
        # Only now: before, a new flow could still have been led to an endpoint that is gone.
        forgotten, errors = self._flows.sync(want, time.monotonic())
        return SyncResult(
            writes=switched + plan.writes(steps) + forgotten,
            failures=tuple(errors),
            refused=refused,
            invalid=self._renderer.invalid,
            swept=self._flows.take_swept(),
            flows_again_in=self._flows.take_again_in(),
            again_in=SETTLED_S if self._stale else None,
            uncleaned=bool(steps and self._stale),
        )

    def differences(self, want: State) -> Sequence[Difference]:
        """Return in what the table differs from the wanted one. Writes nothing."""
        from kproxy.backends.nftables import drift

        renderer = Renderer()
        renderer.render(want)
        return drift.between(self._kernel.nft.read(), renderer.tables, want)

    def left_over(self) -> bool:
        """Return whether the table is there."""
        return self._kernel.nft.exists()

    def cleanup(self, *, keep_chains: bool = False) -> int:
        """Remove the table, with everything in it."""
        self._in_step, self._seen, self._generation = False, None, None
        table = self._kernel.nft.read() if self._kernel.nft.exists() else None
        if table is None:
            return 0
        self._kernel.nft.run([DelTable()])
        elements = sum(len(one) for one in table.elements.values())
        return 1 + len(table.sets) + len(table.chains) + elements

    def close(self) -> None:
        """Give the sockets back."""
        self._kernel.nft.close()
        self._kernel.conntrack.close()

    def _steps(self, want: State) -> list[Operation]:
        """Return what is to be written."""
        in_step, self._in_step = self._in_step, False
        if in_step:
            before = self._renderer.tables
            delta = self._renderer.render(want)
            tables = self._renderer.tables
            steps = plan.operations(compare(before, tables) if delta is None else delta, tables)
            return plan.with_stale(steps, self._stale, tables)
        if self._seen is None:
            self._seen = self._read()
        self._stale = set()  # They were read with all else.
        self._renderer.render(want)
        table, tables = self._seen.table, self._renderer.tables
        if not plan.adoptable(table, tables):
            return plan.replacement(tables, there=table is not None)
        return plan.operations(compare(plan.seen(table), tables), tables)

    def _read(self) -> _Seen:
        generation = self._kernel.nft.generation()
        seen = _Seen(self._kernel.nft.read())
        self._generation = generation
        return seen

    def _write_in_time(self, steps: Sequence[Operation]) -> None:
        """Write; chains that an old kernel believes in use are emptied now, and deleted later."""
        doomed = {step.name for step in steps if isinstance(step, DelChain)}
        self._stale = set()
        try:
            self._write(steps)
        except KernelError as error:
            if error.errno != errno.EBUSY or not error.operation.startswith(DELETING_A_CHAIN):
                raise
            self._write([step for step in steps if not isinstance(step, DelChain)])
            self._stale = doomed

    def _write(self, steps: Sequence[Operation]) -> None:
        """Write, and note the number of the rule set if it still is known to be ours alone."""
        before = self._kernel.nft.generation()
        self._kernel.nft.run(steps)
        after = self._kernel.nft.generation()
        alone = before == self._generation and after == (before + 1) % GENERATIONS
        self._generation = after if alone else None

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
    kernel = Kernel(nft=Nft(ip, layout.TABLE), conntrack=Conntrack(), sysctl=sysctls.Sysctl())
    return Backend(kernel, ip, options)
