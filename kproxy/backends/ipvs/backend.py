"""Keeps the kernel's IPVS, its device, sets and rules as a state wants them.

Read, compare, write: ``kernel.read``, ``compare.compare``, ``plan.plan``, ``kernel.write``. Where
the kernel is known to be right, only the services that change are read and compared.
"""

import errno
import functools
import ipaddress
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from kproxy.backends import base, chains
from kproxy.backends.base import Difference, Planned, SyncResult, untold
from kproxy.backends.ipvs import compare, kernel, render, rules
from kproxy.backends.ipvs import plan as planning
from kproxy.backends.ipvs.compare import Seen
from kproxy.backends.ipvs.kernel import Kernel
from kproxy.backends.ipvs.render import Context
from kproxy.backends.ipvs.sets import SETS
from kproxy.backends.ipvs.switches import Switches
from kproxy.backends.ipvs.wanted import Delta, Wanted
from kproxy.backends.udpflows import StaleFlows
from kproxy.desired import model
from kproxy.desired.model import Address, State
from kproxy.errors import KernelError
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import RuleSet
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import ServiceKey
from kproxy.kernel.links.client import Links

if TYPE_CHECKING:
    from kproxy.backends.ipvs.weights import Resting, Weights

DRAIN_INTERVAL_S = 60.0
"""So often endpoints with weight 0 are looked at, as in kube-proxy."""

COUNTS_VALID_S = 1.0
"""So long what the kernel said of connections is good enough to remove an endpoint by: a restarted
proxy reads the kernel once, not twice."""

READ_SINGLY = 1000
"""If more services change than these, all are read at once."""


PACK: Mapping[Family, Callable[[str], bytes]] = {
    Family.IPV4: socket.inet_aton,
    Family.IPV6: functools.partial(socket.inet_pton, socket.AF_INET6),
}
"""What turns a canonical address into bytes, many times faster than :mod:`ipaddress`."""


