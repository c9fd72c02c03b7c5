"""What a network card is, and how it is set: the ethtool interface of the kernel.

Settings come over generic netlink (kernel 5.6 and newer), the driver's name by the older ioctl.
A card that does not have something, or a kernel that cannot tell, gives nothing for it: every
answer is a dict with what was told, empty if nothing was. All functions look at the calling
thread's network namespace.
"""

import array
import errno
import fcntl
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple, Self

from netns.rawnetlink import Netlink, attribute, attributes, nested, text

Value = int | bool
Values = Mapping[str, Value]

_NETLINK_GENERIC = 16
_CONTROLLER, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_HEADER, _DEVICE_NAME = 1, 2
_SIOCETHTOOL = 0x8946
_GET_DRIVER = 0x03
_DRIVER = struct.Struct("=I32s32s32s32s32s12sIIIII")
_UNKNOWN_SPEED = 0xFFFFFFFF


class Group(IntEnum):
    """What is asked for together: the number of its GET message; that of SET is one more."""

    LINK_MODES = 4
    FEATURES = 11
    RINGS = 15
    CHANNELS = 17
    COALESCING = 19
    PAUSE = 21
    ENERGY = 23
    TIMESTAMPS = 25


class Field(NamedTuple):
    """A value in a message: its attribute, its bytes, and whether it may be set."""

    attribute: int
    size: int = 4
    settable: bool = True


_FIELDS: dict[Group, dict[str, Field]] = {
    Group.LINK_MODES: {
        "autoneg": Field(2, 1, False),
        "speed": Field(5, 4, False),
        "duplex": Field(6, 1, False),
    },
    Group.RINGS: {
        "rx-max": Field(2, 4, False),
        "tx-max": Field(5, 4, False),
        "rx": Field(6),
        "rx-mini": Field(7),
        "rx-jumbo": Field(8),
        "tx": Field(9),
    },
    Group.CHANNELS: {
        "combined-max": Field(5, 4, False),
        "rx": Field(6),
        "tx": Field(7),
        "other": Field(8),
        "combined": Field(9),
    },
    Group.COALESCING: {
        "rx-usecs": Field(2),
        "rx-frames": Field(3),
        "rx-usecs-irq": Field(4),
        "rx-frames-irq": Field(5),
        "tx-usecs": Field(6),
        "tx-frames": Field(7),
        "tx-usecs-irq": Field(8),
        "tx-frames-irq": Field(9),
        "stats-block-usecs": Field(10),
        "adaptive-rx": Field(11, 1),
        "adaptive-tx": Field(12, 1),
        "pkt-rate-low": Field(13),
        "rx-usecs-low": Field(14),
        "rx-frames-low": Field(15),
        "tx-usecs-low": Field(16),
        "tx-frames-low": Field(17),
        "pkt-rate-high": Field(18),
        "rx-usecs-high": Field(19),
        "rx-frames-high": Field(20),
        "tx-usecs-high": Field(21),
        "tx-frames-high": Field(22),
        "sample-interval": Field(23),
    },
    Group.PAUSE: {"autoneg": Field(2, 1), "rx": Field(3, 1), "tx": Field(4, 1)},
    Group.ENERGY: {
        "active": Field(4, 1, False),
        "enabled": Field(5, 1),
        "tx-lpi": Field(6, 1),
        "tx-lpi-timer": Field(7),
    },
}
_SETS = {"timestamping": 2, "tx-types": 3, "rx-filters": 4}
_WANTED, _ACTIVE, _HARDWARE, _FIXED = 3, 4, 2, 5
SETTABLE = (Group.RINGS, Group.CHANNELS, Group.COALESCING, Group.PAUSE, Group.ENERGY)


class Driver(NamedTuple):
    """Who drives a card. ``bus`` is where it is, such as ``0000:00:04.0``; empty: nobody says."""

    driver: str
    version: str
    firmware: str
    bus: str


