"""Every packet that the kernel drops, with its reason: the drop monitor, through generic netlink.

The monitor (``NET_DM``) is one for the whole kernel: it tells of the drops of all namespaces, only
to the initial one, and has one owner at a time. While nothing is dropped it costs nothing. A
packet that was consumed is not told of, and neither is one that a rule rejected *and* answered,
apart from the drop itself.

It outlives a killed process, so one that has the length of queue that only this module sets is
taken over, unless a living process holds the name that goes with it; everybody else's is left
alone.
"""

import errno
import socket
import struct
import sys
from dataclasses import dataclass
from typing import NamedTuple, Self

from kproxy.errors import KernelError, NotFound, Unsupported
from kproxy.kernel import attributes, netlink
from kproxy.kernel.attributes import Buffer, find, text, u8, u32, walk
from kproxy.kernel.multicast import Listener
from kproxy.kernel.netlink import NLM_F_REQUEST

_FAMILY = "NET_DM"
_WHAT = "the drop monitor"
_CONFIG, _START, _STOP, _PACKET_ALERT, _CONFIG_GET, _STATS_GET = 2, 3, 4, 5, 6, 8
_MODE, _SYMBOL, _IN_PORT, _TIMESTAMP, _PAYLOAD = 1, 3, 4, 5, 7
_TRUNCATE, _QUEUE, _STATS, _SOFTWARE, _REASON = 9, 11, 12, 20, 23
_PORT_INDEX, _STATS_DROPPED = 0, 0
_PACKETS = 1
"""The mode in which each packet is told of, not only how many."""

_OUR_QUEUE = 16_381
"""How many drops wait in the kernel to be told. By this number we know a monitor of ours."""
_NAME = "\0kproxy drop monitor"
"""Not of a file; there is one of each network namespace, and the monitor serves one of those."""
_BYTES = 192
"""How much of a dropped packet is told: headers, and what a probe says of itself."""

_GETFAMILY, _FAMILY_ID, _FAMILY_NAME, _GROUPS, _GROUP_ID = 3, 1, 2, 7, 2
_CONTROL = 0x10
_GENERIC = struct.Struct("=BBH")
_ROOM = 64 << 20
_NOWHERE = (0, 0)


class Drop(NamedTuple):
    """One packet that the kernel dropped.

    ``reason`` in the kernel's words, such as ``NO_SOCKET``; "" before Linux 5.17. ``symbol``: the
    function that dropped it, with offset. ``frame`` begins with the link layer's header as it
    was last written or read. ``ns`` is of CLOCK_REALTIME. ``interface``: the index of the one
    through which it came, in its namespace; 0: none.
    """

    ns: int
    reason: str
    symbol: str
    interface: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class _Family:
    number: int
    group: int


