"""Sees when a change has arrived in a node's kernel, whoever wrote it, without asking the writer.

* An endpoint. ipvs: the real servers of one virtual server are listed every millisecond.
  nf_tables (nftables, and iptables' nft variant): the kernel's own notification of a transaction
  in which the endpoint's address occurs; it comes with the commit. ip_tables (iptables' legacy
  variant): the number of entries of table nat is asked every millisecond, which copies nothing.
* A service: a connection to its address succeeds, tried every few milliseconds. Before the
  service is there the same try is refused at once.

What looking costs is measured with it (:attr:`Look.cost_seconds` for one time) and told beside the
figures: it happens on the same CPUs.
"""

import ctypes
import errno
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from kproxy.errors import KernelError, MeasurementError, NotFound, Unsupported
from kproxy.kernel import netlink, nfnetlink
from kproxy.kernel.inet import Family, Protocol
from kproxy.kernel.ipvs import wire
from kproxy.kernel.ipvs.types import ServiceKey
from netns.host import LiveHost

INTERVAL_S = 0.001
CONNECT_INTERVAL_S = 0.002
CONNECT_TIMEOUT_S = 0.5

_GROUP_NFTABLES = 7
_SUBSYSTEM_NFTABLES = 10
_MSG_NEWGEN = 15
_SO_RCVBUFFORCE = 33
_ROOM = 64 << 20
_READ_SIZE = 1 << 20
_KIND = struct.Struct("=IHHII")
_IPT_SO_GET_INFO = 64
_INFO = struct.Struct("=32sI5I5III")


class Look:
    """Looks at the kernel of one node. A context manager; one thread."""

    def __init__(self, host: LiveHost, mode: str, patience_s: float) -> None:
        self._host = host
        self._patience = patience_s
        self._ways: list[_Way] = []
        with host.entered():
            if mode == "ipvs":
                self._ways.append(_Servers())
            else:
                self._ways.append(_Commits())
            if mode == "iptables":
                self._ways.append(_Entries())
        self.cost_seconds = 0.0
        """What one look took, the last time that something was waited for, on average."""

    def __enter__(self) -> "Look":
        return self

    def __exit__(self, *exc: object) -> None:
        for way in self._ways:
            way.close()

    def expect(self, service: ServiceKey, endpoint: IPv4Address) -> None:
        """Say what will change, before it does."""
        for way in self._ways:
            way.expect(service, endpoint)

    def wait_endpoint(self) -> int:
        """Return when the expected endpoint was seen (monotonic, ns). MeasurementError: never."""
        return self._wait(self._seen, "an endpoint that was added", INTERVAL_S)

    def wait_service(self, address: IPv4Address, port: int, alive: Callable[[], None]) -> int:
        """Return when a connection to a service succeeded. MeasurementError: never.

        ``alive`` is called between tries; what it raises ends the waiting.
        """

        def look() -> int:
            at = _connects(address, port)
            if not at:
                alive()
            return at

        with self._host.entered():
            return self._wait(look, f"{address}:{port}", CONNECT_INTERVAL_S)

    def _seen(self) -> int:
        return next((at for way in self._ways if (at := way.seen())), 0)

    def _wait(self, look: Callable[[], int], what: str, interval: float) -> int:
        deadline = time.monotonic() + self._patience
        looks, spent = 0, 0.0
        while True:
            begin = time.monotonic()
            at = look()
            looks, spent = looks + 1, spent + time.monotonic() - begin
            if at:
                self.cost_seconds = spent / looks
                return at
            if begin > deadline:
                raise MeasurementError(
                    f"waited {self._patience:g} s in vain for {what} in the kernel"
                )
            time.sleep(interval)


class _Way:
    """One way of seeing an endpoint."""

    def expect(self, service: ServiceKey, endpoint: IPv4Address) -> None:
        """Prepare for a change."""

    def seen(self) -> int:
        """Return when it was seen, or 0."""
        raise NotImplementedError

    def close(self) -> None:
        """Give sockets back."""


