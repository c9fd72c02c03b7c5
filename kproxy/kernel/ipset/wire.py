"""Operations on IP sets as nfnetlink messages, and back.

Layouts are of ``linux/netfilter/ipset/ip_set.h``, protocol version 6, which every kernel since
2.6.39 speaks.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import NamedTuple

from kproxy.kernel import nfnetlink
from kproxy.kernel.attributes import (
    Buffer,
    Records,
    Schema,
    attribute,
    be16,
    be32,
    find,
    nest,
    text,
    u8,
    walk,
)
from kproxy.kernel.inet import PROTOCOLS, Family, IPAddress, IPNetwork
from kproxy.kernel.ipset.types import (
    AddEntry,
    CreateSet,
    DelEntry,
    DestroySet,
    Entry,
    FlushSet,
    Operation,
    SetSpec,
    SetType,
    SwapSets,
)
from kproxy.kernel.netlink import NLM_F_EXCL, NLM_F_REQUEST

CREATE, DESTROY, FLUSH, SWAP, LIST, ADD, DEL, HEADER, TYPE = 2, 3, 4, 6, 7, 9, 10, 12, 13

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
    parts = [] if entry.address is None else [_place(entry.address, _IP, _CIDR)]
    if entry.port is not None:
        parts.append(_port(_PORT, entry.port))
    if entry.protocol is not None:
        parts.append(u8(_PROTO, entry.protocol.number))
    if entry.second is not None:
        parts.append(_place(entry.second, _IP2, _CIDR2))
    return nest(_DATA, *parts)


def _place(value: IPAddress | IPNetwork, ip: int, cidr: int) -> bytes:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return _address(ip, value.network_address) + u8(cidr, value.prefixlen)
    return _address(ip, value)


def _address(kind: int, address: IPAddress) -> bytes:
    inner = _IPV4 if address.version == 4 else _IPV6
    return nest(kind, attribute(inner | nfnetlink.NET_BYTEORDER, address.packed))


class Part(NamedTuple):
    """What one message of a listing tells of a set; ``spec`` only the first one of each set."""

    name: str
    spec: SetSpec | None
    references: int
    entries: list[Entry]


class ListingReader:
    """Reads the answers to LIST. Large sets come in several messages."""

    def __init__(self) -> None:
        self._readers: dict[str, _EntryReader] = {}

    def read(self, buffer: Buffer, start: int, end: int) -> Part | None:
        """Return what the message tells; None about a set of a type that is not a SetType."""
        places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
        name = _text(buffer, places[_SETNAME])
        spec, references = None, 0
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
        ipv4 = spec.family is Family.IPV4
        raw = {_IPV4: "4s"} if ipv4 else {_IPV6: "16s"}
        parts = spec.type.parts
        self._first_is_net = parts[0] == "net"
        self._second_is_net = parts[2:] == ("net",)
        # In the kernel's order, which lets all entries be read by one layout.
        schema: dict[int, Schema | str] = {} if parts == ("port",) else {_IP: raw}
        if self._first_is_net:
            schema[_CIDR] = "B"
        if len(parts) == 3:
            schema[_IP2] = raw
        if "port" in parts:
            schema[_PORT] = "H"
        if self._second_is_net:
            schema[_CIDR2] = "B"
        if "port" in parts[1:]:
            schema[_PROTO] = "B"
        self._order = tuple(schema)
        self._records = Records(schema)
        self._bits = spec.family.bits
        self._version: type[IPAddress] = ipaddress.IPv4Address if ipv4 else ipaddress.IPv6Address
        self._addresses: dict[bytes, IPAddress] = {}

    def read(self, buffer: Buffer, start: int, end: int) -> Entry:
        values = dict(zip(self._order, self._records.read(buffer, start, end), strict=True))
        if _IP not in values:
            return Entry(None, None, socket.ntohs(values[_PORT]))
        first: IPAddress | IPNetwork = self._address(values[_IP])
        if self._first_is_net:
            first = self._network(values[_IP], values[_CIDR])
        if _PORT not in values:
            return Entry(first)
        second: IPAddress | IPNetwork | None = None
        if self._second_is_net:
            second = self._network(values[_IP2], values[_CIDR2])
        elif _IP2 in values:
            second = self._address(values[_IP2])
        port = socket.ntohs(values[_PORT])
        return Entry(first, PROTOCOLS.get(values[_PROTO]), port, second)

    def _address(self, packed: bytes) -> IPAddress:
        found = self._addresses.get(packed)
        if found is None:
            found = self._addresses[packed] = self._version(packed)
        return found

    def _network(self, packed: bytes, prefix: int | None) -> IPNetwork:
        length = self._bits if prefix is None else prefix
        return ipaddress.ip_network((packed, length))


def _text(buffer: Buffer, place: tuple[int, int]) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode(errors="replace")


def _number(buffer: Buffer, place: tuple[int, int] | None) -> int:
    """Return a number in network byte order, 0 if there is none."""
    return int.from_bytes(buffer[place[0] : place[1]], "big") if place else 0
