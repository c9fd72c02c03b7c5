"""IPVS operations as generic-netlink messages, and back.

Layouts are of ``linux/ip_vs.h`` (IPVS_GENL_VERSION 1). A destination's message is one ``struct``
call and two joins, because ten thousand of them are written at a start.
"""

import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kproxy.kernel.attributes import (
    NESTED,
    WHOLE,
    Buffer,
    Records,
    Schema,
    attribute,
    nest,
    u16,
    u32,
)
from kproxy.kernel.inet import PROTOCOLS, Family
from kproxy.kernel.ipvs.types import (
    AddDestination,
    AddService,
    DelDestination,
    DelService,
    DestinationConfig,
    DestinationKey,
    DestinationStats,
    DestinationTraffic,
    Forwarding,
    Info,
    Operation,
    ServiceConfig,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Timeouts,
    Traffic,
)
from kproxy.kernel.netlink import NLM_F_REQUEST

FAMILY_NAME = "IPVS"

NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = 5, 6, 7, 8
SET_CONFIG, GET_CONFIG, GET_INFO = 12, 13, 15

_ATTR_SERVICE, _ATTR_DEST = 1, 2
_ATTR_TIMEOUT_TCP, _ATTR_TIMEOUT_TCP_FIN, _ATTR_TIMEOUT_UDP = 4, 5, 6
_SVC_AF, _SVC_PROTOCOL, _SVC_ADDR, _SVC_PORT = 1, 2, 3, 4
_SVC_SCHED_NAME, _SVC_FLAGS, _SVC_TIMEOUT, _SVC_NETMASK, _SVC_STATS64 = 6, 7, 8, 9, 12
_DEST_ADDR, _DEST_PORT, _DEST_FWD_METHOD, _DEST_WEIGHT, _DEST_U_THRESH = 1, 2, 3, 4, 5
_DEST_L_THRESH, _DEST_ACTIVE, _DEST_INACT, _DEST_PERSIST = 6, 7, 8, 9
_DEST_ADDR_FAMILY, _DEST_STATS64 = 11, 12
_STATS_CONNS, _STATS_INPKTS, _STATS_OUTPKTS, _STATS_INBYTES, _STATS_OUTBYTES = 1, 2, 3, 4, 5
_INFO_VERSION, _INFO_CONN_TAB_SIZE = 1, 2

_FORWARDING_NUMBERS = {
    Forwarding.MASQUERADE: 0,
    Forwarding.LOCAL: 1,
    Forwarding.TUNNEL: 2,
    Forwarding.DIRECT: 3,
}
_FORWARDINGS = {number: forwarding for forwarding, number in _FORWARDING_NUMBERS.items()}
_FORWARDING_MASK = 0x7
_OUR_FLAGS = 0x3D  # Without HASHED (0x02), which is the kernel's own.
_ALL_FLAGS = 0xFFFFFFFF

GENL_HEADER = struct.Struct("=BBH")
_HEAD = struct.Struct("=IHHIIBBH")
_VERSION = 1
_SEQUENCES = 0xFFFFFFFF

_ATTRIBUTE = struct.Struct("=HH")
_PADDING = {4: bytes(12), 16: b""}
"""Behind an address in a field of 16 bytes."""