class DropMonitor:
    """The kernel's drop monitor, from entering to leaving. To be entered in the first namespace.

    Raises Unsupported where the kernel has none, where this is not its initial namespace, or where
    somebody else uses it; KernelError if it refuses.
    """

    def __init__(self) -> None:
        self._name: socket.socket | None = None
        self._told: Listener | None = None

    def __enter__(self) -> Self:
        self._commands = netlink.NetlinkSocket(netlink.NETLINK_GENERIC)
        try:
            self._name = _claim()
            self._family = self._look_up()
            group = self._family.group
            self._told = Listener(netlink.NETLINK_GENERIC, group, _ROOM, _WHAT)
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._command(_STOP, attributes.attribute(_SOFTWARE, b""), "end")
        except KernelError as error:
            if error.errno != errno.EAGAIN:  # somebody else has ended it
                raise
        finally:
            self.close()

    def close(self) -> None:
        """Give the sockets back; the monitor goes on. For who is in trouble already."""
        self._commands.close()
        for sock in (self._told, self._name):
            if sock is not None:
                sock.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when :meth:`read` has something."""
        assert self._told is not None
        return self._told.fileno()

    def read(self) -> list[Drop]:
        """Return the drops that were told since the last call, without waiting.

        :meth:`missed` counts those that the queue did not hold.
        """
        assert self._told is not None
        return [
            _drop(buffer, start + _GENERIC.size, end)
            for kind, buffer, start, end in self._told.read()
            if kind == self._family.number and buffer[start] == _PACKET_ALERT
        ]

    def missed(self) -> int:
        """Return how many drops the kernel could not tell since the monitor began."""

        def dropped(buffer: Buffer, start: int, end: int) -> int:
            stats = find(buffer, *find(buffer, start + 4, end)[_STATS])
            at, _ = stats[_STATS_DROPPED]
            return int(struct.unpack_from("=Q", buffer, at)[0])

        head = _GENERIC.pack(_STATS_GET, 2, 0)
        return self._commands.ask(self._family.number, head, dropped, "ask the drop monitor")

    def _look_up(self) -> _Family:
        payload = _GENERIC.pack(_GETFAMILY, 1, 0) + text(_FAMILY_NAME, _FAMILY)

        def family(buffer: Buffer, start: int, end: int) -> _Family:
            places = find(buffer, start + _GENERIC.size, end)
            number = struct.unpack_from("=H", buffer, places[_FAMILY_ID][0])[0]
            for _, begin, stop in walk(buffer, *places[_GROUPS]):
                group = find(buffer, begin, stop)[_GROUP_ID][0]
                return _Family(number, struct.unpack_from("=I", buffer, group)[0])
            raise ValueError("the drop monitor has no group")

        try:
            return self._commands.ask(_CONTROL, payload, family, "look for the drop monitor")
        except NotFound:
            raise Unsupported(
                "there is no drop monitor here",
                remedy="load the module drop_monitor; it serves the initial namespace only",
            ) from None

    def _begin(self) -> None:
        settings = u8(_MODE, _PACKETS) + u32(_TRUNCATE, _BYTES) + u32(_QUEUE, _OUR_QUEUE)
        software = attributes.attribute(_SOFTWARE, b"")
        try:
            self._command(_CONFIG, settings, "set up")
        except KernelError as error:
            if error.errno == errno.EPERM:
                raise Unsupported("the drop monitor needs root") from error
            if error.errno != errno.EBUSY or self._queue() != _OUR_QUEUE:
                raise Unsupported(
                    f"the drop monitor cannot be used: {error}",
                    remedy="end who uses it, such as dropwatch",
                ) from error
            self._command(_STOP, software, "take over")
            self._command(_CONFIG, settings, "set up")
        self._command(_START, software, "begin")

    def _queue(self) -> int:
        def length(buffer: Buffer, start: int, end: int) -> int:
            at, _ = find(buffer, start + 4, end)[_QUEUE]
            return int(struct.unpack_from("=I", buffer, at)[0])

        head = _GENERIC.pack(_CONFIG_GET, 2, 0)
        return self._commands.ask(self._family.number, head, length, "ask the drop monitor")

    def _command(self, command: int, body: bytes, verb: str) -> None:
        def message(_: int, sequence: int) -> bytes:
            payload = _GENERIC.pack(command, 2, 0) + body
            length = netlink.HEADER.size + len(payload)
            head = netlink.HEADER.pack(length, self._family.number, NLM_F_REQUEST, sequence, 0)
            return head + payload

        for refusal in self._commands.execute([command], message).values():
            raise netlink.kernel_error(f"{verb} the drop monitor", refusal)


def _claim() -> socket.socket:
    """Take the name that says who uses the monitor; it is free again when its holder dies."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.bind(_NAME)
    except OSError:
        sock.close()
        raise Unsupported(
            "another kproxy uses the drop monitor", remedy="wait until it has ended"
        ) from None
    return sock


def _drop(buffer: Buffer, start: int, end: int) -> Drop:
    places = find(buffer, start, end)
    port = find(buffer, *places.get(_IN_PORT, _NOWHERE))

    def raw(kind: int) -> bytes:
        return bytes(buffer[slice(*places.get(kind, _NOWHERE))])

    def words(kind: int) -> str:
        return raw(kind).rstrip(b"\0").decode(errors="replace")

    interface = bytes(buffer[slice(*port.get(_PORT_INDEX, _NOWHERE))])
    return Drop(
        ns=int.from_bytes(raw(_TIMESTAMP), sys.byteorder),
        reason=words(_REASON),
        symbol=words(_SYMBOL),
        interface=int.from_bytes(interface, sys.byteorder),
        frame=raw(_PAYLOAD),
    )
