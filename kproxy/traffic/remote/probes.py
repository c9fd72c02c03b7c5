"""What is sent to a server that does not know us, and how its answer is told from others'.

Each kind opens sockets and knows of each answer to which packet of which flow it belongs. Only
what this host's own stack does is used, so its rules (a proxy's for packets of the node) apply.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Protocol

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import wire
from kproxy.traffic.remote.terms import Probe, Stream

Key = tuple[int, int]
"""Flow and sequence number."""
_SO_BINDTODEVICE = 25
_ECHO_REQUEST = {4: 8, 6: 128}
_ICMP_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_REFUSED = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EACCES: "prohibited",
}


class Prober(Protocol):
    """One kind of probe to one server."""

    def sockets(self) -> list[socket.socket]:
        """Return what to read from now."""

    def connecting(self) -> list[socket.socket]:
        """Return what becomes writable when it is answered."""

    def send(self, flow: int, seq: int, now: int) -> int:
        """Send one; return 0, or the errno."""

    def answers(self, sock: socket.socket) -> Iterator[Key | str]:
        """Yield what has come: which packets were answered, or what came instead."""

    def expire(self, flow: int, seq: int) -> None:
        """Forget a packet that was not answered in time."""

    def close(self) -> None:
        """Close all sockets."""


def opened(kind: Probe, stream: Stream, interface: str, trial: int, query: str) -> Prober:
    """Return a prober. UsageError, MeasurementError: what is missing for it."""
    match kind:
        case Probe.ECHO:
            return _Datagrams(stream, interface, _Echo(stream, trial))
        case Probe.DNS:
            return _Datagrams(stream, interface, _Dns(query))
        case Probe.TCP:
            return _Connects(stream, interface)
        case Probe.ICMP:
            return _Pings(stream, interface, trial)


def _family(stream: Stream) -> socket.AddressFamily:
    return socket.AF_INET if stream.destination.version == 4 else socket.AF_INET6


def _bound(sock: socket.socket, interface: str) -> socket.socket:
    sock.setblocking(False)
    if interface:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")
    return sock


class _Content(Protocol):
    """What a datagram says."""

    def question(self, flow: int, seq: int, now: int) -> bytes: ...

    def answered(self, flow: int, data: bytes) -> Key | None: ...


class _Echo:
    """Probe headers, which come back as they are."""

    def __init__(self, stream: Stream, trial: int) -> None:
        self._trial = trial
        self._length = stream.payload_bytes

    def question(self, flow: int, seq: int, now: int) -> bytes:
        head = wire.header(self._trial, flow, flags=wire.FLAG_ECHO, seq=seq, sent_ns=now)
        return head.ljust(self._length, b"\0")

    def answered(self, flow: int, data: bytes) -> Key | None:
        if len(data) < wire.HEADER.size:
            return None
        magic, trial, its_flow, _flags, seq, _sent = wire.HEADER.unpack_from(data)
        if magic != wire.MAGIC or trial != self._trial:
            return None
        return its_flow, seq


class _Dns:
    """Questions for the address of a name; an answer has its question's number."""

    def __init__(self, name: str) -> None:
        try:
            labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
        except UnicodeError:
            labels = []
        if not labels or not all(labels):
            raise UsageError(
                f"--query {name!r}: not a name", remedy="for example kubernetes.default"
            )
        self._name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        self._asked: dict[tuple[int, int], int] = {}

    def question(self, flow: int, seq: int, now: int) -> bytes:
        number = seq & 0xFFFF
        self._asked[flow, number] = seq
        head = struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0)
        return head + self._name + struct.pack("!HH", 1, 1)

    def answered(self, flow: int, data: bytes) -> Key | None:
        if len(data) < 12 or not data[2] & 0x80:
            return None
        seq = self._asked.get((flow, int.from_bytes(data[:2], "big")))
        return None if seq is None else (flow, seq)


