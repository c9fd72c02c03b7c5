"""What the kernel knows of a network card, written down and given back.

A card that moves to another network namespace loses its addresses, its routes, its up state and
its settings below ``/proc/sys/net``, and may lose its name and number. Its MTU, its MAC and what
its driver was told (offloads, rings, queues, coalescing) stay, but whoever has it meanwhile may
change them. :func:`capture` reads all of it; :func:`restore` writes what is different now, and
tells what cannot be as it was. Both look at the calling thread's namespace.

Addresses and routes are kept as the kernel's own messages. Not kept: queueing disciplines,
filters, neighbour entries that are not permanent, multicast memberships, what is negotiated with
the other end, and addresses that the kernel makes by itself (temporary ones).
"""

import contextlib
import dataclasses
import errno
import functools
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from netns import ethtool
from netns.ethtool import Ethtool, Group
from netns.rawnetlink import (
    APPEND,
    CREATE,
    DELETE_ADDRESS,
    GET_ADDRESS,
    GET_LINK,
    GET_NEIGHBOUR,
    GET_ROUTE,
    NEW_ADDRESS,
    NEW_LINK,
    NEW_NEIGHBOUR,
    NEW_ROUTE,
    REPLACE,
    Netlink,
    attribute,
    attributes,
    put,
    text,
)

