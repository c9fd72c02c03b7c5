"""IPVS objects as values: identity, configuration and observation are three types.

An identity (``…Key``) says which object is meant, a configuration (``…Config``) what is wanted of
it, an observation (``…Stats``, ``Traffic``) what the kernel counted. So a diff compares
configurations only, and equality is never hand-written. Operations are data too: a transaction is
a list of them.
Pure: a renderer may import this module.

A large node has 100,000 real servers, each of which is made, hashed, compared and written at every
start. So what names one is packed bytes (in network order), and operations are msgspec structs: as
tuples of ``ipaddress`` objects and as dataclasses they took most of the time of a start.
"""

import enum
import errno
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import msgspec

from kproxy.errors import KernelError
from kproxy.kernel import inet
from kproxy.kernel.inet import Family, IPAddress


class ServiceKey(bytes):
    """Which virtual service, what clients connect to: number of the protocol, address, port."""

    __slots__ = ()

    def __new__(cls, protocol: inet.Protocol, address: IPAddress, port: int) -> Self:
        """Return the key of a place."""
        return cls.of(protocol.number, address.packed, port.to_bytes(2, "big"))

    @classmethod
    def of(cls, number: int, address: bytes, port: bytes) -> Self:
        """Return the key of a place whose parts are packed already."""
        return bytes.__new__(cls, b"%c%b%b" % (number, address, port))

    @property
    def protocol(self) -> inet.Protocol:
        """The protocol."""
        return inet.PROTOCOLS[self[0]]

    @property
    def address(self) -> IPAddress:
        """The address."""
        return inet.unpacked(self[1:-2])

    @property
    def port(self) -> int:
        """The port."""
        return int.from_bytes(self[-2:], "big")

    @property
    def family(self) -> Family:
        """The IP family, which follows from the address."""
        return Family.IPV4 if len(self) == 7 else Family.IPV6

    def __str__(self) -> str:
        return f"{self.protocol} {inet.with_port(self.address, self.port)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class DestinationKey(bytes):
    """Which real server of a virtual service: its address, then its port."""

    __slots__ = ()

    def __new__(cls, address: IPAddress, port: int) -> Self:
        """Return the key of an address and a port."""
        return bytes.__new__(cls, address.packed + port.to_bytes(2, "big"))

    @classmethod
    def of(cls, packed: bytes) -> Self:
        """Return the key of these 6 (IPv4) or 18 bytes."""
        return bytes.__new__(cls, packed)

    @property
    def address(self) -> IPAddress:
        """The address."""
        return inet.unpacked(self[:-2])

    @property
    def port(self) -> int:
        """The port."""
        return int.from_bytes(self[-2:], "big")

    def __str__(self) -> str:
        return inet.with_port(self.address, self.port)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class ServiceFlags(enum.IntFlag):
    """Switches of a virtual service. SCHED1 and SCHED2 mean what its scheduler says."""

    NONE = 0
    PERSISTENT = 0x01
    ONE_PACKET = 0x04
    SCHED1 = 0x08
    SCHED2 = 0x10
    SCHED3 = 0x20
    SH_FALLBACK = 0x08
    SH_PORT = 0x10
    MH_FALLBACK = 0x08
    MH_PORT = 0x10


class Forwarding(enum.StrEnum):
    """How packets reach a real server. Words as in ``ipvsadm(8)``."""

    MASQUERADE = "masquerade"
    LOCAL = "local"
    TUNNEL = "tunnel"
    DIRECT = "direct"


class ServiceConfig(NamedTuple):
    """What a virtual service does.

    ``timeout`` (seconds) and ``netmask`` (prefix length by which clients are grouped; None means
    every client for itself) only matter to a PERSISTENT service, but the kernel keeps them always.
    """

    scheduler: str = "rr"
    flags: ServiceFlags = ServiceFlags.NONE
    timeout: int = 0
    netmask: int | None = None


class DestinationConfig(NamedTuple):
    """How a real server is used. Weight 0: no new connections, existing ones go on.

    Limits on its connections (``ipvsadm -x``, ``-y``) are not used: writing sets them to none.
    """

    weight: int = 1
    forwarding: Forwarding = Forwarding.MASQUERADE


class DestinationStats(NamedTuple):
    """Connections that a real server has at this moment."""

    active: int = 0
    inactive: int = 0


class Traffic(NamedTuple):
    """Counters of a service or destination since it was added (``stats64``)."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class DestinationEntry(NamedTuple):
    """A real server as the kernel has it."""

    config: DestinationConfig
    stats: DestinationStats


class ServiceEntry(NamedTuple):
    """A virtual service as the kernel has it, with its real servers."""

    config: ServiceConfig
    destinations: Mapping[DestinationKey, DestinationEntry]


class DestinationTraffic(NamedTuple):
    """Counters of a real server, its connections, and its clients that stick to it."""

    traffic: Traffic
    stats: DestinationStats
    persistent: int


class ServiceTraffic(NamedTuple):
    """Counters of a virtual service and of each of its real servers."""

    traffic: Traffic
    destinations: Mapping[DestinationKey, DestinationTraffic]


Dump = Mapping[ServiceKey, ServiceEntry]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """After how many idle seconds a connection is forgotten; 0 when setting: leave as it is."""

    tcp: int
    tcp_fin: int
    udp: int


@dataclass(frozen=True, slots=True)
class Info:
    """The kernel's IPVS: its version as (major, minor, patch), and the size of its hash table."""

    version: tuple[int, int, int]
    connection_table_size: int


