"""What is sent to a server that does not know us, and how its answer is told from others'.

Each kind opens sockets and knows of each answer to which packet of which flow it belongs. Only
what this host's own stack does is used, so its rules (a proxy's for packets of the node) apply.
"""

import errno
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic import udp_receive, wire
from kproxy.traffic.remote.terms import Probe, Stream

Key = tuple[int, int]
"""Flow and sequence number."""
_OTHER_FILES = 64
"""Descriptors that this process needs beside those of probes."""
_ECHO_REQUEST = {4: 8, 6: 128}
_ICMP_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_REFUSED = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.EACCES: "prohibited",
}


class Answer(NamedTuple):
    """What has come: for which packet, or what instead of its answer; and when."""

    what: Key | str
    ns: int


class Prober(Protocol):
    """One kind of probe to one server.

    ``clock_error_ns``: the largest error of the times of answers, as far as it is known.
    """

    clock_error_ns: int

    def fileno(self) -> int:
        """Return what is readable when something has come."""

    def send(self, flow: int, seq: int, now: int) -> int:
        """Send one; return 0, or the errno."""

    def answers(self) -> Iterator[Answer]:
        """Yield what has come, without waiting."""

    def expire(self, flow: int, seq: int) -> None:
        """Forget a packet that was not answered in time."""

    def drops(self) -> int:
        """Return how many answers found no room in sockets of ours."""

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


def _allow_files(number: int, what: str) -> None:
    """Let this process have so many sockets open. UsageError says what would need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        if hard != resource.RLIM_INFINITY and wanted > hard:
            raise UsageError(
                f"{what}: that needs {number:,} sockets at once, of which this process may have "
                f"{hard - _OTHER_FILES:,}",
                remedy="`ulimit -Hn`, or less of it",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Sockets:
    """Sockets to one server, waited for as one; they may be more than select could take."""

    def __init__(self, stream: Stream, interface: str) -> None:
        self._stream = stream
        self._interface = interface
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self.clock_error_ns = 0

    def fileno(self) -> int:
        return self._poll.fileno()

    def _made(self, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
        sock = socket.socket(_family(self._stream), kind, protocol)
        sock.setblocking(False)
        if self._interface:
            device = self._interface.encode() + b"\0"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        return sock

    def _watch(self, sock: socket.socket, events: int) -> None:
        self._poll.register(sock, events)
        self._open[sock.fileno()] = sock

    def _ready(self) -> list[socket.socket]:
        return [self._open[fd] for fd, _ in self._poll.poll(0)]

    def _end(self, sock: socket.socket) -> None:
        del self._open[sock.fileno()]
        sock.close()  # and so it is not waited for any more

    def _stamped(self, sock: socket.socket) -> Iterator[tuple[bytes | str, int]]:
        """Yield the datagrams and errors that have come to a socket, with the kernel's times."""
        offset, error = udp_receive.clock_offset()
        self.clock_error_ns = max(self.clock_error_ns, error)
        while True:
            try:
                data, control, _flags, _peer = sock.recvmsg(65536, 128)
            except BlockingIOError:
                return
            except OSError as refused:
                yield _REFUSED.get(refused.errno or 0, "error"), time.monotonic_ns()
                continue
            stamp = udp_receive.stamp(control)
            yield data, (time.time_ns() if stamp is None else stamp) + offset

    def expire(self, flow: int, seq: int) -> None:
        return

    def drops(self) -> int:
        return sum(udp_receive.drops(sock) for sock in self._open.values())

    def close(self) -> None:
        for sock in list(self._open.values()):
            self._end(sock)
        self._poll.close()


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


