"""The parts of the kernel that ipvs mode uses: reading them, and writing a plan."""

import contextlib
import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kproxy.backends.ipvs.compare import Seen
from kproxy.backends.ipvs.plan import Plan
from kproxy.backends.ipvs.render import DEVICE
from kproxy.errors import KernelError, NotFound
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.inet import Family, IPAddress
from kproxy.kernel.ipset import types as ipset
from kproxy.kernel.ipset.types import IpsetClient, SetSpec
from kproxy.kernel.iptables.types import IptablesClient, TableChange
from kproxy.kernel.ipvs import types as ipvs
from kproxy.kernel.ipvs.types import IPVSClient, ServiceKey
from kproxy.kernel.links.types import LinksClient
from kproxy.kernel.sysctl import SysctlClient


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


@dataclass(slots=True)
class Failed:
    """What was not done.

    That something is there or gone already is a failure, too: the state was not as it was read,
    so the next sync has to look again.
    """

    errors: list[KernelError] = field(default_factory=list)
    unscheduled: list[KernelError] = field(default_factory=list)
    """Virtual services whose scheduler the kernel seems not to know."""
    rejected: dict[ServiceKey, list[KernelError]] = field(default_factory=dict)
    """Endpoints that the kernel takes for invalid, and will next time."""


def read(kernel: Kernel, family: Family, specs: Mapping[str, SetSpec], *, check: bool) -> Seen:
    """Read all but the rules. ``check``: raise KernelError if a set of ours has another type."""
    addresses, device, size = frozenset[bytes](), False, family.bits // 8
    with contextlib.suppress(NotFound):
        addresses = kernel.links.host_addresses(DEVICE)
        # IPv4 addresses are local also on a device that was set down.
        device = family is Family.IPV4 or kernel.links.is_up(DEVICE)
    sets = kernel.ipset.dump(specs)
    if check:
        _check_types(kernel.ipset, specs, sets)
    return Seen(
        services=kernel.ipvs.dump(family),
        device=device,
        addresses=frozenset(one for one in addresses if len(one) == size),
        sets={name: sets[name].entries for name in specs if name in sets},
    )


def _check_types(
    client: IpsetClient, specs: Mapping[str, SetSpec], sets: Mapping[str, ipset.SetEntry]
) -> None:
    for name, spec in specs.items():
        if name in sets:
            found = sets[name].spec
            kind = f"{found.type} for IPv{found.family}"
            # Of another size it may be: an older proxy may have made it.
            wrong = (found.type, found.family) != (spec.type, spec.family)
        else:
            kind = "of a type that is never used here"
            wrong = client.exists(name)
        if wrong:
            raise KernelError(
                f"use IP set {name}",
                errno.EEXIST,
                f"it is {kind}, and must be {spec.type} for IPv{spec.family}",
                remedy=f"delete the rules that use it, then: ipset destroy {name}",
            )


def write(kernel: Kernel, steps: Plan, changes: Sequence[TableChange], *, device: bool) -> Failed:
    """Write the steps in their order; return what was refused. All else was done.

    The address of a virtual service that could not be made is not bound: it would lead to ports of
    the node.
    """
    failed = Failed()
    if steps.sets_first:
        failed.errors += _errors(kernel.ipset.run(steps.sets_first))
    if changes:
        try:
            kernel.iptables.restore(changes)
        except KernelError as error:
            failed.errors.append(error)
    unserved = _run_ipvs(kernel.ipvs, steps.ipvs_add, failed)
    bind = [address for address in steps.addresses_add if address not in unserved]
    if bind or steps.bring_up:
        failed.errors += _add_addresses(kernel.links, bind, device=device)
    if steps.sets_refuse:
        failed.errors += _errors(kernel.ipset.run(steps.sets_refuse))
    known = len(failed.errors)
    _run_ipvs(kernel.ipvs, steps.ipvs_remove, failed)
    if len(failed.errors) > known:
        # Its address tells that a virtual service is ours: it has to outlive it.
        return failed
    if steps.addresses_remove:
        gone = kernel.links.remove_addresses(DEVICE, steps.addresses_remove)
        failed.errors += _errors(gone)
    if steps.sets_last:
        failed.errors += _errors(kernel.ipset.run(steps.sets_last))
    return failed


def _run_ipvs(
    client: IPVSClient, operations: Sequence[ipvs.Operation], failed: Failed
) -> set[IPAddress]:
    """Write operations, note what was refused; return the addresses of services not made."""
    unserved: set[IPAddress] = set()
    results = client.run(operations) if operations else []
    if not any(results):
        return unserved
    for operation, error in zip(operations, results, strict=True):
        if error is None:
            continue
        service = operation.service
        if error.errno == errno.EINVAL and error.operation.startswith("add real server"):
            failed.rejected.setdefault(service, []).append(error)
            continue
        if isinstance(operation, ipvs.AddService) and error.errno != errno.EEXIST:
            unserved.add(service.address)
        scheduled = isinstance(operation, ipvs.AddService | ipvs.SetService)
        if scheduled and error.errno in (errno.ENOENT, errno.EINVAL):
            failed.unscheduled.append(error)
        else:
            failed.errors.append(error)
    return unserved


def _add_addresses(
    links: LinksClient, addresses: Sequence[IPAddress], *, device: bool
) -> list[KernelError]:
    try:
        if device:
            return _errors(links.add_addresses(DEVICE, addresses))
        links.ensure_dummy(DEVICE, addresses)
    except KernelError as error:
        return [error]
    return []


def remove_device(links: LinksClient) -> int:
    """Remove the device unless it still carries the addresses of the other family."""
    try:
        if links.addresses(DEVICE):
            return 0
        links.remove(DEVICE)
    except NotFound:
        return 0
    return 1


def _errors(results: Iterable[KernelError | None]) -> list[KernelError]:
    """Return what failed."""
    return [error for error in results if error is not None]
