"""What interfaces have passed and dropped, and their queues: through rtnetlink."""

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer, find

_GETLINK, _GETQDISC = 18, 38
_LINK = struct.Struct("=BxHiII")
_QUEUE = struct.Struct("=BxxxiIII")
_NAME, _CARRIER_CHANGES, _STATS = 3, 35, 23
_KIND, _STATS2, _STATS_QUEUE = 1, 7, 3
_STATS_FIELDS = struct.Struct("=8Q")
_MISSED = struct.Struct("=Q")
_MISSED_AT = 15 * 8
_QUEUE_STATS = struct.Struct("=5I")
_UP, _RUNNING = 1, 0x40

T = TypeVar("T")


class InterfaceCounters(NamedTuple):
    """Of one interface, since it was made. Packets, but for the last three.

    ``received_dropped``: nobody took them, or a veth's far end could not; ``sent_dropped``: the
    device, or what stands for the queue of one without carrier, refused them. ``number`` is its
    index.
    """

    received: int
    sent: int
    received_errors: int
    sent_errors: int
    received_dropped: int
    sent_dropped: int
    missed: int
    carrier_changes: int
    running: bool
    number: int


class QueueCounters(NamedTuple):
    """Of one queueing discipline. ``kind`` such as ``netem``."""

    interface: int
    kind: str
    drops: int
    overlimits: int
    waiting: int


def interfaces() -> Mapping[str, InterfaceCounters]:
    """Return the counters of every interface of the namespace by its name. KernelError."""
    payload = _LINK.pack(0, 0, 0, 0, 0)
    return dict(_dump(_GETLINK, payload, _interface, "list devices"))


def queues() -> tuple[QueueCounters, ...]:
    """Return the queues of every interface that has some. KernelError."""
    payload = _QUEUE.pack(0, 0, 0, 0, 0)
    return tuple(_dump(_GETQDISC, payload, _queue, "list queues"))


def _dump(kind: int, payload: bytes, parse: Callable[[Buffer, int, int], T], what: str) -> list[T]:
    sock = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)
    try:
        return sock.dump(kind, payload, parse, what)
    finally:
        sock.close()


def _interface(buffer: Buffer, start: int, end: int) -> tuple[str, InterfaceCounters]:
    _family, _type, index, flags, _change = _LINK.unpack_from(buffer, start)
    places = find(buffer, start + _LINK.size, end)
    at, _ = places[_STATS]
    received, sent, _, _, *rest = _STATS_FIELDS.unpack_from(buffer, at)
    received_errors, sent_errors, received_dropped, sent_dropped = rest
    (missed,) = _MISSED.unpack_from(buffer, at + _MISSED_AT)
    changes = 0
    if _CARRIER_CHANGES in places:
        (changes,) = struct.unpack_from("=I", buffer, places[_CARRIER_CHANGES][0])
    running = flags & (_UP | _RUNNING) == _UP | _RUNNING
    counters = InterfaceCounters(
        received=received,
        sent=sent,
        received_errors=received_errors,
        sent_errors=sent_errors,
        received_dropped=received_dropped,
        sent_dropped=sent_dropped,
        missed=missed,
        carrier_changes=changes,
        running=running,
        number=index,
    )
    return _text(buffer, places[_NAME]), counters


def _queue(buffer: Buffer, start: int, end: int) -> QueueCounters:
    _family, index, _handle, _parent, _info = _QUEUE.unpack_from(buffer, start)
    places = find(buffer, start + _QUEUE.size, end)
    waiting = drops = overlimits = 0
    if _STATS2 in places:
        stats = find(buffer, *places[_STATS2])
        if _STATS_QUEUE in stats:
            at, _ = stats[_STATS_QUEUE]
            waiting, _, drops, _, overlimits = _QUEUE_STATS.unpack_from(buffer, at)
    return QueueCounters(index, _text(buffer, places[_KIND]), drops, overlimits, waiting)


def _text(buffer: Buffer, place: tuple[int, int]) -> str:
    return bytes(buffer[place[0] : place[1]]).rstrip(b"\0").decode()
