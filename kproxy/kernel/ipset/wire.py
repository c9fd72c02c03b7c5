"""Operations on IP sets as nfnetlink messages, and back.

Layouts are of ``linux/netfilter/ipset/ip_set.h``, protocol version 6, which every kernel since
2.6.39 speaks.
"""

import struct
from collections.abc import Container, Mapping
from typing import NamedTuple

from kproxy.kernel import nfnetlink
from kproxy.kernel.attributes import (
    NESTED,
    Buffer,
    Records,
    Schema,
    be16,
    be32,
    find,
    nest,
    text,
    u8,
    walk,
)
from kproxy.kernel.inet import Family
from kproxy.kernel.ipset.types import (
    AddEntry,
    CreateSet,
    DelEntry,
    DestroySet,
    Entry,
    FlushSet,
    Has,
    Operation,
    SetSpec,
    SetType,
    SwapSets,
)
from kproxy.kernel.netlink import NLM_F_EXCL, NLM_F_REQUEST

CREATE, DESTROY, FLUSH, SWAP, LIST, ADD, DEL, HEADER, TYPE = 2, 3, 4, 6, 7, 9, 10, 12, 13

_HEADER = struct.Struct("=HH")
"""Of an attribute: length, type."""

_PROTOCOL_VERSION = 6
_AF_INET = 2

_PROTOCOL, _SETNAME, _TYPENAME, _SETNAME2, _REVISION, _FAMILY = 1, 2, 3, 3, 4, 5
_DATA, _ADT = 7, 8
_IP, _CIDR, _PORT, _PORT_TO, _PROTO, _IP2, _CIDR2 = 1, 3, 4, 5, 7, 20, 21
_MAXELEM, _REFERENCES = 19, 25
_IPV4, _IPV6 = 1, 2


def message_type(command: int) -> int:
    """Return the netlink type of a command."""
    return nfnetlink.message_type(nfnetlink.SUBSYSTEM_IPSET, command)


def request(*attributes: bytes) -> bytes:
    """Return the payload of a request."""
    return nfnetlink.header(_AF_INET) + u8(_PROTOCOL, _PROTOCOL_VERSION) + b"".join(attributes)


def name_request(name: str) -> bytes:
    """Return the payload of a request about one set."""
    return request(text(_SETNAME, name))


def type_request(spec: SetSpec) -> bytes:
    """Return the payload that asks which revisions of a type the kernel has."""
    return request(text(_TYPENAME, spec.type), u8(_FAMILY, spec.family.af))


def read_revision(buffer: Buffer, start: int, end: int) -> int:
    """Return the newest revision of a type."""
    begin, _end = find(buffer, start + nfnetlink.HEADER_SIZE, end)[_REVISION]
    return buffer[begin]


class Packer:
    """Writes operations as messages.

    ``revisions`` tells for each type and family the revision to create.
    """

    def __init__(self, revisions: Mapping[tuple[SetType, Family], int]) -> None:
        self._revisions = revisions
        self._names: dict[str, bytes] = {}

    def pack(self, operation: Operation, sequence: int) -> bytes:
        """Return the message of an operation."""
        name = self._names.get(operation.name)
        if name is None:
            name = u8(_PROTOCOL, _PROTOCOL_VERSION) + text(_SETNAME, operation.name)
            self._names[operation.name] = name
        if type(operation) is AddEntry:  # nearly all are
            command, body = ADD, _entry(operation.entry)
        else:
            command, body = self._body(operation)
        # EXCL: what is there already, or is not there, is an error rather than ignored.
        flags = NLM_F_REQUEST | NLM_F_EXCL
        return nfnetlink.message(message_type(command), flags, sequence, _AF_INET, name + body)

    def _body(self, operation: Operation) -> tuple[int, bytes]:
        match operation:
            case AddEntry(_, entry):
                return ADD, _entry(entry)
            case DelEntry(_, entry):
                return DEL, _entry(entry)
            case CreateSet(_, spec):
                return CREATE, self._spec(spec)
            case DestroySet():
                return DESTROY, b""
            case FlushSet():
                return FLUSH, b""
            case SwapSets(_, other):
                return SWAP, text(_SETNAME2, other)

    def _spec(self, spec: SetSpec) -> bytes:
        size = be32(_MAXELEM | nfnetlink.NET_BYTEORDER, spec.max_elements)
        if spec.type is SetType.BITMAP_PORT:
            size = _port(_PORT, 0) + _port(_PORT_TO, 0xFFFF)
        return b"".join(
            (
                text(_TYPENAME, spec.type),
                u8(_REVISION, self._revisions[spec.type, spec.family]),
                u8(_FAMILY, spec.family.af),
                nest(_DATA, size),
            )
        )


def _port(kind: int, port: int) -> bytes:
    return be16(kind | nfnetlink.NET_BYTEORDER, port)


def _entry(entry: Entry) -> bytes:
    kind = entry[0]
    layout = _LAYOUTS.get(kind)
    if layout is None:
        layout = _LAYOUTS[kind] = _layout(Has(kind))
    head, parts, padding = layout
    return head + b"".join([one for before, at in parts for one in (before, entry[at])]) + padding


_Layout = tuple[bytes, list[tuple[bytes, slice]], bytes]
"""Header; of each part what stands before it, and where it is in an entry; padding at the end."""

_LAYOUTS: dict[int, _Layout] = {}


