"""The interface that a measurement uses: whether it may, and where its frames have to go."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from kproxy.errors import MeasurementError, UsageError
from kproxy.kernel.inet import Family, IPAddress
from kproxy.kernel.links.card import Card
from kproxy.kernel.routes.types import Query, Route, RouteKind, RoutesClient

DISCARD_PORT = 9
NEIGHBOUR_SECONDS = 3.0
_POLL_SECONDS = 0.02
_MAC_LENGTH = len("00:00:00:00:00:00")
_HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of IP and UDP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How frames leave: from which address and MAC, and to whose MAC. ``next_hop`` is on the link.

    ``source_mac`` is empty on a device without MACs (loopback).
    """

    interface: str
    source: IPAddress
    source_mac: str
    next_hop: IPAddress
    next_hop_mac: str


def checked(
    name: str, cards: Mapping[int, Card], routes: RoutesClient, *, may_be_default: bool
) -> Card:
    """Return the interface. UsageError: there is none, it is down, or others live on it."""
    card = next((one for one in cards.values() if one.name == name), None)
    if card is None:
        names = ", ".join(sorted(one.name for one in cards.values()))
        raise UsageError(
            f"--interface {name}: there is no such interface here", remedy=f"there are: {names}"
        )
    if not card.up:
        raise UsageError(f"--interface {name}: it is down", remedy=f"ip link set {name} up")
    if not card.carrier:
        raise UsageError(f"--interface {name}: it has no carrier", remedy="plug the cable in")
    if card.index in routes.default_devices() and not may_be_default:
        raise UsageError(
            f"--interface {name} carries the default route: whatever else this host does would "
            "be measured, and disturbed",
            remedy="use another one, or say --yes-use-default-route",
        )
    return card


def check_size(card: Card, payload_bytes: int, destination: IPAddress) -> None:
    """Raise UsageError if a UDP payload does not fit into one packet of the interface."""
    room = card.mtu - _HEADERS[destination.version]
    if payload_bytes > room:
        raise UsageError(
            f"--size {payload_bytes}: {card.name} has an MTU of {card.mtu}, so at most {room} fit"
        )


def way(
    card: Card, destination: IPAddress, routes: RoutesClient, *, source: IPAddress | None = None
) -> Way:
    """Return the way of frames to an address. UsageError: there is none through this interface.

    Who has the next hop's address is asked on the link, if it is not known.
    """
    route = routes.lookup(Query(destination=destination))
    if route.kind is not RouteKind.LOCAL and route.device != card.index:
        # Asked for a device, the kernel takes whatever no route knows for a neighbour there: only
        # a gateway tells that there is a route.
        other = routes.lookup(Query(destination=destination, leaves_by=card.index))
        route = other if other.gateway is not None else route
    if route.kind is RouteKind.LOCAL:
        raise UsageError(
            f"--to {destination} is an address of this host: frames on {card.name} never reach it",
            remedy="send from another host, or use --probe, which sends as this host does",
        )
    if route.kind is not RouteKind.UNICAST or route.device != card.index:
        raise UsageError(
            f"--to {destination}: no route leads there through {card.name}",
            remedy=f"ip route add {destination} via GATEWAY dev {card.name}",
        )
    source = source or _source(card, route, destination, routes)
    next_hop = route.gateway or destination
    if card.loopback:
        return Way(
            interface=card.name, source=source, source_mac="", next_hop=next_hop, next_hop_mac=""
        )
    if len(card.mac) != _MAC_LENGTH:
        raise UsageError(
            f"--interface {card.name} has no MAC (a tunnel?): frames cannot be put on it",
            remedy="use --probe, which sends as this host's programs do",
        )
    return Way(
        interface=card.name,
        source=source,
        source_mac=card.mac,
        next_hop=next_hop,
        next_hop_mac=_resolved(card, next_hop, routes),
    )


def _source(card: Card, route: Route, destination: IPAddress, routes: RoutesClient) -> IPAddress:
    found = route.source or routes.address_on(card.index, Family(destination.version))
    if found is None:
        raise UsageError(
            f"--interface {card.name} has no IPv{destination.version} address",
            remedy=f"ip address add ADDRESS/LENGTH dev {card.name}",
        )
    return found


def _resolved(card: Card, address: IPAddress, routes: RoutesClient) -> str:
    """Return the MAC of a neighbour; the kernel asks for it when it has something to send."""
    known = routes.neighbour(card.index, address)
    if known is not None and known.mac:
        return known.mac
    _poke(card, address)
    deadline = time.monotonic() + NEIGHBOUR_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        known = routes.neighbour(card.index, address)
        if known is not None and known.mac:
            return known.mac
    raise MeasurementError(
        f"{address} does not answer on {card.name}: nobody says which MAC it has",
        remedy="is the next hop up, and in the same segment?",
    )


def _poke(card: Card, address: IPAddress) -> None:
    """Send one datagram to the discard port, for which the kernel has to ask for the MAC."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where: tuple[str, int] | tuple[str, int, int, int] = (str(address), DISCARD_PORT)
    if address.version == 6:
        where = (str(address), DISCARD_PORT, 0, card.index)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            device = card.name.encode() + b"\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            sock.sendto(b"", where)
        except OSError as error:
            raise MeasurementError(
                f"cannot reach {address} on {card.name}: {error.strerror}"
            ) from None
