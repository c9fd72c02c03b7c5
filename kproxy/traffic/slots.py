"""Frames in slots of equal size, as a ring wants them, and their stamps. Pure.

The frames of a batch are copied in one piece; then their stamps are written (sequence number,
time, and where asked for source port and checksum), for the whole batch at once, column by column:
strided copies between memoryviews, no step of Python for each packet.

Frames begin at different places of their slots, so that all stamps lie in one column.
"""

import struct
import sys
from typing import Literal

from kproxy.errors import UsageError
from kproxy.traffic import profile, wire

#: More than this are never handed to the kernel at once: its receive backlog
#: (netdev_max_backlog) holds 1,000.
BATCH = 512
AVAILABLE, SEND, SENDING, WRONG = 0, 1, 2, 4
#: struct tpacket2_hdr: status, length, captured length, place of the frame (for it, for others).
_HEADER = struct.Struct("=IIIHH")
#: struct virtio_net_hdr: no offloads, and so many bytes of the frame are to be copied.
_COPY = struct.Struct("=BBHHHH")
_FRAME_AT = 32 + _COPY.size
_LEAST_SLOT = 128
_PORT_BEFORE_HEADER = 8


class Slots:
    """``number`` slots in ``memory`` (begin: all available), to be filled from any one on.

    ``size`` is that of a slot, as :func:`slot_size` returns it. Raises UsageError for flows whose
    frames cannot share columns.
    """

    def __init__(self, memory: memoryview, flows: tuple[profile.UdpFlow, ...], trial: int) -> None:
        self.size = slot_size(flows)
        self._flows = len(flows)
        self._image = memoryview(_image(flows, trial, self.size))
        self._checksums = Checksums(flows, trial)
        self._memory = memory
        header_at = _FRAME_AT + _deepest(flows)
        stamp = header_at + wire.STAMP_AT
        self._status = memory.cast("I")
        self._seq, self._ns = self._column(stamp, "Q"), self._column(stamp + 8, "Q")
        self._port = self._column(header_at - _port_before_header(flows), "H")
        before = self._checksums.before_header
        self._checksum = self._column(header_at - before, "H")

    def _column(self, at: int, code: Literal["H", "Q"]) -> memoryview:
        size = struct.calcsize(code)
        end = at + (len(self._memory) - at) // size * size
        return self._memory[at:end].cast(code)

    def fill(self, place: int, first: int, number: int, now: int, ports: bytes = b"") -> None:
        """Lay packets, from ``first`` on, into slots, to be sent; ``now`` is their stamp.

        Packet k belongs to flow k modulo the number of flows. ``number`` is at most BATCH.
        ``ports``: their source ports, 2 bytes each, as on the wire (empty: those of the frames).
        """
        flow = first % self._flows
        begin, end = place * self.size, (place + number) * self.size
        self._memory[begin:end] = self._image[flow * self.size : (flow + number) * self.size]
        self._write(self._seq, place, _sequence_numbers(first, number, self._flows))
        self._write(self._ns, place, now.to_bytes(8, "big") * number)
        if ports:
            self._write(self._port, place, ports)
        if self._checksums.any:
            sums = self._checksums.of(first, number, now, ports)
            self._write(self._checksum, place, sums)
        self._write(self._status, place, SEND.to_bytes(4, sys.byteorder) * number)

    def _write(self, column: memoryview, place: int, values: bytes) -> None:
        step, number = self.size // column.itemsize, len(values) // column.itemsize
        items = memoryview(values).cast(column.format)  # type: ignore[call-overload]  # an integer
        column[place * step : (place + number) * step : step] = items

    def statuses(self, place: int, number: int) -> list[int]:
        """Return what the kernel says of slots."""
        step = self.size // 4
        return self._status[place * step : (place + number) * step : step].tolist()

    def withdraw(self, place: int, number: int) -> None:
        """Make slots available that the kernel has not looked at."""
        if number:
            step = self.size // 4
            none = memoryview(bytes(4 * number)).cast("I")
            self._status[place * step : (place + number) * step : step] = none

    def frame(self, place: int) -> bytes:
        """Return the frame in a slot."""
        _, length, _, begin, _ = _HEADER.unpack_from(self._memory, place * self.size)
        at = place * self.size + begin
        return bytes(self._memory[at + _COPY.size : at + length])

    def release(self) -> None:
        """Let go of the memory."""
        columns = (self._status, self._seq, self._ns, self._port, self._checksum)
        for view in (*columns, self._memory):
            view.release()