class Packer:
    """Writes operations as messages. It remembers the last service: destinations come in rows."""

    def __init__(self, family_id: int) -> None:
        self._family_id = family_id
        self._last: tuple[ServiceKey, bytes] | None = None
        self._used: tuple[DestinationConfig, bytes] | None = None
        self._configs: dict[tuple[int, ServiceConfig], bytes] = {}
        self._packers: dict[type, Callable[[Any, int], bytes]] = {
            AddService: self._add_service,
            SetService: self._set_service,
            DelService: self._del_service,
            AddDestination: self._add_destination,
            SetDestination: self._set_destination,
            DelDestination: self._del_destination,
        }

    def pack(self, operation: Operation, sequence: int) -> bytes:
        """Return the message of an operation; the first one if it takes several."""
        return self._packers[type(operation)](operation, sequence)

    def messages(self, transaction: Iterable[Operation], sequence: int) -> Iterator[bytes]:
        """Yield the messages of operations, with ascending sequence numbers from this one on."""
        for operation in transaction:
            yield self.pack(operation, sequence & _SEQUENCES)
            sequence += 1
            if type(operation) is AddService and operation.destinations:
                yield from self._row(operation, sequence)
                sequence += len(operation.destinations) // (len(operation.service) - 1)

    def _row(self, op: AddService, sequence: int) -> Iterator[bytes]:
        """Yield the messages that add all real servers of a new service.

        As :meth:`pack` would, but with everything that is the same packed once: this is the
        inside of the loop which a large start spends its time in.
        """
        size, row = len(op.service) - 3, op.destinations
        nest_, use = self.service_nest(op.service), self._use(op.use)
        first = DestinationKey.of(row[: size + 2])
        model = self._message(NEW_DEST, 0, nest_ + self._destination(first, use))
        place = _HEAD.size + len(nest_) + len(_DEST_HEADS[len(use)])
        before, head = model[:8], model[12:place]
        middle = _PADDING[size] + _PORT_HEAD
        end = _FAMILIES[size] + use
        join, order = b"".join, sys.byteorder
        for at in range(0, len(row), size + 2):
            port = at + size
            number = (sequence & _SEQUENCES).to_bytes(4, order)
            yield join((before, number, head, row[at:port], middle, row[port : port + 2], end))
            sequence += 1

    def pack_timeouts(self, timeouts: Timeouts, sequence: int) -> bytes:
        """Return the message that sets the time-outs."""
        body = u32(_ATTR_TIMEOUT_TCP, timeouts.tcp)
        body += u32(_ATTR_TIMEOUT_TCP_FIN, timeouts.tcp_fin)
        body += u32(_ATTR_TIMEOUT_UDP, timeouts.udp)
        return self._message(SET_CONFIG, sequence, body)

    def service_nest(self, key: ServiceKey) -> bytes:
        """Return the attribute that says which service is meant."""
        if self._last is not None and self._last[0] is key:
            return self._last[1]
        packed = nest(_ATTR_SERVICE, _service_identity(key))
        self._last = (key, packed)
        return packed

    def _message(self, command: int, sequence: int, body: bytes) -> bytes:
        length = _HEAD.size + len(body)
        head = _HEAD.pack(
            length, self._family_id, NLM_F_REQUEST, sequence, 0, command, _VERSION, 0
        )
        return head + body

    def _add_service(self, op: AddService, sequence: int) -> bytes:
        return self._message(NEW_SERVICE, sequence, self._service(op.service, op.config))

    def _set_service(self, op: SetService, sequence: int) -> bytes:
        return self._message(SET_SERVICE, sequence, self._service(op.service, op.config))

    def _service(self, key: ServiceKey, config: ServiceConfig) -> bytes:
        known = len(key), config
        attributes = self._configs.get(known)
        if attributes is None:
            attributes = self._configs[known] = _service_attributes(key.family, config)
        return nest(_ATTR_SERVICE, _service_identity(key), attributes)

    def _del_service(self, op: DelService, sequence: int) -> bytes:
        return self._message(DEL_SERVICE, sequence, self.service_nest(op.service))

    def _add_destination(self, op: AddDestination, sequence: int) -> bytes:
        body = self._destination(op.destination, self._use(op.config))
        return self._message(NEW_DEST, sequence, self.service_nest(op.service) + body)

    def _set_destination(self, op: SetDestination, sequence: int) -> bytes:
        body = self._destination(op.destination, self._use(op.config))
        return self._message(SET_DEST, sequence, self.service_nest(op.service) + body)

    def _del_destination(self, op: DelDestination, sequence: int) -> bytes:
        body = self._destination(op.destination, b"")
        return self._message(DEL_DEST, sequence, self.service_nest(op.service) + body)

    def _destination(self, key: DestinationKey, use: bytes) -> bytes:
        """Return the attribute of a real server. Its key is packed as the kernel wants it."""
        size = len(key) - 2
        return b"".join(
            (
                _DEST_HEADS[len(use)],
                key[:size],
                _PADDING[size],
                _PORT_HEAD,
                key[size:],
                _FAMILIES[size],
                use,
            )
        )

    def _use(self, config: DestinationConfig) -> bytes:
        if self._used is None or self._used[0] is not config:
            self._used = config, _use(config)
        return self._used[1]


