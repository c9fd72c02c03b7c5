"""Network devices as they are: state, MAC, queues, who is their master. Through rtnetlink.

Apart from :mod:`kproxy.kernel.links.client`, which a proxy needs at its start: this is for tools
that look at whole ways of packets.
"""

import struct
import sys

from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer, find
from kproxy.kernel.links.card import Card

_GETLINK = 18
_LINK = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1
_IFLA_TX_QUEUES, _IFLA_CARRIER = 31, 33
_IFF_UP, _IFF_LOOPBACK = 1, 8


def cards() -> dict[int, Card]:
    """Return the devices of the calling thread's namespace by index. KernelError."""
    sock = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)
    try:
        found = sock.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), _read, "list devices")
    finally:
        sock.close()
    return {card.index: card for card in found}


def _read(buffer: Buffer, start: int, end: int) -> Card:
    _family, _type, index, flags, _change = _LINK.unpack_from(buffer, start)
    places = find(buffer, start + _LINK.size, end)

    def raw(kind: int) -> bytes:
        place = places.get(kind)
        return bytes(buffer[place[0] : place[1]]) if place else b""

    def number(kind: int, otherwise: int = 0) -> int:
        value = raw(kind)
        return int.from_bytes(value, sys.byteorder) if value else otherwise

    kind = b""
    if _IFLA_LINKINFO in places:
        info = find(buffer, *places[_IFLA_LINKINFO])
        if _IFLA_INFO_KIND in info:
            begin, stop = info[_IFLA_INFO_KIND]
            kind = bytes(buffer[begin:stop])
    return Card(
        index=index,
        name=raw(_IFLA_IFNAME).rstrip(b"\0").decode(errors="replace"),
        kind=kind.rstrip(b"\0").decode(errors="replace"),
        up=bool(flags & _IFF_UP),
        carrier=bool(number(_IFLA_CARRIER, 1)),
        loopback=bool(flags & _IFF_LOOPBACK),
        mac=raw(_IFLA_ADDRESS).hex(":"),
        mtu=number(_IFLA_MTU),
        master=number(_IFLA_MASTER),
        link=number(_IFLA_LINK),
        queues=number(_IFLA_TX_QUEUES, 1),
    )