def slot_size(flows: tuple[profile.UdpFlow, ...]) -> int:
    """Return the size of a slot: a power of two."""
    # A frame without a header has room for one behind it, which is not sent.
    longest = max(wire.HEADER.size, *(len(flow.frame) - flow.header_at for flow in flows))
    needed = _FRAME_AT + _deepest(flows) + longest
    return max(_LEAST_SLOT, 1 << (needed - 1).bit_length())


def _deepest(flows: tuple[profile.UdpFlow, ...]) -> int:
    return max(flow.header_at for flow in flows)


def _port_at(flow: profile.UdpFlow) -> int:
    return flow.header_at - _PORT_BEFORE_HEADER if flow.port_at is None else flow.port_at


def _port_before_header(flows: tuple[profile.UdpFlow, ...]) -> int:
    """Return how far before the header source ports are."""
    before = {flow.header_at - _port_at(flow) for flow in flows}
    if len(before) > 1:
        raise UsageError(
            "flows: port_at: the source ports of the flows are at different distances from their "
            "headers",
            remedy="send them with profiles of their own",
        )
    return before.pop()


def _image(flows: tuple[profile.UdpFlow, ...], trial: int, size: int) -> bytes:
    """Return the slots of all flows, and so many again that a batch can begin with each."""
    slots = []
    for flow in flows:
        at = _FRAME_AT + _deepest(flows) - flow.header_at
        slot = bytearray(size)
        length, begin = len(flow.frame), at - _COPY.size
        whole = _COPY.size + length
        _HEADER.pack_into(slot, 0, AVAILABLE, whole, whole, begin, begin)
        _COPY.pack_into(slot, begin, 0, 0, length, 0, 0, 0)
        slot[at : at + length] = flow.frame
        header = at + flow.header_at
        slot[header + 4 : header + 8] = trial.to_bytes(4, "big")
        slots.append(bytes(slot))
    again = [slots[number % len(slots)] for number in range(BATCH)]
    return b"".join(slots + again)


def _sequence_numbers(first: int, number: int, flows: int) -> bytes:
    """Return the sequence numbers of packets, 8 bytes each: packet k's is k // flows."""
    begin, end = first // flows, (first + number - 1) // flows
    rounds = b"".join([seq.to_bytes(8, "big") * flows for seq in range(begin, end + 1)])
    skip = 8 * (first - begin * flows)
    return rounds[skip : skip + 8 * number]


class Checksums:
    """Checksums that stay right when stamp and source port change (RFC 1624).

    ``before_header``: so far before the probe header they are.
    """

    def __init__(self, flows: tuple[profile.UdpFlow, ...], trial: int) -> None:
        self._bases = [_base(flow, trial) for flow in flows]
        self._ports = [_port(flow) for flow in flows]
        before = {f.header_at - f.checksum_at for f in flows if f.checksum_at is not None}
        if len(before) > 1:
            raise UsageError(
                "flows: checksum_at: the checksums of the flows are at different distances from "
                "their headers",
                remedy="send them with profiles of their own",
            )
        self.any = bool(before)
        self.before_header = before.pop() if before else 2

    def of(self, first: int, number: int, now: int, ports: bytes) -> bytes:
        """Return the checksums of packets, 2 bytes each; 0 where a flow has none."""
        flows, time = len(self._bases), _words(now)
        found = []
        for i in range(number):
            seq, flow = divmod(first + i, flows)
            base = self._bases[flow]
            if base is None:
                found.append(0)
                continue
            total = base + _words(seq) + time
            if ports:
                total += int.from_bytes(ports[2 * i : 2 * i + 2], "big") - self._ports[flow]
            # 0xFFFF, not 0: in UDP a checksum of 0 says that there is none.
            found.append((~(total % 0xFFFF) & 0xFFFF) or 0xFFFF)
        return struct.pack(f"!{number}H", *found)


def _base(flow: profile.UdpFlow, trial: int) -> int | None:
    """Return the sum that stands for everything but the stamp; None without a checksum."""
    if flow.checksum_at is None:
        return None
    (value,) = struct.unpack_from("!H", flow.frame, flow.checksum_at)
    (old,) = struct.unpack_from("!I", flow.frame, flow.header_at + 4)
    change = (trial >> 16) + (trial & 0xFFFF) - (old >> 16) - (old & 0xFFFF)
    return int((~value & 0xFFFF) + change) % 0xFFFF


def _port(flow: profile.UdpFlow) -> int:
    at = _port_at(flow)
    return int.from_bytes(flow.frame[at : at + 2], "big")


def _words(value: int) -> int:
    """Return the sum of the four 16-bit words of a number of 8 bytes."""
    high, low = value >> 32, value & 0xFFFFFFFF
    return (high >> 16) + (high & 0xFFFF) + (low >> 16) + (low & 0xFFFF)