_USE_SIZE = 32
_DEST_HEADS = {
    size: _ATTRIBUTE.pack(4 + 20 + 8 + 8 + size, _ATTR_DEST | NESTED)
    + _ATTRIBUTE.pack(20, _DEST_ADDR)
    for size in (0, _USE_SIZE)
}
_PORT_HEAD = _ATTRIBUTE.pack(6, _DEST_PORT)
_FAMILIES = {4: bytes(2) + u16(_DEST_ADDR_FAMILY, 2), 16: bytes(2) + u16(_DEST_ADDR_FAMILY, 10)}
"""By the size of an address: the padding of the port before, and the family."""


def _use(config: DestinationConfig) -> bytes:
    return b"".join(
        (
            u32(_DEST_FWD_METHOD, _FORWARDING_NUMBERS[config.forwarding]),
            u32(_DEST_WEIGHT, config.weight),
            u32(_DEST_U_THRESH, 0),
            u32(_DEST_L_THRESH, 0),
        )
    )


_SERVICE_HEADS = {
    size + 3: (
        u16(_SVC_AF, af),
        _ATTRIBUTE.pack(20, _SVC_ADDR),
        _PADDING[size] + _ATTRIBUTE.pack(6, _SVC_PORT),
    )
    for size, af in ((4, 2), (16, 10))
}
_PROTOCOL_ATTRIBUTES = {number: u16(_SVC_PROTOCOL, number) for number in PROTOCOLS}


def _service_identity(key: ServiceKey) -> bytes:
    """Return the attributes that name a service; its key has them packed as the kernel does."""
    af, address, port = _SERVICE_HEADS[len(key)]
    protocol = _PROTOCOL_ATTRIBUTES[key[0]]
    return b"".join((af, protocol, address, key[1:-2], port, key[-2:], b"\0\0"))


def _service_attributes(family: Family, config: ServiceConfig) -> bytes:
    return b"".join(
        (
            attribute(_SVC_SCHED_NAME, config.scheduler.encode() + b"\0"),
            attribute(_SVC_FLAGS, struct.pack("=II", int(config.flags), _ALL_FLAGS)),
            u32(_SVC_TIMEOUT, config.timeout),
            attribute(_SVC_NETMASK, _netmask(family, config.netmask)),
        )
    )


def _netmask(family: Family, prefix: int | None) -> bytes:
    """Return the mask as the kernel keeps it: IPv4 as a mask, IPv6 as a prefix length."""
    length = family.bits if prefix is None else prefix
    if family is Family.IPV6:
        return struct.pack("=I", length)
    return struct.pack("!I", 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF)


def _prefix(family: Family, mask: bytes) -> int | None:
    if family is Family.IPV6:
        length = int.from_bytes(mask, sys.byteorder)
    else:
        length = int.from_bytes(mask, "big").bit_count()
    return None if length == family.bits else length


Service = tuple[ServiceKey, ServiceConfig]


Destination = tuple[DestinationKey, DestinationConfig, DestinationTraffic]

# In the kernel's order: only then one layout serves for all messages.
_STATS_SCHEMA = dict.fromkeys(
    (_STATS_CONNS, _STATS_INPKTS, _STATS_OUTPKTS, _STATS_INBYTES, _STATS_OUTBYTES), "Q"
)
_SERVICE_SCHEMA: Schema = {
    _SVC_AF: "H",
    _SVC_PROTOCOL: "H",
    _SVC_ADDR: "16s",
    _SVC_PORT: "2s",
    _SVC_SCHED_NAME: WHOLE,
    _SVC_FLAGS: "I",  # The first half: flags; the second is a mask, of use in requests only.
    _SVC_TIMEOUT: "I",
    _SVC_NETMASK: "4s",
}
_DEST_SCHEMA: Schema = {
    _ATTR_DEST: {
        _DEST_ADDR: "16s",
        _DEST_PORT: "2s",
        _DEST_FWD_METHOD: "I",
        _DEST_WEIGHT: "I",
        _DEST_ACTIVE: "I",
        _DEST_INACT: "I",
        _DEST_PERSIST: "I",
        _DEST_ADDR_FAMILY: "H",
        _DEST_STATS64: _STATS_SCHEMA,
    }
}


