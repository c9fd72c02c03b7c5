"""Real servers by ``getsockopt``, for large IPv4 tables: one system call for each service.

Generic netlink takes three for each service, and ``/proc/net/ip_vs`` begins at the first service
again with every page that is read. The older interface (``linux/ip_vs.h``) is neither; it knows
IPv4 only. ``ctypes`` is imported for it, which small tables need not wait for.
"""

import ctypes
import os
import socket
import struct

from kproxy.errors import KernelError
from kproxy.kernel.ipvs.types import (
    DestinationConfig,
    DestinationEntry,
    DestinationKey,
    DestinationStats,
    Forwarding,
    ServiceKey,
)

_BASE = 64 + 1024 + 64
_GET_INFO, _GET_SERVICES, _GET_DESTS = _BASE + 1, _BASE + 2, _BASE + 4

# struct ip_vs_getinfo, ip_vs_get_services, ip_vs_service_entry, ip_vs_get_dests, ip_vs_dest_entry:
# 56 bytes of statistics, aligned to 8, end both entries.
_INFO = struct.Struct("III")
_SERVICES = struct.Struct("I4x")
_SERVICE = struct.Struct("H2x4s2s2xI16sII4sI56x")
_DESTS = struct.Struct("H2x4s2s2xII4x")
_DEST = struct.Struct("4s2s2xIiIIIII4x56x")

_FORWARDING_MASK = 7
_FORWARDINGS = {
    0: Forwarding.MASQUERADE,
    1: Forwarding.LOCAL,
    2: Forwarding.TUNNEL,
    3: Forwarding.DIRECT,
}

Destinations = dict[DestinationKey, DestinationEntry]
Listed = list[tuple[int, bytes, bytes, int]]
"""Protocol number, address, port and number of real servers of each service."""

_libc = ctypes.CDLL(None, use_errno=True)


def read() -> dict[ServiceKey, Destinations] | None:
    """Return the real servers of every IPv4 service known by address, of this thread's namespace.

    None if the table changed meanwhile. Raises KernelError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        listed = _services(sock)
        found: dict[ServiceKey, Destinations] = {}
        entries: dict[tuple[int, int, int, int], DestinationEntry] = {}
        for number, address, port, count in listed:
            into = _destinations(sock, (number, address, port, 0, count), entries)
            found[ServiceKey.of(number, address, port)] = into
            if len(into) != count:
                return None
        return found if _services(sock) == listed else None


def _services(sock: socket.socket) -> Listed:
    _version, _size, count = _INFO.unpack(_ask(sock, _GET_INFO, bytes(_INFO.size)))
    head = _SERVICES.pack(count)
    told = _ask(sock, _GET_SERVICES, head + bytes(count * _SERVICE.size))
    rows = _SERVICE.iter_unpack(told[_SERVICES.size :])
    return [
        (number, address, port, real)
        for number, address, port, mark, _name, _flags, _timeout, _mask, real in rows
        if number and not mark
    ]


def _destinations(
    sock: socket.socket,
    service: tuple[int, bytes, bytes, int, int],
    entries: dict[tuple[int, int, int, int], DestinationEntry],
) -> Destinations:
    """Return the real servers of a service; ``entries`` are those made so far, by their values."""
    count = service[-1]
    told = _ask(sock, _GET_DESTS, _DESTS.pack(*service) + bytes(count * _DEST.size))
    found: Destinations = {}
    rows = _DEST.iter_unpack(told[_DESTS.size :])
    for address, port, flags, weight, _upper, _lower, active, inactive, _kept in rows:
        known = (flags & _FORWARDING_MASK, weight, active, inactive)
        entry = entries.get(known)
        if entry is None:
            method = _FORWARDINGS.get(known[0], Forwarding.MASQUERADE)
            config, stats = DestinationConfig(weight, method), DestinationStats(active, inactive)
            entry = entries[known] = DestinationEntry(config, stats)
        found[DestinationKey.of(address + port)] = entry
    return found


def _ask(sock: socket.socket, option: int, value: bytes) -> bytes:
    """Return what the kernel makes of a value."""
    buffer = ctypes.create_string_buffer(value, len(value))
    size = ctypes.c_uint(len(value))
    code = _libc.getsockopt(sock.fileno(), socket.IPPROTO_IP, option, buffer, ctypes.byref(size))
    if code != 0:
        number = ctypes.get_errno()
        raise KernelError("list virtual servers", number, os.strerror(number))
    return buffer.raw
