"""Which card an interface gets, and whether it may have it: asked before anything is changed.

A card may have several names (``eth0`` and ``enp0s3``); whatever a user calls it, it is taken by
its first one, which is the one to give back.
"""

import contextlib
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from netns import namespace, nicstate
from netns.errors import NetnsError
from netns.nicstate import IFLA_ADDRESS, IFLA_LINK, IFLA_MASTER, IFLA_MTU, UP
from netns.rawnetlink import Netlink, attributes
from netns.topology import Interface
from netns.uplink import Attachment, Uplink

_IFLA_LINKINFO, _IFLA_LINK_NETNSID = 18, 37
_IFLA_INFO_KIND = 1
_STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec")
TAG = "lab."
"""With this begins the other name of a card that a lab has."""

_NET = Path("/sys/class/net")
_FAMILIES: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


class Device(NamedTuple):
    """An interface of this machine. ``kind`` is empty for a card."""

    number: int
    up: bool
    names: tuple[str, ...]
    kind: str
    attributes: dict[int, bytes]


class Card(NamedTuple):
    """A card that was chosen. ``asked``: the first name of the one that was named."""

    asked: str
    device: Device

    @property
    def name(self) -> str:
        """What the kernel calls it first."""
        return self.device.names[0]

    @property
    def mac(self) -> str:
        """Its MAC."""
        return self.device.attributes[IFLA_ADDRESS].hex(":")

    @property
    def mtu(self) -> int:
        """Its MTU."""
        return int.from_bytes(self.device.attributes[IFLA_MTU], sys.byteorder)


def choose(
    netlink: Netlink,
    interface: Interface,
    uplink: Uplink,
    others: set[str],
    *,
    take_default_route: bool,
) -> Card:
    """Return the card that is named, or a free function of it that is none of ``others``.

    Raises :class:`NetnsError` if there is none, or if it must not be taken.
    """
    where = f"interface {interface}"
    devices = _devices(netlink)
    named = _by_name(devices, uplink.nic)
    if named is None:
        problem = f"{where}: there is no card {uplink.nic}"
        raise NetnsError(problem, remedy=_whereabouts(uplink.nic))
    card = Card(named.names[0], named)
    if uplink.kind is Attachment.VF:
        card = Card(card.asked, _free_function(devices, card.asked, others, where))
    _refuse_member(card, devices, where)
    if uplink.kind is Attachment.MACVLAN:
        _refuse_below(card, interface)
    else:
        _refuse_to_move(card, where)
    if uplink.takes_all or uplink.kind is Attachment.VF:
        _refuse_in_use(card, devices, where)
        families = [
            _FAMILIES[each] for each in nicstate.default_routes(netlink, card.device.number)
        ]
        if families and not take_default_route:
            problem = f"{card.name} carries this machine's default route ({', '.join(families)})"
            remedy = "use another card, or say --yes-take-it if you can do without"
            raise NetnsError(f"{where}: {problem}", remedy=remedy)
    return card


def _refuse_member(card: Card, devices: Iterable[Device], where: str) -> None:
    """Raise :class:`NetnsError` for a card that is part of a bridge, a bond or the like."""
    if IFLA_MASTER not in card.device.attributes:
        return
    master = int.from_bytes(card.device.attributes[IFLA_MASTER], sys.byteorder)
    owner = next((each.names[0] for each in devices if each.number == master), "another interface")
    remedy = f"take it out first: ip link set {card.name} nomaster"
    raise NetnsError(f"{where}: {card.name} belongs to {owner}", remedy=remedy)


def _refuse_below(card: Card, interface: Interface) -> None:
    """Raise :class:`NetnsError` for a card on which a macvlan would carry nothing."""
    where, name = f"interface {interface}", card.name
    if not card.device.up:
        remedy = f"ip link set {name} up"
        raise NetnsError(f"{where}: {name} is down, and so is a macvlan on it", remedy=remedy)
    if card.mtu < interface.mtu:
        problem = f"{name} has an MTU of {card.mtu}, a macvlan on it is to have {interface.mtu}"
        remedy = f"ip link set {name} mtu {interface.mtu}"
        raise NetnsError(f"{where}: {problem}", remedy=remedy)


def _refuse_to_move(card: Card, where: str) -> None:
    """Raise :class:`NetnsError` for what might not come back from another namespace."""
    if card.device.kind:
        problem = f"{card.name} is no card but a virtual interface ({card.device.kind})"
        remedy = "it would end with its host: name a card, or take it as: macvlan"
        raise NetnsError(f"{where}: {problem}", remedy=remedy)
    if (_NET / card.name / "phy80211").exists():
        remedy = "use a cable: a radio moves with all its interfaces"
        raise NetnsError(f"{where}: {card.name} is a radio", remedy=remedy)


def _devices(netlink: Netlink) -> list[Device]:
    found = []
    for index, flags, its in nicstate.links(netlink):
        information = dict(attributes(its.get(_IFLA_LINKINFO, b"")))
        kind = information.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        found.append(Device(index, bool(flags & UP), tuple(nicstate.names(its)), kind, its))
    return found


def _by_name(devices: Iterable[Device], name: str) -> Device | None:
    return next((each for each in devices if name in each.names), None)


def _refuse_in_use(card: Card, devices: Iterable[Device], where: str) -> None:
    """Raise :class:`NetnsError` if interfaces lie on a card: VLANs, macvlans and the like."""
    number = card.device.number.to_bytes(4, sys.byteorder)
    users = [
        each.names[0]
        for each in devices
        if each.kind in _STACKED
        and each.attributes.get(IFLA_LINK) == number
        and _IFLA_LINK_NETNSID not in each.attributes
    ]
    if users:
        remedy = "delete them first, or use another card"
        raise NetnsError(f"{where}: {card.name} carries {', '.join(users)}", remedy=remedy)


def _whereabouts(name: str) -> str:
    """Return where a card is that is not here."""
    for path in sorted(namespace.DIRECTORY.glob("*")):
        with (
            contextlib.suppress(NetnsError, OSError),
            namespace.entered(path.name),
            Netlink() as netlink,
        ):
            for device in _devices(netlink):
                tags = [each for each in device.names[1:] if each.startswith(TAG)]
                if any(each.startswith(f"{TAG}{name}.") for each in tags) or (
                    tags and name in device.names[1:]
                ):
                    return f"a lab has it, in the network namespace {path.name}"
    return "`ip link` tells which there are"


def _free_function(devices: Iterable[Device], card: str, others: set[str], where: str) -> Device:
    """Return a virtual function that is here and that nobody uses."""
    paths = sorted((_NET / card / "device").glob("virtfn*/net/*"))
    here = [_by_name(devices, one.name) for one in paths]
    free = [each for each in here if each is not None and each.names[0] not in others]
    for each in free:
        if not each.up:
            return each
    if free:
        names = ", ".join(each.names[0] for each in free)
        remedy = "set one down: ip link set NAME down"
        raise NetnsError(f"{where}: the functions of {card} are up: {names}", remedy=remedy)
    problem = f"{card} has no virtual function that is free"
    remedy = f"make some: echo 2 > {_NET}/{card}/device/sriov_numvfs"
    raise NetnsError(f"{where}: {problem}", remedy=remedy)