class AddService(msgspec.Struct, frozen=True, gc=False):
    """Create a virtual service. AlreadyExists; NotFound if the scheduler is unknown.

    With all its real servers, if their keys are given in ``destinations``, one after the other,
    each used as ``use`` says. What is refused of one of these does not stop the others; it is told
    of the whole, and if several are refused that one is told which is not EINVAL.
    """

    service: ServiceKey
    config: ServiceConfig
    destinations: bytes = b""
    use: DestinationConfig = DestinationConfig()


class SetService(msgspec.Struct, frozen=True, gc=False):
    """Change a virtual service; its connections stay. NotFound (the service, or the scheduler)."""

    service: ServiceKey
    config: ServiceConfig


class DelService(msgspec.Struct, frozen=True, gc=False):
    """Remove a virtual service and its real servers. NotFound."""

    service: ServiceKey


class AddDestination(msgspec.Struct, frozen=True, gc=False):
    """Give a service a real server. AlreadyExists; NotFound if the service is missing."""

    service: ServiceKey
    destination: DestinationKey
    config: DestinationConfig


class SetDestination(msgspec.Struct, frozen=True, gc=False):
    """Change a real server; its connections stay. NotFound (the service, or the real server)."""

    service: ServiceKey
    destination: DestinationKey
    config: DestinationConfig


class DelDestination(msgspec.Struct, frozen=True, gc=False):
    """Take a real server away; its connections end. NotFound (the service, or the real server)."""

    service: ServiceKey
    destination: DestinationKey


Operation = AddService | SetService | DelService | AddDestination | SetDestination | DelDestination


class IPVSClient(Protocol):
    """What :class:`~kproxy.kernel.ipvs.client.IPVS` and its fake have in common."""

    def supported(self) -> str | None:
        """Return None, or in words why this kernel cannot do IPVS."""

    def run(self, transaction: Sequence[Operation]) -> list[KernelError | None]:
        """Do all operations in order; return for each None or why it failed.

        A failure stops none of the others. NotFound and AlreadyExists are kinds of KernelError.
        """

    def dump(self, family: Family | None = None) -> Dump:
        """Return every virtual service known by address, with its real servers.

        ``family``: those of one IP family only. Of the other one real servers are not read if the
        table is large.
        """

    def read(self, services: Iterable[ServiceKey]) -> Dump:
        """Return these virtual services, with their real servers; those that are not there not.

        What it costs depends on these services, not on the table.
        """

    def traffic(self) -> Mapping[ServiceKey, ServiceTraffic]:
        """Return the counters of every virtual service and real server. Slower than a dump."""

    def timeouts(self) -> Timeouts:
        """Return the time-outs of connections."""

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Set those time-outs that are not 0."""

    def info(self) -> Info:
        """Return version and table size of the kernel's IPVS."""

    def close(self) -> None:
        """Give the socket back."""


def destinations_of(operation: Operation) -> list[AddDestination]:
    """Return the real servers that a new service comes with, as operations of their own."""
    if not isinstance(operation, AddService):
        return []
    service, use = operation.service, operation.use
    return [AddDestination(service, key, use) for key in keys(service, operation.destinations)]


def keys(service: ServiceKey, row: bytes) -> list[DestinationKey]:
    """Return the keys of a service's real servers that stand in a row."""
    size = len(service) - 1
    return [DestinationKey.of(row[at : at + size]) for at in range(0, len(row), size)]


def size(operation: Operation) -> int:
    """Return how many virtual services and real servers an operation is about."""
    if not isinstance(operation, AddService):
        return 1
    return 1 + len(operation.destinations) // (len(operation.service) - 1)


def worst(errors: Sequence[KernelError]) -> KernelError | None:
    """Return the error to tell of an operation with several: one that may be mended, if any."""
    mendable = (error for error in errors if error.errno != errno.EINVAL)
    return next(mendable, errors[0] if errors else None)


def describe(operation: Operation) -> str:
    """Return what an operation does, for messages: ``add 10.0.0.9:80 to tcp 10.96.0.1:80``."""
    match operation:
        case AddService(service):
            return f"add virtual service {service}"
        case SetService(service):
            return f"change virtual service {service}"
        case DelService(service):
            return f"delete virtual service {service}"
        case AddDestination(service, destination):
            return f"add real server {destination} to {service}"
        case SetDestination(service, destination):
            return f"change real server {destination} of {service}"
        case DelDestination(service, destination):
            return f"delete real server {destination} of {service}"
