"""Routes and neighbours of the kernel, through rtnetlink. Reads only."""

import errno
import struct

from kproxy.errors import KernelError
from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer, attribute, be16, find, u8, u32
from kproxy.kernel.client import NetlinkClient
from kproxy.kernel.inet import Family, IPAddress, unpacked
from kproxy.kernel.routes.types import Neighbour, Query, Route, RouteKind

_GETADDR, _GETROUTE, _GETNEIGH = 22, 26, 30
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxHiHBB")
_ADDRESS = struct.Struct("=BBBBI")
_DST, _SRC, _IIF, _OIF, _GATEWAY, _PREFSRC, _MULTIPATH, _TABLE, _MARK = 1, 2, 3, 4, 5, 7, 9, 15, 16
_IP_PROTO, _SPORT, _DPORT = 27, 28, 29
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_FAILED = 0x20 | 0x01
"""States of a neighbour in which its MAC is not to be used: failed, incomplete."""
_NEXT_HOP = struct.Struct("=HBBi")
_ANYCAST = 4
"""Of a route: an address of this host, which others have, too."""
_WAYS_OUT = {
    errno.ENETUNREACH: RouteKind.UNREACHABLE,
    errno.EHOSTUNREACH: RouteKind.UNREACHABLE,
    errno.EACCES: RouteKind.PROHIBIT,
    errno.EINVAL: RouteKind.BLACKHOLE,
}


class Routes(NetlinkClient):
    """Routes of the namespace in which it is first used. Not for two threads.

    Contract: :class:`~kproxy.kernel.routes.types.RoutesClient`.
    """

    def __init__(self) -> None:
        super().__init__(netlink.NETLINK_ROUTE)

    def lookup(self, query: Query) -> Route:
        """Return the way of a packet; where there is none its kind says so. KernelError."""
        what = f"look up the route to {query.destination}"
        try:
            return self._open().ask(_GETROUTE, _packed(query), _read_route, what)
        except KernelError as error:
            kind = _WAYS_OUT.get(error.errno)
            if kind is None:
                raise
            return Route(kind=kind)

    def default_devices(self) -> frozenset[int]:
        """Return the devices that carry a default route, of either family."""
        found: set[int] = set()
        for family in Family:
            head = _ROUTE.pack(family.af, 0, 0, 0, 0, 0, 0, 0, 0)
            for devices in self._open().dump(_GETROUTE, head, _default_devices, "list routes"):
                found |= devices
        return frozenset(found)

    def neighbour(self, device: int, address: IPAddress) -> Neighbour | None:
        """Return what is known of an address on a link; None: nothing."""
        af = Family(address.version).af
        head = _NEIGHBOUR.pack(af, 0, 0, 0, 0, 0) + u32(_NDA_IFINDEX, device)
        known = self._open().dump(_GETNEIGH, head, _read_neighbour, "list neighbours")
        for one in known:
            if one is not None and (one.device, one.address) == (device, address):
                return one
        return None

    def address_on(self, device: int, family: Family) -> IPAddress | None:
        """Return the first address of a device that is not link-local; None: it has none."""
        head = _ADDRESS.pack(family.af, 0, 0, 0, device)
        for index, address in self._open().dump(_GETADDR, head, _read_address, "list addresses"):
            if index == device and address is not None and not address.is_link_local:
                return address
        return None


def _packed(query: Query) -> bytes:
    family = Family(query.destination.version)
    source_bits = family.bits if query.source else 0
    head = _ROUTE.pack(family.af, family.bits, source_bits, 0, 0, 0, 0, 0, 0)
    parts = [attribute(_DST, query.destination.packed)]
    if query.source is not None:
        parts.append(attribute(_SRC, query.source.packed))
    for kind, value in (
        (_IIF, query.arrives_on),
        (_OIF, query.leaves_by),
        (_MARK, query.mark),
    ):
        if value:
            parts.append(u32(kind, value))
    if query.protocol:
        parts.append(u8(_IP_PROTO, query.protocol))
    if query.source_port and query.destination_port:
        parts += [be16(_SPORT, query.source_port), be16(_DPORT, query.destination_port)]
    return head + b"".join(parts)


def _number(buffer: Buffer, place: tuple[int, int] | None) -> int:
    return int(struct.unpack_from("=I", buffer, place[0])[0]) if place else 0


def _address(buffer: Buffer, place: tuple[int, int] | None) -> IPAddress | None:
    return unpacked(bytes(buffer[place[0] : place[1]])) if place else None


def _read_route(buffer: Buffer, start: int, end: int) -> Route:
    _family, _dst, _src, _tos, table, _proto, _scope, kind, _flags = _ROUTE.unpack_from(
        buffer, start
    )
    places = find(buffer, start + _ROUTE.size, end)
    return Route(
        kind=RouteKind.LOCAL if kind == _ANYCAST else RouteKind(kind),
        device=_number(buffer, places.get(_OIF)),
        gateway=_address(buffer, places.get(_GATEWAY)),
        source=_address(buffer, places.get(_PREFSRC)),
        table=_number(buffer, places.get(_TABLE)) or table,
    )


def _default_devices(buffer: Buffer, start: int, end: int) -> set[int]:
    _family, bits, _src, _tos, _table, _proto, _scope, kind, _flags = _ROUTE.unpack_from(
        buffer, start
    )
    if bits or kind != RouteKind.UNICAST:
        return set()
    places = find(buffer, start + _ROUTE.size, end)
    if _MULTIPATH not in places:
        return {_number(buffer, places.get(_OIF))} - {0}
    at, stop = places[_MULTIPATH]
    found = set()
    while at + _NEXT_HOP.size <= stop:
        length, _flag, _hops, device = _NEXT_HOP.unpack_from(buffer, at)
        found.add(device)
        at += max(_NEXT_HOP.size, (length + 3) & ~3)
    return found


def _read_neighbour(buffer: Buffer, start: int, end: int) -> Neighbour | None:
    _family, _pad, device, state, _flags, _type = _NEIGHBOUR.unpack_from(buffer, start)
    places = find(buffer, start + _NEIGHBOUR.size, end)
    address = _address(buffer, places.get(_NDA_DST))
    if address is None:
        return None
    place = None if state & _FAILED else places.get(_NDA_LLADDR)
    mac = bytes(buffer[place[0] : place[1]]).hex(":") if place else ""
    return Neighbour(device=device, address=address, mac=mac)


def _read_address(buffer: Buffer, start: int, end: int) -> tuple[int, IPAddress | None]:
    index = _ADDRESS.unpack_from(buffer, start)[4]
    places = find(buffer, start + _ADDRESS.size, end)
    return index, _address(buffer, places.get(_IFA_LOCAL) or places.get(_IFA_ADDRESS))