def driver(name: str) -> Driver:
    """Return it; all fields are empty for an interface whose driver does not answer."""
    block = array.array("B", _DRIVER.pack(_GET_DRIVER, *(bytes(32),) * 5, bytes(12), *(0,) * 5))
    request = struct.pack("16sP", name.encode(), block.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError:
            return Driver("", "", "", "")
    texts = [_text(each) for each in _DRIVER.unpack(block.tobytes())[1:5]]
    return Driver(*("" if each == "N/A" else each for each in texts))


class Ethtool:
    """Asks and sets, in the namespace of the thread that makes it; a context manager."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_GENERIC)
        self._family = self._find()

    def get(self, name: str, group: Group) -> dict[str, Value]:
        """Return the values of a group; of one byte: bools, otherwise numbers."""
        fields = {field.attribute: (key, field) for key, field in _FIELDS.get(group, {}).items()}
        found: dict[str, Value] = {}
        for kind, value in self._ask(name, group):
            if kind in fields:
                key, field = fields[kind]
                number = int.from_bytes(value[: field.size], sys.byteorder)
                found[key] = bool(number) if field.size == 1 and key != "duplex" else number
        if found.get("speed") == _UNKNOWN_SPEED:
            del found["speed"]
        return found

    def change(self, name: str, group: Group, values: Values) -> None:
        """Set values of a group; the others stay. Raises OSError."""
        fields = _FIELDS[group]
        packed = [
            attribute(fields[key].attribute, int(value).to_bytes(fields[key].size, sys.byteorder))
            for key, value in values.items()
            if fields[key].settable
        ]
        self._request(group + 1, _device(name) + b"".join(packed))

    def features(self, name: str) -> dict[str, bool]:
        """Return what a card is told to do itself, and can be told not to do."""
        sets: dict[int, set[str]] = {}
        for kind, value in self._ask(name, Group.FEATURES):
            sets[kind] = set(_names(value))
        changeable = sets.get(_HARDWARE, set()) - sets.get(_FIXED, set())
        return {each: each in sets.get(_WANTED, set()) for each in sorted(changeable)}

    def active(self, name: str) -> set[str]:
        """Return what is on now, also what cannot be changed."""
        for kind, value in self._ask(name, Group.FEATURES):
            if kind == _ACTIVE:
                return set(_names(value))
        return set()

    def change_features(self, name: str, values: Mapping[str, bool]) -> None:
        """Turn features on and off. Raises OSError."""
        bits = [
            nested(1, text(2, each), *([attribute(3, b"")] if on else []))
            for each, on in values.items()
        ]
        self._request(Group.FEATURES + 1, _device(name) + nested(_WANTED, nested(3, *bits)))

    def timestamps(self, name: str) -> dict[str, list[str]]:
        """Return what time stamps a card and its driver can give, by the kernel's names."""
        names = {number: key for key, number in _SETS.items()}
        return {
            names[kind]: sorted(_names(value))
            for kind, value in self._ask(name, Group.TIMESTAMPS)
            if kind in names
        }

    def _ask(self, name: str, group: Group) -> list[tuple[int, bytes]]:
        if self._family is None:
            return []
        try:
            answers = self._request(group, _device(name))
        except OSError:  # drivers have many numbers for what their card does not have
            return []
        return list(attributes(answers[0])) if answers else []

    def _request(self, command: int, body: bytes) -> list[bytes]:
        if self._family is None:
            raise OSError(errno.EOPNOTSUPP, "this kernel has no ethtool over netlink")
        head = struct.pack("=BBH", command, 1, 0)
        answers = self._netlink.request(self._family, head + body)
        return [answer.body[4:] for answer in answers]

    def _find(self) -> int | None:
        head = struct.pack("=BBH", _GET_FAMILY, 1, 0)
        try:
            answers = self._netlink.request(_CONTROLLER, head + text(_FAMILY_NAME, "ethtool"))
        except OSError:
            return None
        for kind, value in attributes(answers[0].body[4:]):
            if kind == _FAMILY_ID:
                return int.from_bytes(value[:2], sys.byteorder)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._netlink.close()


def settable(group: Group, values: Values) -> dict[str, Value]:
    """Return those values that can be set again."""
    return {key: value for key, value in values.items() if _FIELDS[group][key].settable}


def _device(name: str) -> bytes:
    return nested(_HEADER, text(_DEVICE_NAME, name))


def _names(bitset: bytes) -> Iterator[str]:
    """Yield the names of the bits that are set."""
    top = dict(attributes(bitset))
    listed = 1 in top  # without a mask: only those that are set are listed
    for _, bit in attributes(top.get(3, b"")):
        told = dict(attributes(bit))
        if listed or 3 in told:
            yield _text(told.get(2, b""))


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace").strip()
