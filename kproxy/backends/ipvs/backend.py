"""Keeps the kernel's IPVS, its device, sets and rules as a state wants them.

Read, compute, write: :meth:`Backend._read`, ``plan.plan``, :meth:`Backend._write`.
"""

import contextlib
import errno
import ipaddress
import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kproxy.backends import base, chains
from kproxy.backends.base import Planned, SyncResult, untold
from kproxy.backends.ipvs import plan as planning
from kproxy.backends.ipvs import render
from kproxy.backends.udpflows import StaleFlows
from kproxy.desired import model
from kproxy.desired.model import State
from kproxy.errors import KernelError, NotFound
from kproxy.kernel import sysctl as sysctls
from kproxy.kernel.conntrack.client import Conntrack
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.inet import Family, IPAddress
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.ipset.types import IpsetClient
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.types import IptablesClient, RuleSet, TableChange
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.ipvs.types import IPVSClient, ServiceConfig, Timeouts
from kproxy.kernel.links.client import Links
from kproxy.kernel.links.types import LinksClient, host_interface
from kproxy.kernel.sysctl import SysctlClient

DRAIN_INTERVAL_S = 60.0
"""So often endpoints with weight 0 are looked at, as in kube-proxy."""

COUNTS_VALID_S = 1.0
"""So long what the kernel said of connections is good enough to remove an endpoint by: a restarted
proxy reads the kernel once, not twice."""

