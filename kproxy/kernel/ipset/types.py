"""IP sets as values, and the operations on them. Words and forms as in ``ipset(8)``. Pure."""

import enum
import ipaddress
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import msgspec

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


class Entry(bytes):
    """One entry. Which parts are given follows from the set's type; ``net`` parts are networks.

    Where an address belongs, give no network: the kernel would add each of its addresses. The
    entries of a bitmap have a port and nothing else.

    It is packed, because a large node has tens of thousands: a byte that says which parts there
    are, then these, in network order: address, prefix length of a network, number of the protocol,
    port, second address, its prefix length.
    """

    __slots__ = ()

    def __new__(
        cls,
        address: IPAddress | IPNetwork | None,
        protocol: inet.Protocol | None = None,
        port: int | None = None,
        second: IPAddress | IPNetwork | None = None,
    ) -> Self:
        """Return the entry of these parts."""
        parts = [] if address is None else [_pack(address)]
        kind = 0 if address is None else _first(address)
        if protocol is not None:
            kind |= Has.PROTOCOL
            parts.append(bytes((protocol.number,)))
        if port is not None:
            kind |= Has.PORT
            parts.append(port.to_bytes(2, "big"))
        if second is not None:
            kind |= _second(second)
            parts.append(_pack(second))
        return bytes.__new__(cls, bytes((kind,)) + b"".join(parts))

    @classmethod
    def of_address(cls, address: bytes) -> Self:
        """Return the entry of a packed address alone."""
        return bytes.__new__(cls, _HOSTS[len(address)] + address)

    @classmethod
    def of_place(cls, address: bytes, number: int, port: bytes, second: bytes = b"") -> Self:
        """Return the entry of an address, a protocol's number and a port, all packed.

        And of a second address.
        """
        kind = (_TWO_PLACES if second else _PLACES)[len(address)]
        return bytes.__new__(cls, b"%b%b%c%b%b" % (kind, address, number, port, second))

    @property
    def parts(self) -> "Parts":
        """What it is made of."""
        return _parts(self)

    @property
    def address(self) -> IPAddress | IPNetwork | None:
        """The address or network."""
        return self.parts.address

    @property
    def protocol(self) -> inet.Protocol | None:
        """The protocol; None also if it is one without ports."""
        return self.parts.protocol

    @property
    def port(self) -> int | None:
        """The port."""
        return self.parts.port

    @property
    def second(self) -> IPAddress | IPNetwork | None:
        """The second address or network."""
        return self.parts.second

    def __str__(self) -> str:
        """As ``ipset list`` shows it: ``10.0.0.1,tcp:80,10.0.0.1``."""
        address, protocol, port, second = self.parts
        if address is None:
            return str(port)
        words = [_host_or_net(address)]
        if port is not None:
            words.append(f"{protocol}:{port}")
        if second is not None:
            words.append(_host_or_net(second))
        return ",".join(words)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class Parts(NamedTuple):
    """An entry taken apart."""

    address: IPAddress | IPNetwork | None
    protocol: inet.Protocol | None
    port: int | None
    second: IPAddress | IPNetwork | None


class Has(enum.IntFlag):
    """The first byte of an entry: which parts it has."""

    ADDRESS = 1
    NETWORK = 2
    """The address is a network's."""
    PROTOCOL = 4
    PORT = 8
    SECOND = 16
    SECOND_NETWORK = 32
    IPV6 = 64
    SECOND_IPV6 = 128


_HOSTS = {4: bytes((Has.ADDRESS,)), 16: bytes((Has.ADDRESS | Has.IPV6,))}
_PLACES = {size: bytes((kind[0] | Has.PROTOCOL | Has.PORT,)) for size, kind in _HOSTS.items()}
_TWO_PLACES = {
    size: bytes((kind[0] | Has.SECOND | (Has.SECOND_IPV6 if size == 16 else 0),))
    for size, kind in _PLACES.items()
}


def _first(value: IPAddress | IPNetwork) -> int:
    kind = Has.ADDRESS if value.version == 4 else Has.ADDRESS | Has.IPV6
    return kind | Has.NETWORK if _is_network(value) else kind


def _second(value: IPAddress | IPNetwork) -> int:
    kind = Has.SECOND if value.version == 4 else Has.SECOND | Has.SECOND_IPV6
    return kind | Has.SECOND_NETWORK if _is_network(value) else kind


def _is_network(value: IPAddress | IPNetwork) -> bool:
    return isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network)


def _pack(value: IPAddress | IPNetwork) -> bytes:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value.network_address.packed + bytes((value.prefixlen,))
    return value.packed


def _parts(entry: bytes) -> Parts:
    kind, rest = entry[0], entry[1:]
    address = protocol = port = second = None
    if kind & Has.ADDRESS:
        address, rest = _unpack(rest, ipv6=kind & Has.IPV6, network=kind & Has.NETWORK)
    if kind & Has.PROTOCOL:
        protocol, rest = inet.PROTOCOLS.get(rest[0]), rest[1:]
    if kind & Has.PORT:
        port, rest = int.from_bytes(rest[:2], "big"), rest[2:]
    if kind & Has.SECOND:
        second, rest = _unpack(
            rest, ipv6=kind & Has.SECOND_IPV6, network=kind & Has.SECOND_NETWORK
        )
    return Parts(address, protocol, port, second)


def _unpack(packed: bytes, *, ipv6: int, network: int) -> tuple[IPAddress | IPNetwork, bytes]:
    size = 16 if ipv6 else 4
    if network:
        return ipaddress.ip_network((packed[:size], packed[size])), packed[size + 1 :]
    return inet.unpacked(packed[:size]), packed[size:]


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


class AddEntry(msgspec.Struct, frozen=True, gc=False):
    """Put an entry into a set. AlreadyExists; NotFound if the set is missing."""

    name: str
    entry: Entry


class DelEntry(msgspec.Struct, frozen=True, gc=False):
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

    def dump(self, names: Container[str] | None = None) -> Dump:
        """Return every set whose type is a :class:`SetType`, by name; of these names, if given.

        Others may have sets of hundreds of thousands of entries.
        """

    def exists(self, name: str) -> bool:
        """Tell whether there is a set of this name, of whatever type."""

    def close(self) -> None:
        """Give the socket back."""


def _host_or_net(value: IPAddress | IPNetwork) -> str:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        full = value.prefixlen == value.max_prefixlen
        return str(value.network_address) if full else str(value)
    return str(value)