LINK = struct.Struct("=BxHiII")  # family, type, index, flags, which of them to change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=8BI")  # family, lengths, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_HOP = struct.Struct("=HBBi")  # length, flags, hops, index
UP = 0x1
_KEPT_FLAGS = 0x80 | 0x100 | 0x200  # NOARP, PROMISC, ALLMULTI
IFLA_ADDRESS, IFLA_NAME, IFLA_MTU, IFLA_LINK, IFLA_QUEUE, IFLA_MASTER = 1, 3, 4, 5, 13, 10
IFLA_NAMES, IFLA_OTHER_NAME = 52, 53
_TEMPORARY = 0x01
_OUT, _GATEWAY, _MULTIPATH, _CACHE, _EXPIRES, _OBJECT = 4, 5, 9, 12, 23, 30
_BY_KERNEL, _CLONED, _ONLINK = 2, 0x200, 0x4
_UNICAST, _LOCAL = 1, 2
_PERMANENT = 0x80
_USER_HZ = 100
_DRIVER = (Group.FEATURES, *ethtool.SETTABLE)
_SETTINGS = ("ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A card as it was; plain values, as JSON has them. Messages are hexadecimal."""

    name: str
    index: int
    mac: str
    mtu: int
    queue_length: int
    flags: int
    addresses: list[str]
    routes: list[str]
    settings: dict[str, str]
    features: dict[str, bool]
    groups: dict[str, dict[str, int]]
    neighbours: list[str] = dataclasses.field(default_factory=list)


def links(netlink: Netlink) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    """Yield index, flags and attributes of all interfaces."""
    for message in netlink.dump(GET_LINK, LINK.pack(0, 0, 0, 0, 0)):
        _, _, index, flags, _ = LINK.unpack_from(message.body)
        yield index, flags, dict(attributes(message.body[LINK.size :]))


def names(found: dict[int, bytes]) -> list[str]:
    """Return the name of an interface, then its other names."""
    others = [
        value for kind, value in attributes(found.get(IFLA_NAMES, b"")) if kind == IFLA_OTHER_NAME
    ]
    everyone = (found[IFLA_NAME], *others)
    return [each.rstrip(b"\0").decode(errors="replace") for each in everyone]


def change(netlink: Netlink, index: int, *what: bytes, flags: int = 0, mask: int = 0) -> None:
    """Change an interface. Raises OSError."""
    netlink.request(NEW_LINK, LINK.pack(0, 0, index, flags, mask) + b"".join(what))


def capture(name: str) -> State:
    """Return how a card is. Raises OSError if there is none of this name."""
    index = socket.if_nametoindex(name)
    with Netlink() as netlink, Ethtool() as tool:
        flags, found = _now(netlink, index)
        return State(
            name=name,
            index=index,
            mac=found[IFLA_ADDRESS].hex(":"),
            mtu=_number(found[IFLA_MTU]),
            queue_length=_number(found[IFLA_QUEUE]),
            flags=flags & (UP | _KEPT_FLAGS),
            addresses=[each.hex() for each in _addresses(netlink, index)],
            routes=[each.hex() for each in _routes(netlink, index)],
            settings=_settings(name),
            features=tool.features(name),
            groups=_groups(tool, name),
            neighbours=[each.hex() for each in _neighbours(netlink, index)],
        )


def _now(netlink: Netlink, index: int) -> tuple[int, dict[int, bytes]]:
    """Return flags and attributes of an interface. Raises OSError if it is gone."""
    for number, flags, found in links(netlink):
        if number == index:
            return flags, found
    raise OSError(errno.ENODEV, "it is gone")


def default_routes(netlink: Netlink, index: int) -> list[int]:
    """Return the families (AF_INET, AF_INET6) that have a default route by an interface."""
    found = [_ROUTE.unpack_from(body) for body in _routes(netlink, index)]
    return sorted(
        {
            family
            for family, length, _, _, _, _, _, kind, _ in found
            if length == 0 and kind == _UNICAST
        }
    )


def restore(state: State, name: str) -> list[str]:
    """Make a card as it was, as far as it is not; return what could not be done, in words.

    ``name`` is what it is called now.
    """
    troubles: list[str] = []

    @contextlib.contextmanager
    def noting(what: str) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            troubles.append(f"{what}: {problem.strerror or problem}")

    index = socket.if_nametoindex(name)
    with Netlink() as netlink, Ethtool() as tool:
        with noting("down"):
            change(netlink, index, mask=UP)
        # If it has not moved it still has some, with labels that a new name has spoilt.
        for body in _addresses(netlink, index)[::-1]:
            with contextlib.suppress(OSError):
                netlink.request(DELETE_ADDRESS, body)
        if name != state.name:
            with noting(f"the name {state.name}"):
                change(netlink, index, text(IFLA_NAME, state.name))
                name = state.name
        _restore_link(netlink, index, state, noting)
        running = bool(state.flags & UP)
        # Some drivers can be told only while their card is down, some only while it is up.
        first = _not_noting if running else noting
        undone = _restore_driver(tool, name, state, _DRIVER, first)
        _restore_settings(name, state.settings, noting)
        if running:
            with noting("up"):
                change(netlink, index, flags=UP, mask=UP)
            _restore_driver(tool, name, state, undone, noting)
        _restore_network(netlink, index, state, noting)
    return troubles


Noting = Callable[[str], contextlib.AbstractContextManager[None]]


def _not_noting(what: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.suppress(OSError)


def _restore_link(netlink: Netlink, index: int, state: State, noting: Noting) -> None:
    _, now = _now(netlink, index)
    if now[IFLA_ADDRESS].hex(":") != state.mac:
        with noting(f"MAC {state.mac}"):
            change(
                netlink, index, attribute(IFLA_ADDRESS, bytes.fromhex(state.mac.replace(":", "")))
            )
    for what, kind, value in (
        ("MTU", IFLA_MTU, state.mtu),
        ("queue length", IFLA_QUEUE, state.queue_length),
    ):
        if _number(now[kind]) != value:
            with noting(f"{what} {value}"):
                change(netlink, index, attribute(kind, struct.pack("=I", value)))
    with noting("flags"):
        change(netlink, index, flags=state.flags & _KEPT_FLAGS, mask=_KEPT_FLAGS)


def _restore_network(netlink: Netlink, index: int, state: State, noting: Noting) -> None:
    for each in state.addresses:
        with noting("an address"):
            _give_address(netlink, index, bytes.fromhex(each))
    # First those that say who is a neighbour, then those that need one.
    waiting = [bytes.fromhex(each) for each in state.routes]
    waiting.sort(key=lambda body: any(kind == _GATEWAY for kind, _ in _parts(body)))
    for body in waiting:
        with noting("a route"):
            _give_route(netlink, state.index, index, body)
    for each in state.neighbours:
        with noting("a neighbour"):
            _give_neighbour(netlink, index, bytes.fromhex(each))


def _restore_driver(
    tool: Ethtool, name: str, state: State, groups: Iterable[Group], noting: Noting
) -> list[Group]:
    """Tell the driver what it had been told; return what it cannot be asked or told now."""
    undone = []
    for group in groups:
        before: Mapping[str, int] = state.groups.get(group.name, {})
        have: ethtool.Values = tool.get(name, group)
        tell = functools.partial(tool.change, name, group)
        if group is Group.FEATURES:
            before, have = state.features, tool.features(name)
            tell = functools.partial(tool.change_features, name)
        differing = {key: value for key, value in before.items() if have.get(key, value) != value}
        if not differing and (have or not before):
            continue
        undone.append(group)
        with noting(f"{group.name.lower()} ({', '.join(differing)})"):
            if differing:
                tell(differing)
                undone.remove(group)
    return undone


def _restore_settings(name: str, settings: dict[str, str], noting: Noting) -> None:
    for key, value in settings.items():
        path = _setting(name, key)
        with noting(f"setting {key}"):
            if path.exists() and _read(path) != value:
                path.write_text(value)


def _groups(tool: Ethtool, name: str) -> dict[str, dict[str, int]]:
    found = {}
    for group in ethtool.SETTABLE:
        values = ethtool.settable(group, tool.get(name, group))
        found[group.name] = {key: int(value) for key, value in values.items()}
    return found


def _settings(name: str) -> dict[str, str]:
    found = {}
    for kind in _SETTINGS:
        directory = Path("/proc/sys/net", kind, name)
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            value = _read(path)
            if value is not None:
                found[f"{kind}/{path.name}"] = value
    return found


def _setting(name: str, key: str) -> Path:
    kind, _, last = key.rpartition("/")
    return Path("/proc/sys/net", kind, name, last)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:  # some can only be written, some have no value yet
        return None


def _addresses(netlink: Netlink, index: int) -> list[bytes]:
    """Return the addresses in the order in which they were added: it decides who is preferred."""
    found: dict[int, list[bytes]] = {}
    for message in netlink.dump(GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
        family, _, flags, _, its = _ADDRESS.unpack_from(message.body)
        if its == index and not (family == socket.AF_INET6 and flags & _TEMPORARY):
            found.setdefault(family, []).append(message.body)
    newest_first = found.pop(socket.AF_INET6, [])
    return [each for some in found.values() for each in some] + newest_first[::-1]


def _give_address(netlink: Netlink, index: int, body: bytes) -> None:
    family, length, flags, scope, _ = _ADDRESS.unpack_from(body)
    head = _ADDRESS.pack(family, length, flags, scope, index)
    netlink.request(NEW_ADDRESS, head + body[_ADDRESS.size :], CREATE | REPLACE)


def _neighbours(netlink: Netlink, index: int) -> Iterator[bytes]:
    """Yield the neighbour entries that somebody has set for good."""
    for message in netlink.dump(GET_NEIGHBOUR, _NEIGHBOUR.pack(0, 0, 0, 0, 0)):
        _, its, state, _, _ = _NEIGHBOUR.unpack_from(message.body)
        if its == index and state & _PERMANENT:
            yield message.body


def _give_neighbour(netlink: Netlink, index: int, body: bytes) -> None:
    family, _, state, flags, kind = _NEIGHBOUR.unpack_from(body)
    head = _NEIGHBOUR.pack(family, index, state, flags, kind)
    netlink.request(NEW_NEIGHBOUR, head + body[_NEIGHBOUR.size :], CREATE | REPLACE)


def _routes(netlink: Netlink, index: int) -> Iterator[bytes]:
    """Yield the routes by an interface that somebody has set: the rest the kernel makes again."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in netlink.dump(GET_ROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, _, _, _, _, protocol, _, kind, flags = _ROUTE.unpack_from(message.body)
            ours = index in _interfaces(message.body)
            made = protocol != _BY_KERNEL and not flags & _CLONED
            if ours and made and kind in (_UNICAST, _LOCAL):
                yield message.body


def _parts(body: bytes) -> Iterator[tuple[int, bytes]]:
    return attributes(body[_ROUTE.size :])


def _interfaces(body: bytes) -> set[int]:
    found = set()
    for kind, value in _parts(body):
        if kind == _OUT:
            found.add(_number(value))
        elif kind == _MULTIPATH:
            found |= {index for _, index in _hops(value)}
    return found


def _hops(value: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and interface of each hop of a route that has several."""
    offset = 0
    while offset + _HOP.size <= len(value):
        length, _, _, index = _HOP.unpack_from(value, offset)
        yield offset, index
        offset += max(length, _HOP.size)


def _give_route(netlink: Netlink, before: int, index: int, body: bytes) -> None:
    """Add a route by an interface whose number was ``before``; one that is there is fine."""
    head = list(_ROUTE.unpack_from(body))
    head[-1] &= _ONLINK
    found = []
    for kind, value in _parts(body):
        if kind == _OUT:
            value = struct.pack("=I", index)
        elif kind == _MULTIPATH:
            value = _renumbered(value, before, index)
        elif kind == _CACHE:
            expires = struct.unpack_from("=iii", value)[2] // _USER_HZ
            if head[0] != socket.AF_INET6 or expires <= 0:
                continue
            kind, value = _EXPIRES, struct.pack("=I", expires)
        elif kind == _OBJECT:
            continue
        found.append((kind, value))
    try:
        netlink.request(NEW_ROUTE, put(_ROUTE.pack(*head), found), CREATE | APPEND)
    except OSError as problem:
        if problem.errno != errno.EEXIST:
            raise


def _renumbered(hops: bytes, before: int, index: int) -> bytes:
    made = bytearray(hops)
    for offset, its in _hops(hops):
        length, flags, weight, _ = _HOP.unpack_from(hops, offset)
        flags &= _ONLINK
        _HOP.pack_into(made, offset, length, flags, weight, index if its == before else its)
    return bytes(made)


def _number(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)
