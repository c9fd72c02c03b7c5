"""Routes and neighbours as values. Pure."""

import enum
from dataclasses import dataclass
from typing import Protocol

from kproxy.kernel.inet import Family, IPAddress


class RouteKind(enum.IntEnum):
    """What a route does with a packet; the kernel's numbers."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8

    @property
    def words(self) -> str:
        """Return it in a user's words."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A packet whose route is asked for, as far as rules and routes may look at it.

    ``arrives_on`` is the index of the device by which it came, 0: it begins here. ``leaves_by``:
    only routes through this device, 0: any.
    """

    destination: IPAddress
    source: IPAddress | None = None
    arrives_on: int = 0
    leaves_by: int = 0
    mark: int = 0
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a packet goes. ``device`` is an index, 0 where it goes nowhere.

    ``gateway`` None: the destination is on the link itself. ``source``: the address that a packet
    which begins here gets.
    """

    kind: RouteKind
    device: int = 0
    gateway: IPAddress | None = None
    source: IPAddress | None = None
    table: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """What is known of an address on a link. ``mac`` is empty while nobody has answered."""

    device: int
    address: IPAddress
    mac: str


class RoutesClient(Protocol):
    """What :class:`~kproxy.kernel.routes.client.Routes` and its fake have in common."""

    def lookup(self, query: Query) -> Route:
        """Return the way of a packet; where there is none its kind says so. KernelError."""

    def default_devices(self) -> frozenset[int]:
        """Return the devices that carry a default route, of either family."""

    def neighbour(self, device: int, address: IPAddress) -> Neighbour | None:
        """Return what is known of an address on a link; None: nothing."""

    def address_on(self, device: int, family: Family) -> IPAddress | None:
        """Return the first address of a device that is not link-local; None: it has none."""

    def close(self) -> None:
        """Give the socket back."""