class _Datagrams(_Sockets):
    """One connected UDP socket for each flow."""

    def __init__(self, stream: Stream, interface: str, content: _Content) -> None:
        super().__init__(stream, interface)
        _allow_files(stream.flows, f"--flows {stream.flows}")
        self._content = content
        self._sockets: list[socket.socket] = []
        self._flows: dict[socket.socket, int] = {}
        for flow in range(stream.flows):
            sock = self._made(socket.SOCK_DGRAM)
            self._watch(sock, select.EPOLLIN)
            udp_receive.prepare(sock, packets_per_second=stream.rate_pps / stream.flows)
            self._sockets.append(sock)
            self._flows[sock] = flow
            try:
                sock.connect((str(stream.destination), stream.port))
            except OSError as error:
                self.close()
                raise MeasurementError(
                    f"--to {stream.destination}: {error.strerror}", remedy="is there a route?"
                ) from None

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

    def answers(self) -> Iterator[Answer]:
        for sock in self._ready():
            flow = self._flows[sock]
            for data, ns in self._stamped(sock):
                if isinstance(data, str):
                    yield Answer(data, ns)
                    continue
                found = self._content.answered(flow, data)
                yield Answer("other answers" if found is None else found, ns)


class _Connects(_Sockets):
    """A new connection for each packet: answered when it is established, then reset.

    Reset, because one that is closed keeps its port for a minute, and there are only so many.
    """

    def __init__(self, stream: Stream, interface: str) -> None:
        super().__init__(stream, interface)
        at_once = round(stream.rate_pps * stream.tmax_s) + 1
        if stream.packets is not None:
            at_once = min(at_once, stream.packets)
        _allow_files(at_once, f"--rate {stream.rate_pps:g} for --tmax {stream.tmax_s:g}")
        self._keys: dict[socket.socket, Key] = {}
        self._places: dict[Key, socket.socket] = {}

    def send(self, flow: int, seq: int, now: int) -> int:
        try:
            sock = self._made(socket.SOCK_STREAM)
        except OSError as error:
            return error.errno or errno.EIO
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        code = sock.connect_ex((str(self._stream.destination), self._stream.port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return code
        self._watch(sock, select.EPOLLOUT)
        self._keys[sock] = flow, seq
        self._places[flow, seq] = sock
        return 0

    def answers(self) -> Iterator[Answer]:
        for sock in self._ready():
            now = time.monotonic_ns()
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            key = self._keys[sock]
            self.expire(*key)
            yield Answer(key if code == 0 else _REFUSED.get(code, "error"), now)

    def expire(self, flow: int, seq: int) -> None:
        sock = self._places.pop((flow, seq), None)
        if sock is not None:
            del self._keys[sock]
            self._end(sock)

    def drops(self) -> int:
        return 0


class _Pings(_Sockets):
    """ICMP echo requests with a probe header inside."""

    def __init__(self, stream: Stream, interface: str, trial: int) -> None:
        super().__init__(stream, interface)
        self._echo = _Echo(stream, trial)
        self._version = stream.destination.version
        self._raw = False
        self._number = os.getpid() & 0xFFFF
        self._sock = self._opened()
        udp_receive.prepare(self._sock, packets_per_second=stream.rate_pps)
        self._watch(self._sock, select.EPOLLIN)

    def _opened(self) -> socket.socket:
        protocol = _ICMP_PROTOCOL[self._version]
        try:
            return self._made(socket.SOCK_DGRAM, protocol)
        except PermissionError:
            self._raw = True
        try:
            return self._made(socket.SOCK_RAW, protocol)
        except PermissionError:
            raise MeasurementError(
                "--probe icmp: not allowed",
                remedy="run as root, or widen net.ipv4.ping_group_range",
            ) from None

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

    def answers(self) -> Iterator[Answer]:
        for data, ns in self._stamped(self._sock):
            if isinstance(data, str):
                yield Answer(data, ns)
                continue
            start = (data[0] & 15) * 4 if self._raw and self._version == 4 else 0
            if data[start] == _ECHO_REQUEST[self._version]:
                continue  # our own, which a raw socket sees on loopback
            found = self._echo.answered(0, data[start + 8 :])
            if found is not None:  # others' pings come to a raw socket, too
                yield Answer(found, ns)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
