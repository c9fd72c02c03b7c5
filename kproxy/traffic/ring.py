"""The kernel's transmit ring (PACKET_TX_RING): frames in memory that the kernel sends from.

Where a system call costs 12 µs, and copying from a process as much again for a batch, this is the
fastest way to send that the kernel has; ``kproxy bench traffic`` measures it beside sendmmsg.
:mod:`kproxy.traffic.slots` lays the frames.

The kernel is told to copy them (PACKET_VNET_HDR, with the whole frame as the header): sent from
where they lie, each would cost a page of its own at the next namespace.
"""

import errno
import mmap
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import profile, slots
from kproxy.traffic.slots import BATCH

FRAMES = 2 * BATCH
SEND_BUFFER = 8 << 20
_SOL_PACKET = 263
_PACKET_VERSION, _TPACKET_V2 = 10, 1
_PACKET_TX_RING = 13
_PACKET_VNET_HDR = 15
_PACKET_TX_HAS_OFF = 19
_SO_SNDBUFFORCE = 32
_NOT_DONE = slots.SEND | slots.WRONG
_NOT_FREE = slots.SEND | slots.SENDING | slots.WRONG
_FULL = {errno.EAGAIN, errno.ENOBUFS}


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a batch: ``taken`` frames by the kernel, then perhaps an errno.

    Without an errno the frames that were not taken found no room and can be offered again.
    """

    taken: int
    errno: int = 0


class TransmitRing:
    """A packet socket with the frames of some flows, to be sent in turn.

    Raises UsageError for an interface that does not exist or flows that cannot share a ring.
    """

    def __init__(self, interface: str, flows: tuple[profile.UdpFlow, ...], trial: int) -> None:
        self.sock = packet_socket(interface)
        try:
            self._map = self._ask_for_ring(slots.slot_size(flows))
            self._slots = slots.Slots(memoryview(self._map), flows, trial)
        except OSError as err:
            self.sock.close()
            raise MeasurementError(f"no transmit ring: {err.strerror}") from None
        except UsageError:
            self.sock.close()
            raise
        self._place = 0  # of the frame that the kernel looks at next

    def _ask_for_ring(self, slot: int) -> mmap.mmap:
        block, size = max(mmap.PAGESIZE, slot), FRAMES * slot
        wanted = struct.pack("=IIII", block, size // block, slot, FRAMES)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_TX_HAS_OFF, 1)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_TX_RING, wanted)
        return mmap.mmap(self.sock.fileno(), size)

    def send(self, first: int, number: int, now: int, ports: bytes = b"") -> Sent:
        """Send packets ``first`` to ``first + number - 1``; see :meth:`slots.Slots.fill`."""
        taken = 0
        while taken < number:
            part = self._free(min(number - taken, FRAMES - self._place))
            if not part:
                break  # the whole ring is on its way: the card is slower than we are
            given = ports[2 * taken : 2 * (taken + part)]
            self._slots.fill(self._place, first + taken, part, now, given)
            done, code = self._flush(part)
            taken += done
            self._place = (self._place + done) % FRAMES
            if done < part:
                return Sent(taken, 0 if code in _FULL else code)
        return Sent(taken)

    def _free(self, number: int) -> int:
        """Return how many of the next ``number`` slots the kernel has done with."""
        return _before(self._slots.statuses(self._place, number), _NOT_FREE)

    def _flush(self, number: int) -> tuple[int, int]:
        """Have the kernel send the next slots; return how many it took, and why not all."""
        code = 0
        try:
            self.sock.send(b"", socket.MSG_DONTWAIT)
        except OSError as err:
            code = err.errno or errno.EIO
        taken = _before(self._slots.statuses(self._place, number), _NOT_DONE)
        self._slots.withdraw(self._place + taken, number - taken)
        return taken, code

    def close(self) -> None:
        """Give the ring back."""
        self._slots.release()
        self._map.close()
        self.sock.close()


def _before(words: list[int], bits: int) -> int:
    """Return how many words come before the first one with one of these bits."""
    if words.count(slots.AVAILABLE) == len(words):
        return len(words)
    return next((i for i, word in enumerate(words) if word & bits), len(words))


def packet_socket(interface: str) -> socket.socket:
    """Return a packet socket that sends on an interface, and receives nothing."""
    # Protocol 0: nothing that arrives is queued on it.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((interface, 0))
    except OSError as err:
        sock.close()
        raise UsageError(f"interface {interface!r}: {os.strerror(err.errno or 0)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
    except PermissionError:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return sock
