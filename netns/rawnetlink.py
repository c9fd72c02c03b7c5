"""Netlink messages as bytes: for what has to be kept as the kernel said it, and said again later.

Addresses and routes of a network card are written down exactly as the kernel dumps them, and
given back the same way (as ``ip route save`` and ``restore`` do); a library that turns them into
names would lose what it does not know. :mod:`netns.ethtool` speaks generic netlink with it.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

GET_LINK, NEW_LINK = 18, 16
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, GET_ROUTE = 24, 26
NEW_NEIGHBOUR, GET_NEIGHBOUR = 28, 30
NEW_LINK_PROPERTY, DELETE_LINK_PROPERTY = 108, 109

REQUEST, ACK = 0x01, 0x04
DUMP = 0x300
REPLACE, CREATE, APPEND = 0x100, 0x400, 0x800
_NESTED = 0x8000
_TYPE = 0x3FFF
_ERROR, _DONE = 2, 3
_CAPPED, _HAS_EXPLANATION = 0x100, 0x200  # flags of an acknowledgement
_EXPLANATION = 1
_SOL_NETLINK, _EXT_ACK = 270, 11
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LARGEST = 1 << 18


class Message(NamedTuple):
    """A message of the kernel without its header."""

    kind: int
    body: bytes


class Netlink:
    """A netlink socket in the network namespace of the thread that makes it; a context manager.

    What the kernel refuses is an ``OSError`` with its number, and its own words where it has some.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE, *, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.bind((0, groups))
        self._sequence = 0

    def request(self, kind: int, body: bytes, flags: int = 0) -> list[Message]:
        """Send a request, and return the answers that come before it is acknowledged."""
        self._send(kind, body, flags | ACK)
        return list(self._answers())

    def dump(self, kind: int, body: bytes) -> list[Message]:
        """Return all that there is of a kind."""
        self._send(kind, body, DUMP)
        return list(self._answers())

    def receive(self) -> list[Message]:
        """Wait for messages that nobody asked for: those of the socket's groups."""
        return [message for message, _, _ in _split(self._socket.recv(_LARGEST))]

    def fileno(self) -> int:
        """The socket, readable when there is something to receive."""
        return self._socket.fileno()

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        length = _HEADER.size + len(body)
        header = _HEADER.pack(length, kind, flags | REQUEST, self._sequence, 0)
        self._socket.send(header + body)

    def _answers(self) -> Iterator[Message]:
        while True:
            for message, flags, sequence in _split(self._socket.recv(_LARGEST)):
                if sequence != self._sequence:
                    continue
                if message.kind == _DONE:
                    return
                if message.kind == _ERROR:
                    _raise(message.body, flags)
                    return
                yield message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    data = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a text that ends with a zero."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the attributes in a message, or in a nested one: kind and value."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def put(header: bytes, found: Iterable[tuple[int, bytes]]) -> bytes:
    """Return a message of a header and attributes: the inverse of :func:`attributes`."""
    return header + b"".join(attribute(kind, value) for kind, value in found)


def _split(data: bytes) -> Iterator[tuple[Message, int, int]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield Message(kind, data[offset + _HEADER.size : offset + length]), flags, sequence
        offset += (length + 3) & ~3


def _raise(body: bytes, flags: int) -> None:
    """Raise what an acknowledgement says; nothing if it says that all is well."""
    number = -struct.unpack_from("=i", body)[0]
    if number == 0:
        return
    words = os.strerror(number)
    if flags & _HAS_EXPLANATION:
        (length,) = struct.unpack_from("=I", body, 4)
        begin = 4 + (_HEADER.size if flags & _CAPPED else (length + 3) & ~3)
        for kind, value in attributes(body[begin:]):
            if kind == _EXPLANATION:
                words += f": {value.rstrip(bytes(1)).decode(errors='replace')}"
    raise OSError(number, words)