class _Servers(_Way):
    """IPVS: lists the real servers of one virtual server."""

    def __init__(self) -> None:
        self._sock = netlink.NetlinkSocket(netlink.NETLINK_GENERIC)
        self._family = netlink.generic_family(self._sock, wire.FAMILY_NAME)
        self._reader = wire.DestinationReader(Family.IPV4)
        self._request = b""
        self._endpoint = ipaddress.IPv4Address(0)

    def expect(self, service: ServiceKey, endpoint: IPv4Address) -> None:
        nest = wire.Packer(self._family).service_nest(service)
        self._request = wire.genl_header(wire.GET_DEST) + nest
        self._endpoint = endpoint

    def seen(self) -> int:
        try:
            found = self._sock.dump(self._family, self._request, self._reader.read, "look")
        except NotFound:
            return 0
        except KernelError as error:
            if error.errno == errno.EAGAIN:  # changed while it was listed
                return 0
            raise
        there = any(key.address == self._endpoint for key, _config, _traffic in found)
        return time.monotonic_ns() if there else 0

    def close(self) -> None:
        self._sock.close()


class _Commits(_Way):
    """nf_tables: reads the kernel's notifications."""

    def __init__(self) -> None:
        self._sock = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            netlink.NETLINK_NETFILTER,
        )
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._sock.bind((0, 0))
        self._wanted = b""
        self._named = False

    def expect(self, service: ServiceKey, endpoint: IPv4Address) -> None:
        # Only meanwhile: telling of a hundred thousand new rules would lengthen their commit.
        self._member(joined=False)
        self._drain()
        self._wanted, self._named = endpoint.packed, False
        self._member(joined=True)

    def seen(self) -> int:
        while select.select([self._sock], [], [], 0)[0]:
            try:
                data = self._sock.recv(_READ_SIZE)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise MeasurementError("notifications of the kernel were lost") from None
                raise
            self._named = self._named or self._wanted in data
            if self._named and _ends(data):
                at = time.monotonic_ns()
                self._member(joined=False)
                return at
        return 0

    def close(self) -> None:
        self._sock.close()

    def _drain(self) -> None:
        while select.select([self._sock], [], [], 0)[0]:
            self._sock.recv(_READ_SIZE)

    def _member(self, *, joined: bool) -> None:
        add, drop = 1, 2  # NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP
        self._sock.setsockopt(270, add if joined else drop, _GROUP_NFTABLES)


class _Entries(_Way):
    """ip_tables: asks how many entries the table nat has; one added endpoint changes that."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except PermissionError:
            raise Unsupported("no raw socket can be made", remedy="run this as root") from None
        self._before = 0

    def expect(self, service: ServiceKey, endpoint: IPv4Address) -> None:
        self._before = self._entries()

    def seen(self) -> int:
        return time.monotonic_ns() if self._entries() != self._before else 0

    def close(self) -> None:
        self._sock.close()

    def _entries(self) -> int:
        """Return the number of entries; 0 where ip_tables has no such table."""
        buffer = ctypes.create_string_buffer(b"nat", _INFO.size)
        size = ctypes.c_uint32(_INFO.size)
        failed = self._libc.getsockopt(
            self._sock.fileno(), socket.SOL_IP, _IPT_SO_GET_INFO, buffer, ctypes.byref(size)
        )
        return 0 if failed else int(_INFO.unpack(buffer.raw)[-2])


def _ends(data: bytes) -> bool:
    """Return whether the notifications end a transaction."""
    end = nfnetlink.message_type(_SUBSYSTEM_NFTABLES, _MSG_NEWGEN)
    at = 0
    while at + _KIND.size <= len(data):
        length, kind, *_rest = _KIND.unpack_from(data, at)
        if kind == end:
            return True
        at += max(_KIND.size, (length + 3) & ~3)
    return False


def _connects(address: IPv4Address, port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect((str(address), port))
        except OSError:
            return 0
        return time.monotonic_ns()


def service_key(address: IPv4Address, port: int) -> ServiceKey:
    """Return how IPVS calls a TCP service."""
    return ServiceKey(Protocol.TCP, address, port)
