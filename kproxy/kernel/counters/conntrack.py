"""What connection tracking has counted, over all CPUs: through ctnetlink."""

import struct
from typing import NamedTuple

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel import netlink, nfnetlink
from kproxy.kernel.attributes import Buffer, find

_STATS_CPU, _STATS = 4, 5
_INVALID, _INSERT_FAILED, _DROP, _EARLY_DROP, _ERROR, _CHAIN = 4, 9, 10, 11, 12, 15
_ENTRIES, _MAX = 1, 2


class ConntrackCounters(NamedTuple):
    """Of one namespace.

    ``drop``: packets for whose connection the table had no room. ``early_drop``: connections that
    made room. ``invalid``: packets that belong to no connection; what becomes of them rules
    decide. ``insert_failed``: packets dropped because another one's entry was in their place.
    """

    invalid: int = 0
    insert_failed: int = 0
    drop: int = 0
    early_drop: int = 0
    error: int = 0
    chain_too_long: int = 0
    entries: int = 0
    limit: int = 0


def conntrack() -> ConntrackCounters:
    """Return the counters of the current namespace; zeros where nothing is tracked.

    KernelError if the kernel does not answer.
    """
    try:
        sock = netlink.NetlinkSocket(netlink.NETLINK_NETFILTER)
    except Unsupported:
        return ConntrackCounters()
    try:
        header = nfnetlink.header(0)
        kind = nfnetlink.message_type(nfnetlink.SUBSYSTEM_CONNTRACK, _STATS_CPU)
        cpus = sock.dump(kind, header, _cpu, "read the counters of connection tracking")
        kind = nfnetlink.message_type(nfnetlink.SUBSYSTEM_CONNTRACK, _STATS)
        entries, limit = sock.ask(kind, header, _table, "read the size of the connection table")
    except KernelError as refusal:
        if refusal.errno in nfnetlink.NO_ANSWER:
            raise
        return ConntrackCounters()  # The kernel tracks no connections, or does not tell.
    finally:
        sock.close()
    invalid, insert_failed, drop, early_drop, error, chain = (
        sum(numbers) for numbers in zip(*cpus, strict=True)
    )
    return ConntrackCounters(
        invalid, insert_failed, drop, early_drop, error, chain, entries, limit
    )


def _cpu(buffer: Buffer, start: int, end: int) -> tuple[int, ...]:
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
    wanted = (_INVALID, _INSERT_FAILED, _DROP, _EARLY_DROP, _ERROR, _CHAIN)
    return tuple(_number(buffer, places, kind) for kind in wanted)


def _table(buffer: Buffer, start: int, end: int) -> tuple[int, int]:
    places = find(buffer, start + nfnetlink.HEADER_SIZE, end)
    return _number(buffer, places, _ENTRIES), _number(buffer, places, _MAX)


def _number(buffer: Buffer, places: dict[int, tuple[int, int]], kind: int) -> int:
    if kind not in places:
        return 0  # Older kernels count less.
    return int(struct.unpack_from("!I", buffer, places[kind][0])[0])
