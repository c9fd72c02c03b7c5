"""Network cards in labs: a card moves into a host's namespace, and is given back as it was.

What could go wrong is asked first (:func:`examine`), then written down by the lab's journal
(:class:`Taken`), then done (:func:`take`). A card in a lab carries its :attr:`Taken.tag` as
another name, by which it is found again wherever it is: in the host's namespace, or in the initial
one, where the kernel puts the cards of a namespace that ends, if need be under another name.
:func:`give_back` may be called at any time, also twice, also after half of :func:`take`; the tag
goes last. A macvlan ends with its namespace and leaves the card alone.
"""

import contextlib
import dataclasses
import hashlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from netns import link, namespace, nicstate
from netns.errors import NetnsError
from netns.nicreport import Inventory, inventory
from netns.nicstate import IFLA_ADDRESS, IFLA_LINK, IFLA_MASTER, IFLA_NAME, State
from netns.rawnetlink import (
    DELETE_LINK_PROPERTY,
    NEW_LINK_PROPERTY,
    Netlink,
    attribute,
    attributes,
    nested,
    text,
)
from netns.topology import Interface, Topology
from netns.uplink import Attachment, Uplink

_IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_LINK_NETNSID = 18, 28, 37
_IFLA_INFO_KIND = 1
_STACKED = ("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec")
_NET = Path("/sys/class/net")
_LONGEST_NAME = 127
_FAMILIES: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A card that a lab takes, as the journal has it.

    ``nic``: which, by its name; of ``vf`` that of the function that was chosen. ``state``: as it
    was; None: nothing of it is changed, the interface is a macvlan. ``home``: the namespace it is
    from (device and inode).
    """

    host: str
    interface: str
    namespace: str
    nic: str
    kind: Attachment
    home: tuple[int, int]
    state: State | None
    inventory: Inventory

    @property
    def tag(self) -> str:
        """The other name that the card has while it is away."""
        tag = f"lab.{self.nic}.{self.namespace}"
        if len(tag) > _LONGEST_NAME:
            tag = f"lab.{self.nic}.{hashlib.blake2b(tag.encode(), digest_size=16).hexdigest()}"
        return tag

    @property
    def temporary(self) -> str:
        """Its name on the way: one that nobody has at either end."""
        return f"nic-{hashlib.blake2b(self.tag.encode(), digest_size=5).hexdigest()}"

    @classmethod
    def decode(cls, data: dict[str, Any]) -> "Taken":
        """Return what :func:`dataclasses.asdict` has made plain."""
        state = None if data["state"] is None else State(**data["state"])
        home = (data["home"][0], data["home"][1])
        kind = Attachment(data["kind"])
        found = Inventory.decode(data["inventory"])
        return cls(**{**data, "home": home, "kind": kind, "state": state, "inventory": found})


def examine(
    topology: Topology, namespaces: dict[str, str], *, take_default_route: bool
) -> list[Taken]:
    """Return the cards that a topology takes. Nothing is changed.

    ``namespaces``: those of the hosts. Raises :class:`NetnsError` for a card that is not there, is
    in use, or carries this machine's default route, unless ``take_default_route``.
    """
    found: list[Taken] = []
    with Netlink() as netlink:
        for interface in topology.interfaces():
            uplink = interface.uplink
            if uplink is None:
                continue
            where = f"interface {interface}"
            name = uplink.nic
            if uplink.kind is Attachment.VF:
                name = _free_function(netlink, uplink.nic, {each.nic for each in found}, where)
            _refuse(netlink, name, uplink, where, take_default_route=take_default_route)
            home = Path("/proc/thread-self/ns/net").stat()
            whole = uplink.kind is not Attachment.MACVLAN
            taken = Taken(
                host=interface.host,
                interface=interface.name,
                namespace=namespaces[interface.host],
                nic=name,
                kind=uplink.kind,
                home=(home.st_dev, home.st_ino),
                state=nicstate.capture(name) if whole else None,
                inventory=inventory(name),
            )
            found.append(taken)
    return found


def with_macs(topology: Topology, cards: Iterable[Taken]) -> Topology:
    """Return the topology in which each card that moves has the MAC that it has."""
    macs = {(each.host, each.interface): each.state.mac for each in cards if each.state}

    def told(interface: Interface) -> Interface:
        mac = interface.mac or macs.get((interface.host, interface.name))
        return dataclasses.replace(interface, mac=mac)

    return dataclasses.replace(
        topology,
        links=tuple(
            dataclasses.replace(each, a=told(each.a), b=told(each.b)) for each in topology.links
        ),
        segments=tuple(
            dataclasses.replace(each, interfaces=tuple(map(told, each.interfaces)))
            for each in topology.segments
        ),
    )


def take(taken: Taken, interface: Interface) -> None:
    """Move a card, or make a macvlan on it; down, with the interface's name, MAC and MTU.

    Call it at home, after ``taken`` has been written down. Raises :class:`NetnsError`.
    """
    assert interface.uplink is not None
    with link.naming(f"interface {interface}: {interface.uplink}"):
        if taken.state is None:
            _make_macvlan(taken, interface, interface.uplink)
            return
        index = socket.if_nametoindex(taken.nic)
        with Netlink() as netlink, _opened(namespace.path_of(taken.namespace)) as target:
            body = nicstate.LINK.pack(0, 0, index, 0, 0) + _property(taken.tag)
            netlink.request(NEW_LINK_PROPERTY, body)
            nicstate.change(netlink, index, mask=nicstate.UP)
            nicstate.change(netlink, index, text(IFLA_NAME, taken.temporary))
            nicstate.change(netlink, index, _into(target))
    with link.netlink(taken.namespace) as ipr, link.naming(f"interface {interface}"):
        index = socket.if_nametoindex(taken.temporary)
        ipr.link("set", index=index, ifname=interface.name)
        ipr.link("set", index=index, mtu=interface.mtu)
        if interface.mac is not None and interface.mac != taken.state.mac:
            ipr.link("set", index=index, address=interface.mac)


def give_back(taken: Taken) -> list[str]:
    """Give a card back as it was; return what could not be done, in words. Twice is fine."""
    try:
        if taken.state is None:
            _delete_macvlan(taken)
            return []
        with _at_home(taken.home):
            _bring_home(taken)
            with Netlink() as netlink:
                found = _tagged(netlink, taken.tag)
            if found is None:
                return _lost(taken)
            index, name = found
            troubles = nicstate.restore(taken.state, name)
            with Netlink() as netlink:
                body = nicstate.LINK.pack(0, 0, index, 0, 0) + _property(taken.tag)
                netlink.request(DELETE_LINK_PROPERTY, body)
            now = socket.if_indextoname(index)
            return [f"{taken.nic} (now {now}): {each}" for each in troubles]
    except (OSError, NetnsError) as problem:
        return [f"{taken.nic}: {problem}"]


def _refuse(
    netlink: Netlink, name: str, uplink: Uplink, where: str, *, take_default_route: bool
) -> None:
    """Raise :class:`NetnsError` if a card must not be taken."""
    everything = {index: found for index, _, found in nicstate.links(netlink)}
    flags = {index: flags for index, flags, _ in nicstate.links(netlink)}
    index = next((i for i, each in everything.items() if name in nicstate.names(each)), None)
    if index is None:
        raise NetnsError(f"{where}: there is no card {name}", remedy=_whereabouts(name))
    found = everything[index]
    if IFLA_MASTER in found:
        master = everything.get(int.from_bytes(found[IFLA_MASTER], sys.byteorder), {})
        owner = nicstate.names(master)[0] if master else "another interface"
        remedy = f"take it out first: ip link set {name} nomaster"
        raise NetnsError(f"{where}: {name} belongs to {owner}", remedy=remedy)
    if uplink.takes_all or uplink.kind is Attachment.VF:
        users = _users(index, everything)
        if users:
            remedy = "delete them first, or use another card"
            raise NetnsError(f"{where}: {name} carries {', '.join(users)}", remedy=remedy)
        if (_NET / name / "phy80211").exists():
            remedy = "use a cable: a radio moves with all its interfaces"
            raise NetnsError(f"{where}: {name} is a radio", remedy=remedy)
        families = [_FAMILIES[each] for each in nicstate.default_routes(netlink, index)]
        if families and not take_default_route:
            problem = f"{name} carries this machine's default route ({', '.join(families)})"
            remedy = "use another card, or say --yes-take-it if you can do without"
            raise NetnsError(f"{where}: {problem}", remedy=remedy)
    elif not flags[index] & nicstate.UP:
        remedy = f"ip link set {name} up"
        raise NetnsError(f"{where}: {name} is down, and so is a macvlan on it", remedy=remedy)


def _users(index: int, everything: dict[int, dict[int, bytes]]) -> list[str]:
    """Return the interfaces that lie on a card: VLANs, macvlans and the like."""
    number = index.to_bytes(4, sys.byteorder)
    found = []
    for other in everything.values():
        information = dict(attributes(other.get(_IFLA_LINKINFO, b"")))
        kind = information.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode()
        if kind in _STACKED and other.get(IFLA_LINK) == number and _IFLA_LINK_NETNSID not in other:
            found.append(nicstate.names(other)[0])
    return found


def _whereabouts(name: str) -> str:
    """Return where a card is that is not here."""
    for path in sorted(namespace.DIRECTORY.glob("*")):
        with (
            contextlib.suppress(NetnsError, OSError),
            namespace.entered(path.name),
            Netlink() as netlink,
        ):
            for _, _, found in nicstate.links(netlink):
                if any(each.startswith(f"lab.{name}.") for each in nicstate.names(found)):
                    return f"a lab has it, in the network namespace {path.name}"
    return "`ip link` tells which there are"


def _free_function(netlink: Netlink, card: str, chosen: set[str], where: str) -> str:
    """Return the name of a virtual function that is here and that nobody uses."""
    functions = sorted((_NET / card / "device").glob("virtfn*/net/*"))
    here = {
        name: flags
        for _, flags, found in nicstate.links(netlink)
        for name in nicstate.names(found)
    }
    free = [one.name for one in functions if one.name in here and one.name not in chosen]
    for name in free:
        if not here[name] & nicstate.UP:
            return name
    if free:
        remedy = "set one down: ip link set NAME down"
        raise NetnsError(
            f"{where}: the functions of {card} are up: {', '.join(free)}", remedy=remedy
        )
    problem = f"{card} has no virtual function that is free"
    remedy = f"make some: echo 2 > {_NET}/{card}/device/sriov_numvfs"
    raise NetnsError(f"{where}: {problem}", remedy=remedy)


def _make_macvlan(taken: Taken, interface: Interface, uplink: Uplink) -> None:
    with IPRoute() as ipr:
        ipr.link(
            "add",
            kind="macvlan",
            ifname=interface.name,
            link=socket.if_nametoindex(taken.nic),
            address=interface.mac,
            macvlan_mode=uplink.mode,
            net_ns_fd=str(namespace.path_of(taken.namespace)),
        )


def _delete_macvlan(taken: Taken) -> None:
    """Now, and not when the kernel gets round to its namespace: the card may be wanted again."""
    if namespace.exists(taken.namespace):
        with link.netlink(taken.namespace) as ipr:
            link.delete(ipr, taken.interface)


def _bring_home(taken: Taken) -> None:
    """Move a card home, if it is in the lab's namespace, or where a namespace's end put it."""
    home = Path("/proc/thread-self/ns/net")
    with _opened(home) as target:
        for place in (namespace.path_of(taken.namespace), Path("/proc/1/ns/net")):
            if not place.exists() or place.samefile(home):
                continue
            with (
                contextlib.suppress(NetnsError),
                namespace.entered_at(place),
                Netlink() as netlink,
            ):
                found = _tagged(netlink, taken.tag)
                if found is None:
                    continue
                index, _ = found
                nicstate.change(netlink, index, mask=nicstate.UP)
                nicstate.change(netlink, index, text(IFLA_NAME, taken.temporary))
                nicstate.change(netlink, index, _into(target))
                return


def _tagged(netlink: Netlink, tag: str) -> tuple[int, str] | None:
    """Return number and name of the card with a tag, if it is here."""
    for index, _, found in nicstate.links(netlink):
        name, *others = nicstate.names(found)
        if tag in others:
            return index, name
    return None


def _lost(taken: Taken) -> list[str]:
    """Return what to say of a card without its tag: nothing if it is at home, as it was."""
    assert taken.state is not None
    with Netlink() as netlink:
        for _, _, found in nicstate.links(netlink):
            if (
                taken.nic in nicstate.names(found)
                and found[IFLA_ADDRESS].hex(":") == taken.state.mac
            ):
                return []
    return [f"{taken.nic}: it is nowhere to be found"]


@contextlib.contextmanager
def _at_home(home: tuple[int, int]) -> Iterator[None]:
    """The calling thread is in the namespace from which a card was taken.

    If that is not the one it is in, nor the initial one, it is gone, and the card comes here.
    """
    here, first = Path("/proc/thread-self/ns/net"), Path("/proc/1/ns/net")
    with contextlib.suppress(OSError):
        status = first.stat()
        if (status.st_dev, status.st_ino) == home and not first.samefile(here):
            with namespace.entered_at(first):
                yield
            return
    yield


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _into(descriptor: int) -> bytes:
    return attribute(_IFLA_NET_NS_FD, descriptor.to_bytes(4, sys.byteorder))


def _property(tag: str) -> bytes:
    return nested(nicstate.IFLA_NAMES, text(nicstate.IFLA_OTHER_NAME, tag))