class _Datagrams:
    """One connected UDP socket for each flow."""

    def __init__(self, stream: Stream, interface: str, content: _Content) -> None:
        self._content = content
        self._flows: dict[socket.socket, int] = {}
        self._sockets: list[socket.socket] = []
        for flow in range(stream.flows):
            sock = _bound(socket.socket(_family(stream), socket.SOCK_DGRAM), interface)
            self._sockets.append(sock)
            self._flows[sock] = flow
            try:
                sock.connect((str(stream.destination), stream.port))
            except OSError as error:
                self.close()
                raise MeasurementError(
                    f"--to {stream.destination}: {error.strerror}", remedy="is there a route?"
                ) from None

    def sockets(self) -> list[socket.socket]:
        return self._sockets

    def connecting(self) -> list[socket.socket]:
        return []

    def send(self, flow: int, seq: int, now: int) -> int:
        data = self._content.question(flow, seq, now)
        # An error that came for an earlier packet is told by the next call, whichever it is.
        for _ in range(2):
            try:
                self._sockets[flow].send(data)
            except OSError as error:
                code = error.errno or errno.EIO
                continue
            return 0
        return code

    def answers(self, sock: socket.socket) -> Iterator[Key | str]:
        while True:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                yield _REFUSED.get(error.errno or 0, "error")
                continue
            found = self._content.answered(self._flows[sock], data)
            yield "other answers" if found is None else found

    def expire(self, flow: int, seq: int) -> None:
        return

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


class _Connects:
    """A new connection for each packet: answered when it is established, then reset.

    Reset, because one that is closed keeps its port for a minute, and there are only so many.
    """

    def __init__(self, stream: Stream, interface: str) -> None:
        self._stream = stream
        self._interface = interface
        self._keys: dict[socket.socket, Key] = {}
        self._places: dict[Key, socket.socket] = {}

    def sockets(self) -> list[socket.socket]:
        return []

    def connecting(self) -> list[socket.socket]:
        return list(self._keys)

    def send(self, flow: int, seq: int, now: int) -> int:
        try:
            sock = socket.socket(_family(self._stream), socket.SOCK_STREAM)
        except OSError as error:
            return error.errno or errno.EIO
        _bound(sock, self._interface)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        code = sock.connect_ex((str(self._stream.destination), self._stream.port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return code
        self._keys[sock] = flow, seq
        self._places[flow, seq] = sock
        return 0

    def answers(self, sock: socket.socket) -> Iterator[Key | str]:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        key = self._keys[sock]
        self.expire(*key)
        yield key if code == 0 else _REFUSED.get(code, "error")

    def expire(self, flow: int, seq: int) -> None:
        sock = self._places.pop((flow, seq), None)
        if sock is not None:
            del self._keys[sock]
            sock.close()

    def close(self) -> None:
        for key in list(self._places):
            self.expire(*key)


class _Pings:
    """ICMP echo requests with a probe header inside."""

    def __init__(self, stream: Stream, interface: str, trial: int) -> None:
        self._stream = stream
        self._echo = _Echo(stream, trial)
        self._version = stream.destination.version
        self._raw = False
        self._number = os.getpid() & 0xFFFF
        self._sock = _bound(self._open(), interface)

    def _open(self) -> socket.socket:
        protocol = _ICMP_PROTOCOL[self._version]
        try:
            return socket.socket(_family(self._stream), socket.SOCK_DGRAM, protocol)
        except PermissionError:
            self._raw = True
        try:
            return socket.socket(_family(self._stream), socket.SOCK_RAW, protocol)
        except PermissionError:
            raise MeasurementError(
                "--probe icmp: not allowed",
                remedy="run as root, or widen net.ipv4.ping_group_range",
            ) from None

    def sockets(self) -> list[socket.socket]:
        return [self._sock]

    def connecting(self) -> list[socket.socket]:
        return []

    def send(self, flow: int, seq: int, now: int) -> int:
        payload = self._echo.question(flow, seq, now)
        kind = _ECHO_REQUEST[self._version]
        head = struct.pack("!BBHHH", kind, 0, 0, self._number, seq & 0xFFFF)
        if self._version == 4:
            head = head[:2] + struct.pack("!H", _checksum(head + payload)) + head[4:]
        try:
            self._sock.sendto(head + payload, (str(self._stream.destination), 0))
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def answers(self, sock: socket.socket) -> Iterator[Key | str]:
        while True:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                yield _REFUSED.get(error.errno or 0, "error")
                continue
            start = (data[0] & 15) * 4 if self._raw and self._version == 4 else 0
            if data[start] == _ECHO_REQUEST[self._version]:
                continue  # our own, which a raw socket sees on loopback
            found = self._echo.answered(0, data[start + 8 :])
            if found is not None:  # others' pings come to a raw socket, too
                yield found

    def expire(self, flow: int, seq: int) -> None:
        return

    def close(self) -> None:
        self._sock.close()


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