SYSCTLS: Mapping[str, str] = {
    "net/ipv4/vs/conntrack": "1",  # masquerading is done by rules, which need tracked connections
    "net/ipv4/vs/expire_nodest_conn": "1",  # flows of an endpoint that is gone end or move
    "net/ipv4/vs/expire_quiescent_template": "1",
}
FORWARDING = {
    Family.IPV4: ("net/ipv4/ip_forward", "1"),
    Family.IPV6: ("net/ipv6/conf/all/forwarding", "1"),
}
STRICT_ARP = {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
REUSE_MODE = "net/ipv4/vs/conn_reuse_mode"
REUSE_MODE_BROKEN = ((4, 1), (5, 9))
"""In kernels from the first to before the second, a connection from a reused port was delayed by a
second unless the mode is 0; from 5.9 the kernel's own 1 is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The doors to the kernel that this backend uses."""

    ipvs: IPVSClient
    ipset: IpsetClient
    iptables: IptablesClient
    links: LinksClient
    conntrack: ConntrackClient
    sysctl: SysctlClient
    release: tuple[int, int]
    """Version of the kernel: major, minor."""


class Backend:
    """IPVS for one IP family of the current network namespace. Not safe for several threads."""

    name: ClassVar[str] = "ipvs"

    def __init__(
        self,
        kernel: Kernel,
        family: Family,
        options: base.Options = base.Options(),  # noqa: B008
    ) -> None:
        self._kernel = kernel
        self._family = family
        self._names = render.SETS[family]
        self._specs = self._names.specs(family)
        self._options = options
        self._conventions = planning.Conventions(
            names=self._names,
            specs=self._specs,
            service=ServiceConfig(scheduler=options.scheduler),
            foreign=tuple(ipaddress.ip_network(cidr) for cidr in options.exclude_cidrs),
        )
        self._renderer = render.Renderer()
        self._flows = StaleFlows(kernel.conntrack, family, keep_last=False)
        self._seen: planning.Seen | None = None
        self._rules: RuleSet | None = None
        self._read_at = float("-inf")
        self._switched = False
        self._refused: tuple[KernelError, ...] = ()

    def supported(self) -> str | None:
        """Return None, or why this kernel cannot do it."""
        clients = (self._kernel.ipvs, self._kernel.ipset, self._kernel.iptables)
        return next((why for client in clients if (why := client.supported())), None)

    def reread(self) -> None:
        """Read the kernel's state now; the next sync compares with it."""
        self._seen = self._rules = None
        self._switched = False
        self._flows.forget()
        self._rules = self._kernel.iptables.save(*chains.TABLES)
        self._seen = self._read()

    def sync(self, want: State, planned: Planned = untold) -> SyncResult:
        """Make the kernel hold the wanted state (see :class:`kproxy.backends.base.Backend`)."""
        tables = self._renderer.render(want)
        seen = self._seen
        stale = time.monotonic() - self._read_at > COUNTS_VALID_S
        if seen is None or (stale and planning.needs_counts(seen, tables)):
            seen = self._read()
        if self._rules is None:
            self._rules = self._kernel.iptables.save(*chains.TABLES)
        steps = planning.plan(seen, tables, self._conventions)
        changes = chains.plan(self._rules, render.rules(want))
        planned(planning.writes(steps) + chains.writes(changes))
        # Until all of it is known to have been written, nothing is known of the kernel.
        rules, self._seen, self._rules = self._rules, None, None
        self._read_at = float("-inf")
        switched = self._switch(want)
        errors = self._write(steps, changes, device=seen.device)
        forgotten, more = self._flows.sync(want)
        errors += more
        failures = tuple(error for error in errors if error.errno != errno.EINVAL)
        refused = tuple(error for error in errors if error.errno == errno.EINVAL)
        if not errors:
            self._rules = chains.applied(rules, changes)
            if not steps.draining:
                config = self._conventions.service
                self._seen = planning.after(seen, tables, steps, config)
        writes = planning.writes(steps) + chains.writes(changes) + switched + forgotten
        again = DRAIN_INTERVAL_S if steps.draining else None
        return SyncResult(
            writes=writes,
            failures=failures,
            refused=(*self._refused, *refused),
            invalid=self._renderer.invalid,
            again_in=again,
        )

    def left_over(self) -> bool:
        """Return whether there are rules of ours, without which nothing of ours has effect."""
        tables = self._kernel.iptables
        return tables.in_use() and chains.any_ours(tables.save(*chains.TABLES))

    def cleanup(self) -> int:
        """Remove device, virtual services, sets and rules of this mode."""
        seen = self._read(cleaning=True)
        rules = self._kernel.iptables.save(*chains.TABLES)
        self._seen = self._rules = None
        empty = render.Tables(sets={name: set() for name in self._specs})
        steps = planning.plan(seen, empty, self._conventions)
        steps.sets_add.clear()
        changes = chains.plan(rules, chains.NOTHING)
        failures = self._write(steps, changes, device=seen.device)
        removed = planning.writes(steps) + chains.writes(changes)
        destroy = [ipset.DestroySet(name) for name in reversed(self._specs) if name in seen.sets]
        failures += _errors(self._kernel.ipset.run(destroy)) if destroy else []
        removed += len(destroy) + self._remove_device()
        base.raise_all("clean up ipvs", failures)
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

    def _remove_device(self) -> int:
        """Remove the device unless it still carries the addresses of the other family."""
        links = self._kernel.links
        try:
            if links.addresses(render.DEVICE):
                return 0
            links.remove(render.DEVICE)
        except NotFound:
            return 0
        return 1

    def _read(self, *, cleaning: bool = False) -> planning.Seen:
        """Read all but the rules. KernelError: a set of ours has another type."""
        kernel = self._kernel
        self._read_at = time.monotonic()
        services = {
            key: entry
            for key, entry in kernel.ipvs.dump().items()
            if key.address.version == self._family
        }
        addresses = None
        with contextlib.suppress(NotFound):
            addresses = kernel.links.addresses(render.DEVICE)
        sets = kernel.ipset.dump()
        if not cleaning:
            self._check_types(sets)
        return planning.Seen(
            services=services,
            device=addresses is not None,
            addresses={a.ip for a in addresses or () if a.version == self._family},
            sets={name: set(sets[name].entries) for name in self._specs if name in sets},
        )

    def _check_types(self, sets: Mapping[str, ipset.SetEntry]) -> None:
        for name, spec in self._specs.items():
            if name in sets:
                found = sets[name].spec
                kind = f"{found.type} for IPv{found.family}"
                # Of another size it may be: an older proxy may have made it.
                wrong = (found.type, found.family) != (spec.type, spec.family)
            else:
                kind = "of a type that is never used here"
                wrong = self._kernel.ipset.exists(name)
            if wrong:
                raise KernelError(
                    f"use IP set {name}",
                    errno.EEXIST,
                    f"it is {kind}, and must be {spec.type} for IPv{spec.family}",
                    remedy=f"delete the rules that use it, then: ipset destroy {name}",
                )

    def _switch(self, want: State) -> int:
        """Set the kernel's switches, once after each reading; return how many were wrong.

        Not for nothing: a node that forwards IPv6 does not listen to router advertisements any
        more, unless accept_ra is 2.
        Where /proc/sys is read-only, as in a container, somebody else sees to it.
        """
        if self._switched or (self._family is Family.IPV6 and not want.services):
            return 0
        self._switched = True
        switches = dict(SYSCTLS)
        first_broken, first_good = REUSE_MODE_BROKEN
        if first_broken <= self._kernel.release < first_good:
            switches[REUSE_MODE] = "0"
        switches.update([FORWARDING[self._family]])
        if self._options.strict_arp:
            switches |= STRICT_ARP
        count = 0
        refused = []
        for key, value in switches.items():
            try:
                count += sysctls.ensure(self._kernel.sysctl, key, value)
            except KernelError as error:
                refused.append(error)
        try:
            self._set_timeouts()
        except KernelError as error:
            refused.append(error)
        self._refused = tuple(refused)
        return count

    def _set_timeouts(self) -> None:
        options = self._options
        wanted = Timeouts(
            tcp=options.tcp_timeout_s, tcp_fin=options.tcp_fin_timeout_s, udp=options.udp_timeout_s
        )
        if wanted != Timeouts(0, 0, 0):
            self._kernel.ipvs.set_timeouts(wanted)

    def _write(
        self, steps: planning.Plan, changes: Sequence[TableChange], *, device: bool
    ) -> list[KernelError]:
        """Write the steps in their order; return what the kernel refused."""
        kernel = self._kernel
        failures: list[KernelError] = []
        if steps.sets_add:
            failures += _errors(kernel.ipset.run(steps.sets_add))
        if changes:
            try:
                kernel.iptables.restore(changes)
            except KernelError as error:
                failures.append(error)
        if steps.ipvs_add:
            failures += _errors(kernel.ipvs.run(steps.ipvs_add))
        failures += self._add_addresses(steps.addresses_add, device=device)
        if steps.sets_refuse:
            failures += _errors(kernel.ipset.run(steps.sets_refuse))
        if steps.ipvs_remove:
            refused = _errors(kernel.ipvs.run(steps.ipvs_remove))
            if refused:
                # Its address tells that a virtual service is ours: it has to outlive it.
                return failures + refused
        if steps.addresses_remove:
            gone = [host_interface(address) for address in steps.addresses_remove]
            failures += _errors(kernel.links.remove_addresses(render.DEVICE, gone))
        if steps.sets_remove:
            failures += _errors(kernel.ipset.run(steps.sets_remove))
        return failures

    def _add_addresses(self, addresses: Sequence[IPAddress], *, device: bool) -> list[KernelError]:
        new = [host_interface(address) for address in addresses]
        try:
            if not device and new:
                self._kernel.links.ensure_dummy(render.DEVICE, new)
            elif new:
                return _errors(self._kernel.links.add_addresses(render.DEVICE, new))
        except KernelError as error:
            return [error]
        return []


def _errors(results: Iterable[KernelError | None]) -> list[KernelError]:
    """Return what failed.

    That an object is there or gone already is a failure, too: the state was not as it was read,
    so the next sync has to look again.
    """
    return [error for error in results if error is not None]


def load(family: model.Family, options: base.Options) -> Backend:
    """Return this backend on the kernel of the current network namespace."""
    ip = base.FAMILIES[family]
    kernel = Kernel(
        ipvs=IPVS(),
        ipset=Ipset(),
        iptables=Iptables(ip),
        links=Links(),
        conntrack=Conntrack(),
        sysctl=sysctls.Sysctl(),
        release=_release(os.uname().release),
    )
    return Backend(kernel, ip, options)


def _release(text: str) -> tuple[int, int]:
    """Return major and minor version of ``6.1.0-18-amd64``."""
    major, minor = text.split(".")[:2]
    digits = "".join(itertools.takewhile(str.isdigit, minor))
    return int(major), int(digits)