class Backend:
    """IPVS for one IP family of the current network namespace. Not safe for several threads."""

    name: ClassVar[str] = "ipvs"

    def __init__(
        self,
        doors: Kernel,
        family: Family,
        options: base.Options = base.Options(),  # noqa: B008  frozen
    ) -> None:
        self._kernel = doors
        self._family = family
        self._sets = SETS[family]
        self._specs = self._sets.specs()
        self._options = options
        self._foreign = tuple(ipaddress.ip_network(cidr) for cidr in options.exclude_cidrs)
        self._switches = Switches(doors.sysctl, doors.ipvs, family, options, doors.release)
        self._flows = StaleFlows(doors.conntrack, family, keep_last=False)
        self._wanted = Wanted(self._sets, PACK[family])
        self._trusted = False
        """Whether the kernel is as was wanted last, but for what drains and what is rejected."""
        self._seen: Seen | None = None
        self._read_at = float("-inf")
        self._rules: RuleSet | None = None
        self._wanted_rules: chains.Wanted = chains.NOTHING
        self._device = False
        self._draining: dict[ServiceKey, None] = {}
        self._rejected: dict[ServiceKey, list[KernelError]] = {}
        """Endpoints that the kernel takes for invalid, of services that did not change since."""
        self._own: frozenset[Address] | None = None
        self._lacking: KernelError | None = None
        """The scheduler, if it is found out that the kernel has not got it."""
        self._switched = False
        self._refused: list[KernelError] = []

    def supported(self) -> str | None:
        """Return None, or why this kernel cannot do it. Writes nothing.

        That the scheduler is missing is known when a sync has failed by that.
        """
        clients = (self._kernel.ipvs, self._kernel.ipset, self._kernel.iptables)
        why = next((why for client in clients if (why := client.supported())), None)
        if why is None and self._lacking is not None:
            return str(self._lacking)
        return why

    def reread(self) -> None:
        """Read the kernel's state now; the next sync compares with it."""
        self._trusted = False
        self._seen = self._rules = self._own = None
        self._switched = False
        self._flows.forget()
        self._rules = self._kernel.iptables.save(*chains.TABLES)
        self._seen = self._read()

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state (see :class:`kproxy.backends.base.Backend`)."""
        # Until all of it is known to have been written, nothing is known of the kernel.
        trusted, self._trusted = self._trusted, False
        delta = self._wanted.update(want.services, self._context(want))
        changes = self._resume(delta) if trusted else self._compare()
        steps = planning.plan(changes, self._sets)
        have, self._rules = self._rules or self._save_rules(), None
        wanted_rules = rules.rules(want, self._family, self._wanted.denied)
        table_changes = []
        if not trusted or wanted_rules != self._wanted_rules:
            table_changes = chains.plan(have, wanted_rules)
        planned(steps.writes() + chains.writes(table_changes))
        switched = self._switch(want)
        failed = kernel.write(self._kernel, steps, table_changes, device=self._device)
        forgotten, flow_errors = self._flows.sync(want, time.monotonic())
        failures = [*failed.errors, *self._unscheduled(failed.unscheduled)]
        if failures:
            # What is still there may have led flows astray since.
            self._flows.forget()
        else:
            self._rules = chains.applied(have, table_changes)
            self._wanted_rules = wanted_rules
            self._trusted = True
            self._device = self._device or bool(steps.addresses_add) or steps.bring_up
            self._draining = steps.draining
            for key in changes.services:
                self._rejected.pop(key, None)
            self._rejected.update(failed.rejected)
        writes = steps.writes() + chains.writes(table_changes) + switched + forgotten
        return self._result(writes, [*failures, *flow_errors], steps)

    def _result(
        self, writes: int, failures: Sequence[KernelError], steps: planning.Plan
    ) -> SyncResult:
        invalid = [error for error in failures if error.errno == errno.EINVAL]
        rejected = [error for errors in self._rejected.values() for error in errors]
        return SyncResult(
            writes=writes,
            failures=tuple(error for error in failures if error.errno != errno.EINVAL),
            refused=(*self._refused, *rejected, *invalid),
            invalid=self._wanted.invalid(),
            again_in=DRAIN_INTERVAL_S if steps.draining else None,
            swept=self._flows.take_swept(),
            flows_again_in=self._flows.take_again_in(),
        )

    def differences(self, want: State) -> Sequence[Difference]:
        """Return in what the kernel now differs from the wanted state. Writes nothing."""
        from kproxy.backends import chaindiff  # neither is needed to sync
        from kproxy.backends.ipvs import differences

        wanted = Wanted(self._sets)
        self._own = None
        wanted.update(want.services, self._context(want))
        changes = compare.compare(self._read(), wanted, self._sets, self._foreign)
        wanted_rules = rules.rules(want, self._family, wanted.denied)
        return [
            *differences.of_changes(changes, wanted),
            *chaindiff.differences(self._save_rules(), wanted_rules),
            *differences.of_switches(self._switches.wrong()),
        ]

    def weights(self, want: State) -> "Weights":
        """Return the real servers with weight 0, and which of them should have another one.

        Writes nothing. Raises KernelError.
        """
        from kproxy.backends.ipvs import weights  # not needed to sync

        wanted = Wanted(self._sets)
        self._own = None
        wanted.update(want.services, self._context(want))
        return weights.weigh(wanted.places, self._kernel.ipvs.read(wanted.places))

    def heal(self, stuck: "Sequence[Resting]") -> list[KernelError | None]:
        """Give these real servers their weight; return for each None or why not."""
        from kproxy.backends.ipvs import weights

        self._trusted = False
        return self._kernel.ipvs.run(weights.healing(stuck))

    def left_over(self) -> bool:
        """Return whether there are rules of ours, without which nothing of ours has effect."""
        tables = self._kernel.iptables
        return tables.in_use() and chains.any_ours(self._save_rules())

    def cleanup(self, *, keep_chains: bool = False) -> int:
        """Remove device, virtual services, sets and rules of this mode."""
        self._trusted = False
        seen = kernel.read(self._kernel, self._family, self._specs, check=False)
        changes = compare.compare(seen, Wanted(self._sets), self._sets, self._foreign)
        changes.sets.clear()
        steps = planning.plan(changes, self._sets)
        table_changes = [] if keep_chains else chains.plan(self._save_rules(), chains.NOTHING)
        failed = kernel.write(self._kernel, steps, table_changes, device=seen.device)
        removed = steps.writes() + chains.writes(table_changes)
        destroy = [ipset.DestroySet(name) for name in reversed(self._specs) if name in seen.sets]
        results = self._kernel.ipset.run(destroy) if destroy else []
        failed.errors += [error for error in results if error is not None]
        removed += len(destroy) + kernel.remove_device(self._kernel.links)
        base.raise_all("clean up ipvs", failed.errors)
        return removed

    def close(self) -> None:
        """Give the sockets back."""
        for client in (
            self._kernel.ipvs,
            self._kernel.ipset,
            self._kernel.links,
            self._kernel.conntrack,
        ):
            client.close()

    def _context(self, want: State) -> Context:
        own = frozenset(want.node_ports.addresses)
        return Context(
            family=self._family,
            scheduler=self._options.scheduler,
            node_ports=want.node_ports.addresses,
            own=own if want.node_ports.everywhere else own | self._own_addresses(want),
            pods=want.cluster_cidrs,
        )

    def _own_addresses(self, want: State) -> frozenset[Address]:
        """Return the node's own addresses, where node ports are not on all of them.

        Asked once after each reading, and only if an address of a service may be one of these.
        """
        if self._own is None:
            services = (one.service for one in want.services.values())
            if not any(one.external_ips or one.load_balancer_vips for one in services):
                return frozenset()
            self._own = frozenset(
                Address(str(address.ip))
                for device, address in self._kernel.links.local_addresses()
                if device != render.DEVICE and address.version == self._family
            )
        return self._own

    def _read(self) -> Seen:
        self._read_at = time.monotonic()
        return kernel.read(self._kernel, self._family, self._specs, check=True)

    def _save_rules(self) -> RuleSet:
        return self._kernel.iptables.save(*chains.TABLES)

    def _compare(self) -> planning.Changes:
        """Return the changes, from what all of the kernel holds."""
        seen, self._seen = self._seen or self._read(), None
        self._device = seen.device
        self._rejected = {}
        changes = compare.compare(seen, self._wanted, self._sets, self._foreign)
        if time.monotonic() - self._read_at > COUNTS_VALID_S:
            doubtful = planning.counted(changes)
            for key, have in self._kernel.ipvs.read(doubtful).items():
                changes.services[key] = have, changes.services[key][1]
        return changes

    def _resume(self, delta: Delta) -> planning.Changes:
        """Return the changes, from the services concerned alone: the kernel is as it was left."""
        changed = [
            key
            for key, was in delta.places.items()
            if (was is not None or self._foreign) and key in self._wanted.places
        ]
        if len(changed) > READ_SINGLY:
            return self._compare()
        read = self._kernel.ipvs.read(dict.fromkeys((*changed, *self._draining)))
        return compare.resume(delta, read, self._wanted, self._foreign)

    def _switch(self, want: State) -> int:
        """Set the kernel's switches, once after each reading; return how many were wrong.

        Not for nothing: a node that forwards IPv6 does not listen to router advertisements any
        more, unless accept_ra is 2.
        """
        if self._switched or (self._family is Family.IPV6 and not want.services):
            return 0
        self._switched = True
        count, self._refused = self._switches.set()
        return count

    def _unscheduled(self, errors: list[KernelError]) -> list[KernelError]:
        """Return one error for all services, if it is the scheduler that this kernel lacks."""
        if not errors:
            return errors
        from kproxy.backends.ipvs import schedulers  # not needed to sync

        error = schedulers.unknown(self._kernel.ipvs, self._options.scheduler)
        self._lacking = error
        return errors if error is None else [error]


def load(family: model.Family, options: base.Options) -> Backend:
    """Return this backend on the kernel of the current network namespace."""
    ip = base.FAMILIES[family]
    doors = Kernel(
        ipvs=IPVS(),
        ipset=Ipset(),
        iptables=Iptables(ip),
        links=Links(),
        conntrack=Conntrack(),
        sysctl=sysctls.Sysctl(),
        release=_release(os.uname().release),
    )
    return Backend(doors, ip, options)


def _release(text: str) -> tuple[int, int]:
    """Return major and minor version of ``6.1.0-18-amd64``."""
    major, minor = text.split(".")[:2]
    digits = "".join(itertools.takewhile(str.isdigit, minor))
    return int(major), int(digits)
