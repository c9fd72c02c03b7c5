"""A routing table in memory."""

from collections.abc import Mapping

from kproxy.kernel.inet import Family, IPAddress, IPNetwork
from kproxy.kernel.routes.types import Neighbour, Query, Route, RouteKind


class FakeRoutes:
    """Implements :class:`~kproxy.kernel.routes.types.RoutesClient`: the longest prefix decides.

    ``neighbours`` may be changed meanwhile: somebody answers.
    """

    def __init__(
        self,
        table: Mapping[IPNetwork, Route],
        addresses: Mapping[int, tuple[IPAddress, ...]] | None = None,
    ) -> None:
        self.table = dict(table)
        self.addresses = dict(addresses or {})
        self.neighbours: dict[tuple[int, IPAddress], str] = {}

    def lookup(self, query: Query) -> Route:
        """Return the way of a packet; where there is none its kind says so."""
        fitting = [
            (network.prefixlen, route)
            for network, route in self.table.items()
            if network.version == query.destination.version and query.destination in network
            if query.leaves_by in (0, route.device)
        ]
        if not fitting:
            return Route(kind=RouteKind.UNREACHABLE)
        return max(fitting, key=lambda pair: pair[0])[1]

    def default_devices(self) -> frozenset[int]:
        """Return the devices that carry a default route."""
        return frozenset(
            route.device
            for network, route in self.table.items()
            if network.prefixlen == 0 and route.kind is RouteKind.UNICAST
        )

    def neighbour(self, device: int, address: IPAddress) -> Neighbour | None:
        """Return what is known of an address on a link; None: nothing."""
        mac = self.neighbours.get((device, address))
        return None if mac is None else Neighbour(device=device, address=address, mac=mac)

    def address_on(self, device: int, family: Family) -> IPAddress | None:
        """Return the first address of a device that is not link-local; None: it has none."""
        for address in self.addresses.get(device, ()):
            if address.version == family and not address.is_link_local:
                return address
        return None

    def close(self) -> None:
        """Do nothing."""
