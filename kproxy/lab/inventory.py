"""What proxies of any mode have in a node's kernel, object by object: who leaves what behind.

Read anew from the kernel with the libraries of each facility, not asked of a proxy. An object is
known by its kind and its name, so two readings, also of two nodes, can be compared.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kproxy.backends import chains
from kproxy.backends.ipvs.render import DEVICE
from kproxy.backends.nftables.layout import TABLE
from kproxy.errors import NotFound, Unsupported
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset.client import Ipset
from kproxy.kernel.iptables.client import Iptables
from kproxy.kernel.iptables.text import target_of
from kproxy.kernel.ipvs.client import IPVS
from kproxy.kernel.links.client import Links
from kproxy.kernel.nft.client import Nft
from kproxy.kernel.sysctl import Sysctl
from kproxy.traffic.switchset import LeftBehind

SWITCHES = (
    *(
        f"net/ipv4/vs/{name}"
        for name in ("conntrack", "conn_reuse_mode", "expire_nodest_conn", "sloppy_tcp")
    ),
    "net/ipv4/vs/expire_quiescent_template",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_announce",
)
"""Switches of the kernel that proxies set and others do not, in these labs."""
CONNECTION = "IPVS connection"
_CONNECTIONS = Path("/proc/thread-self/net/ip_vs_conn")
_LEGACY = {Family.IPV4: "ip_tables_names", Family.IPV6: "ip6_tables_names"}


class Item(NamedTuple):
    """One object of the kernel."""

    kind: str
    name: str


def read() -> frozenset[Item]:
    """Return all that is there, in the network namespace of the caller. Raises KernelError."""
    found: set[Item] = set()
    for reader in (_ipvs, _connections, _sets, _device, _iptables, _nftables, _switches):
        found.update(_available(reader))
    return frozenset(found)


def left_behind(
    before: frozenset[Item], after: frozenset[Item], fresh: frozenset[Item]
) -> tuple[LeftBehind, ...]:
    """Return what was there before, is there after, and is not where the new mode is alone."""
    left = sorted((before & after) - fresh)
    kinds = dict.fromkeys(item.kind for item in left)
    return tuple(
        LeftBehind(kind=kind, names=tuple(item.name for item in left if item.kind == kind))
        for kind in kinds
    )


def _available(reader: Callable[[], Iterator[Item]]) -> list[Item]:
    """Read, or nothing: a kernel without a facility has none of its objects."""
    try:
        return list(reader())
    except Unsupported:
        return []


def _ipvs() -> Iterator[Item]:
    with IPVS() as ipvs:
        for key, entry in ipvs.dump().items():
            yield Item("virtual server", str(key))
            for destination in entry.destinations:
                yield Item("real server", f"{key} {destination}")


def _connections() -> Iterator[Item]:
    """Yield IPVS' own table of connections, which lives apart from virtual servers."""
    try:
        lines = _CONNECTIONS.read_text().splitlines()[1:]
    except FileNotFoundError:
        return
    for line in lines:
        yield Item(CONNECTION, " ".join(line.split()[:7]))


def _sets() -> Iterator[Item]:
    with Ipset() as sets:
        for name in sets.dump():
            if name.startswith("KUBE-"):
                yield Item("IP set", name)


def _device() -> Iterator[Item]:
    with Links() as links:
        if links.exists(DEVICE):
            yield Item("device", DEVICE)
            for address in links.addresses(DEVICE):
                yield Item("address", f"{address} on {DEVICE}")


def _iptables() -> Iterator[Item]:
    for family in Family:
        tool = Iptables(family)
        if not tool.in_use():
            continue
        yield from _tables(family)
        name = "iptables" if family is Family.IPV4 else "ip6tables"
        for table, found in tool.save(*chains.TABLES).items():
            for chain, content in found.items():
                if chains.is_ours(chain):
                    yield Item("chain", f"{name} {table} {chain}")
                for rule in content.rules if content.policy is not None else ():
                    if chains.is_ours(target_of(rule) or ""):
                        yield Item("rule", f"{name} {table} {rule}")


def _tables(family: Family) -> Iterator[Item]:
    """Yield tables of iptables, which stay hooked into the packets' way when they are empty."""
    legacy = Path("/proc/thread-self/net", _LEGACY[family])
    names = legacy.read_text().split() if legacy.exists() else []
    for table in chains.TABLES:
        if table in names or _has_table(family, table):
            yield Item("table", f"{'ip' if family is Family.IPV4 else 'ip6'} {table}")


def _has_table(family: Family, table: str) -> bool:
    with Nft(family, table) as nft:
        try:
            return nft.exists()
        except Unsupported:
            return False


def _nftables() -> Iterator[Item]:
    for family in Family:
        with Nft(family, TABLE) as nft:
            table = nft.read() if nft.exists() else None
        if table is None:
            continue
        name = f"{'ip' if family is Family.IPV4 else 'ip6'} {TABLE}"
        yield Item("table", name)
        for chain in table.chains:
            yield Item("chain", f"{name} {chain}")
        for one in table.sets:
            yield Item("set", f"{name} {one}")


def _switches() -> Iterator[Item]:
    sysctl = Sysctl()
    for key in SWITCHES:
        try:
            yield Item("switch", f"{key}={sysctl.get(key)}")
        except NotFound:
            continue