class ServiceReader:
    """Reads the answers to GET_SERVICE. Alike configurations are one object."""

    def __init__(self) -> None:
        self._records = Records({_ATTR_SERVICE: _SERVICE_SCHEMA})
        self._counters = Records({_ATTR_SERVICE: {_SVC_STATS64: _STATS_SCHEMA}})
        self._configs: dict[tuple[Any, ...], ServiceConfig] = {}

    def read(self, buffer: Buffer, start: int, end: int) -> Service | None:
        """Return a service; None for one known by firewall mark or by an unknown protocol."""
        af, number, address, port, *configured = self._records.read(
            buffer, start + GENL_HEADER.size, end
        )
        if number not in PROTOCOLS or address is None:
            return None
        key = ServiceKey.of(number, address[:4] if af == 2 else address, port)
        values = (af, *configured)
        config = self._configs.get(values)
        if config is None:
            family = Family.IPV4 if af == 2 else Family.IPV6
            config = self._configs[values] = _service_config(family, *configured)
        return key, config

    def read_traffic(self, buffer: Buffer, start: int, end: int) -> Traffic:
        """Return what is counted of a service."""
        found = self._counters.read(buffer, start + GENL_HEADER.size, end)
        return Traffic(*(value or 0 for value in found))


def _service_config(
    family: Family, scheduler: bytes, flags: int, timeout: int, mask: bytes
) -> ServiceConfig:
    return ServiceConfig(
        scheduler=scheduler.rstrip(b"\0").decode(),
        flags=ServiceFlags(flags & _OUR_FLAGS),
        timeout=timeout,
        netmask=_prefix(family, mask),
    )


class DestinationReader:
    """Reads the answers to GET_DEST for services of one family."""

    def __init__(self, family: Family) -> None:
        # The service's family; kernels before 3.18 do not say which a destination has.
        self._family = family
        self._records = Records(_DEST_SCHEMA)

    def read(self, buffer: Buffer, start: int, end: int) -> Destination:
        """Return a destination and what is counted of it."""
        address, port, method, weight, active, inactive, persistent, af, *counted = (
            self._records.read(buffer, start + GENL_HEADER.size, end)
        )
        family = self._family
        if af is not None:
            family = Family.IPV4 if af == 2 else Family.IPV6
        key = DestinationKey.of(address[: family.bits // 8] + port)
        forwarding = _FORWARDINGS.get(method & _FORWARDING_MASK, Forwarding.MASQUERADE)
        traffic = Traffic(*(value or 0 for value in counted))
        stats = DestinationStats(active, inactive)
        return (
            key,
            DestinationConfig(weight, forwarding),
            DestinationTraffic(traffic, stats, persistent),
        )


def read_timeouts(buffer: Buffer, start: int, end: int) -> Timeouts:
    """Read the answer to GET_CONFIG."""
    schema = {_ATTR_TIMEOUT_TCP: "I", _ATTR_TIMEOUT_TCP_FIN: "I", _ATTR_TIMEOUT_UDP: "I"}
    tcp, tcp_fin, udp = Records(schema).read(buffer, start + 4, end)
    return Timeouts(tcp or 0, tcp_fin or 0, udp or 0)


def read_info(buffer: Buffer, start: int, end: int) -> Info:
    """Read the answer to GET_INFO."""
    schema = {_INFO_VERSION: "I", _INFO_CONN_TAB_SIZE: "I"}
    version, size = Records(schema).read(buffer, start + 4, end)
    return Info((version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF), size)


def genl_header(command: int) -> bytes:
    """Return the header that follows the netlink header of every message of the family."""
    return GENL_HEADER.pack(command, _VERSION, 0)
