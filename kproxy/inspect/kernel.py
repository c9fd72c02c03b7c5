"""What the kernel of this machine holds, held against what is wanted. Reads only."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kproxy.agent.node import SERVICE_DEVICE
from kproxy.backends import base
from kproxy.backends.base import Backend, Difference, Options
from kproxy.desired.model import Family, State
from kproxy.errors import Unsupported, UsageError

IPVS, IPTABLES = "ipvs", "iptables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """In what the kernel differs from the wanted state of one family."""

    family: Family
    differences: Sequence[Difference]
    skipped: str = ""
    """Why it was not compared; only a family in which nothing is wanted may be skipped."""


def is_root() -> bool:
    """Return whether the kernel shows us its rules."""
    return os.geteuid() == 0


def require_root() -> None:
    """Raise UsageError for users to whom the kernel shows no rules at all instead of refusing."""
    if not is_root():
        raise UsageError("reading the kernel's rules needs root", remedy="run it as root")


def modes_in_use(options: Options) -> list[str]:
    """Return the modes that have left something in this kernel. KernelError.

    The chains of ipvs and iptables mode have the same names: the device of ipvs mode tells them
    apart.
    """
    found = [mode for mode in base.BACKENDS if _left_over(mode, options)]
    if IPVS in found and IPTABLES in found:
        from kproxy.kernel.links.client import Links

        links = Links()
        try:
            found.remove(IPTABLES if links.exists(SERVICE_DEVICE) else IPVS)
        finally:
            links.close()
    return found


def detect_mode(options: Options) -> str:
    """Return the mode whose rules are in this kernel; empty if there are none.

    Raises UsageError if there are rules of several.
    """
    found = modes_in_use(options)
    if len(found) > 1:
        raise UsageError(
            f"the kernel holds rules of several modes: {', '.join(found)}", remedy="give --mode"
        )
    return found[0] if found else ""


def _left_over(mode: str, options: Options) -> bool:
    for family in Family:
        try:
            with opened(mode, family, options) as backend:
                if backend.left_over():
                    return True
        except Unsupported:
            continue
    return False


@contextmanager
def opened(mode: str, family: Family, options: Options) -> Iterator[Backend]:
    """Open a backend, and close it. Unsupported: this kernel cannot do it."""
    backend = base.loader(mode)(family, options)
    try:
        if (why := backend.supported()) is not None:
            raise Unsupported(f"mode {mode}, {family}: {why}")
        yield backend
    finally:
        backend.close()


def compare(mode: str, want: State, options: Options) -> Comparison:
    """Compare the kernel with the wanted state. KernelError, Unsupported: it cannot be read."""
    try:
        with opened(mode, want.family, options) as backend:
            if not want.services and not backend.left_over():
                # No proxy touches a family that nobody uses.
                why = "no services, nothing in the kernel"
                return Comparison(family=want.family, differences=(), skipped=why)
            differences = tuple(backend.differences(want))
    except Unsupported as error:
        if want.services:
            raise
        return Comparison(family=want.family, differences=(), skipped=str(error))
    return Comparison(family=want.family, differences=differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealServer:
    """A real server as the kernel has it."""

    place: str
    weight: int
    active: int
    inactive: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualServer:
    """A virtual server as the kernel has it."""

    place: str
    scheduler: str
    real_servers: tuple[RealServer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What the kernel holds of one mode."""

    virtual_servers: tuple[VirtualServer, ...] = ()
    counts: Sequence[tuple[str, int]] = ()
    """Kinds of objects, and how many there are."""


def holdings(mode: str) -> Holdings:
    """Return what the kernel holds of a mode, in all families. KernelError, Unsupported."""
    if mode == IPVS:
        return _ipvs()
    return Holdings(counts=_chains() if mode == IPTABLES else _tables())


def _ipvs() -> Holdings:
    from kproxy.kernel.ipset.client import Ipset
    from kproxy.kernel.ipvs import client as ipvs

    client, sets = ipvs.IPVS(), Ipset()
    try:
        if (why := client.supported()) is not None:
            raise Unsupported(f"mode ipvs: {why}")
        servers = tuple(
            VirtualServer(
                place=str(key),
                scheduler=entry.config.scheduler,
                real_servers=tuple(
                    RealServer(
                        place=str(at),
                        weight=one.config.weight,
                        active=one.stats.active,
                        inactive=one.stats.inactive,
                    )
                    for at, one in sorted(entry.destinations.items(), key=str)
                ),
            )
            for key, entry in sorted(client.dump().items(), key=str)
        )
        ours = {name: entry for name, entry in sets.dump().items() if name.startswith("KUBE-")}
        entries = sum(len(entry.entries) for entry in ours.values())
    finally:
        client.close()
        sets.close()
    counts = [
        ("virtual servers", len(servers)),
        ("real servers", sum(len(one.real_servers) for one in servers)),
        ("IP sets", len(ours)),
        ("entries of IP sets", entries),
        *_chains(),
    ]
    return Holdings(virtual_servers=servers, counts=counts)


def _chains() -> list[tuple[str, int]]:
    from kproxy.backends import chains
    from kproxy.kernel.iptables.client import Iptables

    counts = []
    for family, ip in base.FAMILIES.items():
        client = Iptables(ip)
        if client.supported() is not None or not client.in_use():
            continue
        for table, held in client.save(*chains.TABLES).items():
            ours = [chain for name, chain in held.items() if chains.is_ours(name)]
            if ours:
                rules = sum(len(chain.rules) for chain in ours)
                counts.append((f"{family} chains of table {table}", len(ours)))
                counts.append((f"{family} rules in chains of table {table}", rules))
    return counts


def _tables() -> list[tuple[str, int]]:
    from kproxy.backends.nftables.layout import TABLE
    from kproxy.kernel.nft.client import Nft

    counts = []
    for family, ip in base.FAMILIES.items():
        with Nft(ip, TABLE) as client:
            table = client.read()
        if table is None:
            continue
        counts += [
            (f"{family} chains", len(table.chains)),
            (f"{family} rules", sum(len(chain.rules) for chain in table.chains.values())),
            (f"{family} sets and maps", len(table.sets)),
            (f"{family} elements of them", sum(map(len, table.elements.values()))),
        ]
    return counts
