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

from netns import link, namespace, nicchoice, nicstate
from netns.errors import NetnsError
from netns.nicreport import Inventory, inventory
from netns.nicstate import IFLA_ADDRESS, IFLA_NAME, State
from netns.rawnetlink import (
    DELETE_LINK_PROPERTY,
    NEW_LINK_PROPERTY,
    Netlink,
    attribute,
    nested,
    text,
)
from netns.topology import Interface, Topology
from netns.uplink import Attachment, Uplink

_IFLA_NET_NS_FD = 28
_LONGEST_NAME = 127


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A card that a lab takes, as the journal has it.

    ``nic``: which, by its first name; of ``vf`` that of the function that was chosen. ``state``:
    as it was; None: nothing of it is changed, the interface is a macvlan. ``home``: the namespace
    it is from (device and inode). ``mac``: the one that its interface has from it; None: a macvlan
    has one of its own, except in mode passthru.
    """

    host: str
    interface: str
    namespace: str
    nic: str
    kind: Attachment
    home: tuple[int, int]
    state: State | None
    inventory: Inventory
    mac: str | None = None

    @property
    def tag(self) -> str:
        """The other name that the card has while it is away."""
        tag = f"{nicchoice.TAG}{self.nic}.{self.namespace}"
        if len(tag) > _LONGEST_NAME:
            digest = hashlib.blake2b(tag.encode(), digest_size=16).hexdigest()
            tag = f"{nicchoice.TAG}{self.nic}.{digest}"
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
    in use, or carries this machine's default route, unless ``take_default_route``
    (:mod:`netns.nicchoice`).
    """
    status = Path("/proc/thread-self/ns/net").stat()
    found: list[Taken] = []
    chosen: list[Uplink] = []
    for interface in topology.interfaces():
        uplink = interface.uplink
        if uplink is None:
            continue
        with link.naming(f"interface {interface}: {uplink}"), Netlink() as netlink:
            functions = {each.nic for each in found}
            card = nicchoice.choose(
                netlink, interface, uplink, functions, take_default_route=take_default_route
            )
            first_named = dataclasses.replace(uplink, nic=card.asked)
            first_named.check_beside(chosen, f"interface {interface}")
            chosen.append(first_named)
            whole = uplink.kind is not Attachment.MACVLAN
            taken = Taken(
                host=interface.host,
                interface=interface.name,
                namespace=namespaces[interface.host],
                nic=card.name,
                kind=uplink.kind,
                home=(status.st_dev, status.st_ino),
                state=nicstate.capture(card.name) if whole else None,
                inventory=inventory(card.name),
                mac=card.mac if whole or uplink.takes_all else None,
            )
        found.append(taken)
    return found


def with_macs(topology: Topology, cards: Iterable[Taken]) -> Topology:
    """Return the topology in which interfaces have the MACs that their cards give them."""
    macs = {(each.host, each.interface): each.mac for each in cards}

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
            netlink.request(NEW_LINK_PROPERTY, _property(index, taken.tag))
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
        with namespace.entered_at(_place(taken.home)):
            _bring_home(taken)
            with Netlink() as netlink:
                found = _tagged(netlink, taken.tag)
            if found is None:
                return _lost(taken)
            index, name = found
            troubles = nicstate.restore(taken.state, name)
            with Netlink() as netlink:
                netlink.request(DELETE_LINK_PROPERTY, _property(index, taken.tag))
            now = socket.if_indextoname(index)
            return [f"{taken.nic} (now {now}): {each}" for each in troubles]
    except (OSError, NetnsError) as problem:
        return [f"{taken.nic}: {problem}"]


def _make_macvlan(taken: Taken, interface: Interface, uplink: Uplink) -> None:
    with IPRoute() as ipr:
        ipr.link(
            "add",
            kind="macvlan",
            ifname=interface.name,
            mtu=interface.mtu,
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


def _place(home: tuple[int, int]) -> Path:
    """Return where the namespace is found from which a card was taken: here, if it is gone."""
    here = Path("/proc/thread-self/ns/net")
    for place in (here, Path("/proc/1/ns/net"), *sorted(namespace.DIRECTORY.glob("*"))):
        with contextlib.suppress(OSError):
            status = place.stat()
            if (status.st_dev, status.st_ino) == home:
                return place
    return here


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _into(descriptor: int) -> bytes:
    return attribute(_IFLA_NET_NS_FD, descriptor.to_bytes(4, sys.byteorder))


def _property(index: int, tag: str) -> bytes:
    names = nested(nicstate.IFLA_NAMES, text(nicstate.IFLA_OTHER_NAME, tag))
    return nicstate.LINK.pack(0, 0, index, 0, 0) + names