def _layout(has: Has) -> _Layout:
    """Return how the entries with these parts are written; they are in network order already."""
    parts: list[tuple[bytes, slice]] = []
    padding, at, size = b"", 1, 4

    def add(before: bytes, length: int) -> None:
        nonlocal padding, at, size
        parts.append((padding + before, slice(at, at + length)))
        padding = bytes(-length % 4)
        at += length
        size += len(before) + length + len(padding)

    def add_place(ip: int, cidr: int, *, ipv6: bool, network: bool) -> None:
        length, inner = (16, _IPV6) if ipv6 else (4, _IPV4)
        nested = _HEADER.pack(8 + length, ip | NESTED)
        add(nested + _HEADER.pack(4 + length, inner | nfnetlink.NET_BYTEORDER), length)
        if network:
            add(_HEADER.pack(5, cidr), 1)

    if Has.ADDRESS in has:
        add_place(_IP, _CIDR, ipv6=Has.IPV6 in has, network=Has.NETWORK in has)
    if Has.PROTOCOL in has:
        add(_HEADER.pack(5, _PROTO), 1)
    if Has.PORT in has:
        add(_HEADER.pack(6, _PORT | nfnetlink.NET_BYTEORDER), 2)
    if Has.SECOND in has:
        ipv6, network = Has.SECOND_IPV6 in has, Has.SECOND_NETWORK in has
        add_place(_IP2, _CIDR2, ipv6=ipv6, network=network)
    return _HEADER.pack(size, _DATA | NESTED), parts, padding


class Part(NamedTuple):
    """What one message of a listing tells of a set; ``spec`` only the first one of each set."""

    name: str
    spec: SetSpec | None
    references: int
    entries: list[Entry]


class ListingReader:
    """Reads the answers to LIST. Large sets come in several messages. ``names``: which to read."""

    def __init__(self, names: Container[str] | None = None) -> None:
        self._names = names
        self._readers: dict[str, _EntryReader] = {}

    def read(self, buffer: Buffer, start: int, end: int) -> Part | None:
        """Return what the message tells; None about a set that is not asked for, or no SetType."""
        places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
        name = _text(buffer, places[_SETNAME])
        spec, references = None, 0
        if self._names is not None and name not in self._names:
            return None
        if _TYPENAME in places:
            self._readers.pop(name, None)
            create = find(buffer, *places[_DATA])
            references = _number(buffer, create.get(_REFERENCES))
            spec = _read_spec(buffer, places, create)
            if spec is not None:
                self._readers[name] = _EntryReader(spec)
        if name not in self._readers:
            return None
        read = self._readers[name].read
        elements = walk(buffer, *places[_ADT]) if _ADT in places else ()
        entries = [read(buffer, begin, stop) for _kind, begin, stop in elements]
        return Part(name, spec, references, entries)


Places = dict[int, tuple[int, int]]


def _read_spec(buffer: Buffer, places: Places, create: Places) -> SetSpec | None:
    try:
        kind = SetType(_text(buffer, places[_TYPENAME]))
    except ValueError:
        return None
    if kind is SetType.BITMAP_PORT:
        return SetSpec(kind)
    family = Family.IPV4 if buffer[places[_FAMILY][0]] == _AF_INET else Family.IPV6
    return SetSpec(kind, family, _number(buffer, create.get(_MAXELEM)))


class _EntryReader:
    """Reads the entries of one set."""

    def __init__(self, spec: SetSpec) -> None:
        parts = spec.type.parts
        ipv4 = spec.family is Family.IPV4
        raw = {_IPV4: "4s"} if ipv4 else {_IPV6: "16s"}
        # In the kernel's order, which lets all entries be read by one layout.
        formats: dict[int, Schema | str] = {
            _IP: raw, _CIDR: "1s", _IP2: raw, _PORT: "2s", _CIDR2: "1s", _PROTO: "1s"
        }  # fmt: skip
        has, order = _order(parts, ipv6=not ipv4)
        schema = {kind: formats[kind] for kind in formats if kind in order}
        self._kind = bytes((has,))
        self._order = tuple(list(schema).index(kind) for kind in order)
        self._lengths = {_CIDR, _CIDR2} & schema.keys()
        self._whole = bytes((spec.family.bits,))
        self._read = Records(schema).read

    def read(self, buffer: Buffer, start: int, end: int) -> Entry:
        values = self._read(buffer, start, end)
        found = [values[at] for at in self._order]
        if self._lengths:
            # The kernel does not tell the length of a prefix that is a whole address.
            found = [self._whole if value is None else value for value in found]
        return bytes.__new__(Entry, self._kind + b"".join(found))


def _order(parts: tuple[str, ...], *, ipv6: bool) -> tuple[int, list[int]]:
    """Return which parts the entries of a set have, and their attributes in an entry's order."""
    if parts == ("port",):
        return Has.PORT, [_PORT]
    has, order = Has.ADDRESS | (Has.IPV6 if ipv6 else 0), [_IP]
    if parts[0] == "net":
        has, order = has | Has.NETWORK, [*order, _CIDR]
    if "port" in parts:
        has, order = has | Has.PROTOCOL | Has.PORT, [*order, _PROTO, _PORT]
    if len(parts) == 3:
        has, order = has | Has.SECOND | (Has.SECOND_IPV6 if ipv6 else 0), [*order, _IP2]
        if parts[2] == "net":
            has, order = has | Has.SECOND_NETWORK, [*order, _CIDR2]
    return has, order


def _text(buffer: Buffer, place: tuple[int, int]) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode(errors="replace")


def _number(buffer: Buffer, place: tuple[int, int] | None) -> int:
    """Return a number in network byte order, 0 if there is none."""
    return int.from_bytes(buffer[place[0] : place[1]], "big") if place else 0
