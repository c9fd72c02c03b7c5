"""IP sets as values, and the operations on them. Words and forms as in ``ipset(8)``. Pure."""

import enum
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPAddress, IPNetwork

NAME_LENGTH_MAX = 31
"""Longest name of a set in bytes (IPSET_MAXNAMELEN less its closing zero)."""


class SetType(enum.StrEnum):
    """What the entries of a set are made of."""

    HASH_IP = "hash:ip"
    HASH_NET = "hash:net"
    HASH_IP_PORT = "hash:ip,port"
    HASH_IP_PORT_IP = "hash:ip,port,ip"
    HASH_IP_PORT_NET = "hash:ip,port,net"
    BITMAP_PORT = "bitmap:port"
    """Of all ports; it knows no IP family: by convention its is IPv4."""

    @property
    def parts(self) -> tuple[str, ...]:
        """``("ip", "port", "net")`` for ``hash:ip,port,net``."""
        return tuple(self.value.partition(":")[2].split(","))


@dataclass(frozen=True, slots=True)
class SetSpec:
    """How a set is made. It cannot be changed later: make another and swap."""

    type: SetType
    family: Family = Family.IPV4
    max_elements: int = 65536
    """Of a bitmap, whose size is given by its range, always this."""


class Entry(NamedTuple):
    """One entry. Which parts are given follows from the set's type; ``net`` parts are networks.

    Where an address belongs, give no network: the kernel would add each of its addresses. The
    entries of a bitmap have a port and nothing else.
    """

    address: IPAddress | IPNetwork | None
    protocol: inet.Protocol | None = None
    port: int | None = None
    second: IPAddress | IPNetwork | None = None

    def __str__(self) -> str:
        """As ``ipset list`` shows it: ``10.0.0.1,tcp:80,10.0.0.1``."""
        if self.address is None:
            return str(self.port)
        parts = [_host_or_net(self.address)]
        if self.protocol is not None:
            parts.append(f"{self.protocol}:{self.port}")
        if self.second is not None:
            parts.append(_host_or_net(self.second))
        return ",".join(parts)


class SetEntry(NamedTuple):
    """A set as the kernel has it. ``references``: by how many rules and sets it is used."""

    spec: SetSpec
    entries: frozenset[Entry]
    references: int = 0


Dump = Mapping[str, SetEntry]


@dataclass(frozen=True, slots=True)
class CreateSet:
    """Make an empty set. AlreadyExists, also if one of another type has this name."""

    name: str
    spec: SetSpec


@dataclass(frozen=True, slots=True)
class DestroySet:
    """Remove a set with its entries. NotFound; EBUSY while a rule names it."""

    name: str


@dataclass(frozen=True, slots=True)
class FlushSet:
    """Empty a set. NotFound."""

    name: str


@dataclass(frozen=True, slots=True)
class SwapSets:
    """Exchange the contents of two sets of the same type. NotFound."""

    name: str
    other: str


@dataclass(frozen=True, slots=True)
class AddEntry:
    """Put an entry into a set. AlreadyExists; NotFound if the set is missing."""

    name: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class DelEntry:
    """Take an entry out of a set. NotFound (the set, or the entry)."""

    name: str
    entry: Entry


Operation = CreateSet | DestroySet | FlushSet | SwapSets | AddEntry | DelEntry


def describe(operation: Operation) -> str:
    """Return what an operation does, for messages."""
    match operation:
        case CreateSet(name, spec):
            return f"create IP set {name} {spec.type}"
        case DestroySet(name):
            return f"destroy IP set {name}"
        case FlushSet(name):
            return f"flush IP set {name}"
        case SwapSets(name, other):
            return f"swap IP sets {name} and {other}"
        case AddEntry(name, entry):
            return f"add {entry} to IP set {name}"
        case DelEntry(name, entry):
            return f"delete {entry} from IP set {name}"


class IpsetClient(Protocol):
    """What :class:`~kproxy.kernel.ipset.client.Ipset` and its fake have in common."""

    def supported(self) -> str | None:
        """Return None, or in words why this kernel cannot do IP sets."""

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed.

        A failure stops none of the others.
        """

    def dump(self) -> Dump:
        """Return every set whose type is a :class:`SetType`, by name."""

    def exists(self, name: str) -> bool:
        """Tell whether there is a set of this name, of whatever type."""

    def close(self) -> None:
        """Give the socket back."""


def _host_or_net(value: IPAddress | IPNetwork) -> str:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        full = value.prefixlen == value.max_prefixlen
        return str(value.network_address) if full else str(value)
    return str(value)
