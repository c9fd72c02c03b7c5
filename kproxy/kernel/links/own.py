"""The addresses of the node itself, and when they change.

Apart from :mod:`kproxy.kernel.links.client`, because a proxy in ipvs mode gives the node thousands
of addresses, one for each service: those are neither wanted here nor may they cost anything.
"""

import errno
import os
import socket
import struct
import time

from kproxy.errors import KernelError
from kproxy.kernel import netlink
from kproxy.kernel.attributes import Buffer, walk
from kproxy.kernel.inet import Family

_ADDRESS = struct.Struct("=BBBBI")
"""Of each message: family, prefix length, flags, scope, index of the device."""

_NEWADDR, _DELADDR = 20, 21
_GETADDR = 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_GROUP_IPV4_ADDRESSES, _GROUP_IPV6_ADDRESSES = 0x10, 0x100
_LOST = -1
_RECEIVE_BUFFER = 4096
"""As small as the kernel lets it be: a flood of news is one piece of news."""

Own = dict[Family, tuple[str, ...]]
"""The canonical addresses of each family, each once, in the kernel's order."""


def own_addresses(without: str) -> Own:
    """Return the node's addresses but for loopback and link-local ones.

    ``without``: the device whose addresses do not count; it may be missing. KernelError.
    """
    sock = netlink.NetlinkSocket(netlink.NETLINK_ROUTE)
    try:
        skipped = _index(without)
        return {family: _addresses(sock, family, skipped) for family in Family}
    finally:
        sock.close()


def _index(device: str) -> int:
    """Return the index of a device; 0, which none has, if it is missing."""
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def _addresses(sock: netlink.NetlinkSocket, family: Family, skipped: int) -> tuple[str, ...]:
    def read(buffer: Buffer, start: int, end: int) -> bytes | None:
        if _ADDRESS.unpack_from(buffer, start)[4] == skipped:
            return None
        values = {
            kind: bytes(buffer[begin:stop])
            for kind, begin, stop in walk(buffer, start + _ADDRESS.size, end)
            if kind in (_IFA_LOCAL, _IFA_ADDRESS)
        }
        # IFA_ADDRESS is the far end of a point-to-point device, otherwise the same, or the only.
        return values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)

    payload = _ADDRESS.pack(family.af, 0, 0, 0, 0)
    found = sock.dump(_GETADDR, payload, read, "list addresses")
    # Of doubles the first place counts.
    return tuple(
        dict.fromkeys(
            socket.inet_ntop(family.af, packed)
            for packed in found
            if packed is not None and not _special(packed)
        )
    )


def _special(packed: bytes) -> bool:
    """Return whether an address means this host or this wire only."""
    if len(packed) == 4:
        return packed[0] == 127 or packed[:2] == b"\xa9\xfe"
    return packed == b"\0" * 15 + b"\1" or (packed[0] == 0xFE and packed[1] & 0xC0 == 0x80)


class AddressChanges:
    """Tells when addresses of this network namespace come and go. For one thread.

    ``without``: the device whose addresses do not count; it may be missing.
    """

    def __init__(self, without: str) -> None:
        """Listen from now on. KernelError."""
        self._without = without
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETLINK_ROUTE
            )
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._socket.bind((0, _GROUP_IPV4_ADDRESSES | _GROUP_IPV6_ADDRESSES))
        except OSError as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def wait(self, settle_s: float) -> None:
        """Wait until an address came or went, and then for so many seconds more.

        May return for nothing, where so much happened that the kernel did not tell all.
        KernelError.
        """
        while True:
            devices = self._receive(0)
            time.sleep(settle_s)
            try:
                while True:
                    devices |= self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
            if devices - {_index(self._without)}:
                return

    def _receive(self, flags: int) -> set[int]:
        """Return the indices of the devices of which news is told; _LOST where some is lost."""
        try:
            buffer = self._socket.recv(65536, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return {_LOST}
            raise _failure(error) from error
        found = set()
        position = 0
        while position + netlink.HEADER.size <= len(buffer):
            length, kind, *_ = netlink.HEADER.unpack_from(buffer, position)
            if length < netlink.HEADER.size:
                break
            if kind in (_NEWADDR, _DELADDR):
                found.add(_ADDRESS.unpack_from(buffer, position + netlink.HEADER.size)[4])
            position += (length + 3) & ~3
        return found


def _failure(error: OSError) -> KernelError:
    number = error.errno or 0
    return KernelError("follow the node's addresses", number, os.strerror(number))
