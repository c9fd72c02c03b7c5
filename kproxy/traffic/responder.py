"""What runs in a pod: answers on TCP and UDP ports, and records the probes that arrive.

    python -m kproxy.traffic.responder --tcp 8080 --udp 5353 [--name POD] [--record FILE]
        [--sniff eth0:48] [--sctp 9000] [--rate PPS] [--capacity RECORDS]

``--tcp`` and ``--udp`` may be given several times. TCP: each line is answered with the pod's
name, a space, and the line (of a line that begins with #, bulk, only a # and its length);
connections stay open until the peer closes. UDP: probes
(:mod:`kproxy.traffic.wire`) are recorded in FILE and not answered unless they ask for it;
everything else is sent back as it came. ``--sniff INTERFACE:BYTES`` records probes of any protocol
as they reach an interface, with the header so many bytes after the network header's beginning
(:mod:`kproxy.traffic.sniff`). ``--sctp`` is ``--tcp`` over SCTP. ``--rate`` is the traffic that
the socket buffers must hold for two seconds. When it listens it prints ``{"event": "ready", …}``;
SIGTERM ends it.
"""

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kproxy import costs
from kproxy.errors import KproxyError, UsageError
from kproxy.traffic import recordfile, records, sniff, udp_receive

DEFAULT_RATE = 5000.0
DEFAULT_CAPACITY = 1 << 20
#: Longer lines than this are cut off: the connection is closed.
LINE_LIMIT = 1 << 16
BACKLOG = 1024
#: Drops are written into the record file when nothing has arrived for this long.
QUIET_SECONDS = 0.1


class Connection:
    """One TCP peer: what it has sent of its next line, and what it has not yet taken."""

    __slots__ = ("incoming", "outgoing", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming = b""
        self.outgoing = b""

    def exchange(self, name: bytes, events: int) -> bool:
        """Read, answer whole lines, write. Returns whether the connection goes on."""
        try:
            if events & ~select.EPOLLOUT:
                data = self.sock.recv(65536)
                if not data:
                    return False
                *lines, self.incoming = (self.incoming + data).split(b"\n")
                self.outgoing += b"".join(name + b" " + _said(line) + b"\n" for line in lines)
            if self.outgoing:
                self.outgoing = self.outgoing[self.sock.send(self.outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return len(self.incoming) <= LINE_LIMIT


class Responder:
    """The sockets of one pod and the loop that serves them."""

    def __init__(self, name: str, recorder: udp_receive.Recorder) -> None:
        self.name = name.encode()
        self.recorder = recorder
        self.udp: dict[int, socket.socket] = {}
        self.listeners: dict[int, socket.socket] = {}
        self.connections: dict[int, Connection] = {}
        self.sniffed: dict[int, tuple[socket.socket, udp_receive.Batch]] = {}
        self._epoll = select.epoll()

    def serve_sniffing(self, interface: str, skip: int, rate: float) -> None:
        """Record probes of any protocol that reach an interface."""
        sock = sniff.open_socket(interface, skip, packets_per_second=rate)
        self.sniffed[sock.fileno()] = (sock, udp_receive.Batch(skip))
        self._epoll.register(sock, select.EPOLLIN)

    def note_drops(self) -> None:
        """Write down what was dropped at the sockets up to now."""
        sniffed = [sock for sock, _ in self.sniffed.values()]
        self.recorder.note_drops([*self.udp.values(), *sniffed])

    def serve_tcp(self, port: int, protocol: int = socket.IPPROTO_TCP) -> None:
        """Listen on a port of every address; over SCTP, if that is the protocol."""
        sock = _listener(port, protocol)
        self.listeners[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN)

    def serve_udp(self, port: int, rate: float) -> None:
        """Receive on a UDP port of every address."""
        sock = udp_receive.open_socket(port, packets_per_second=rate)
        self.udp[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN)

    def run(self) -> None:
        """Serve for ever (until an exception, such as SystemExit from a signal)."""
        quiet = True
        while True:
            events = self._epoll.poll(None if quiet else QUIET_SECONDS)
            if not events:
                self.note_drops()
                quiet = True
            for fd, event in events:
                if fd in self.udp:
                    self.recorder.readable(self.udp[fd])
                    quiet = False
                elif fd in self.sniffed:
                    self.recorder.readable(*self.sniffed[fd])
                    quiet = False
                elif fd in self.listeners:
                    self._accept(self.listeners[fd])
                else:
                    self._exchange(fd, event)

    def _accept(self, listener: socket.socket) -> None:
        try:
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                if sock.proto == socket.IPPROTO_TCP:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections[sock.fileno()] = Connection(sock)
                self._epoll.register(sock, select.EPOLLIN)
        except OSError:
            return  # none is waiting, or this one has gone again, or there are no descriptors

    def _exchange(self, fd: int, event: int) -> None:
        connection = self.connections[fd]
        if connection.exchange(self.name, event):
            waiting = select.EPOLLOUT if connection.outgoing else 0
            self._epoll.modify(fd, select.EPOLLIN | waiting)
            return
        self._epoll.unregister(fd)
        del self.connections[fd]
        connection.sock.close()


def _said(line: bytes) -> bytes:
    """Return what is answered to a line: itself, or of bulk its length."""
    return b"#%d" % len(line) if line.startswith(b"#") else line


def _listener(port: int, protocol: int) -> socket.socket:
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    try:
        sock = socket.socket(socket.AF_INET6, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", port))
    except OSError:
        sock = socket.socket(socket.AF_INET, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
    sock.listen(BACKLOG)
    return sock


class Options:
    """The command line. Taken apart by hand: argparse would double the imports of every pod."""

    def __init__(self, arguments: list[str]) -> None:
        self.tcp: list[int] = []
        self.udp: list[int] = []
        self.sctp: list[int] = []
        self.sniff: list[tuple[str, int]] = []
        self.name = os.environ.get("POD_NAME") or os.uname().nodename
        self.record: str | None = None
        self.rate = DEFAULT_RATE
        self.capacity = DEFAULT_CAPACITY
        words = iter(arguments)
        for word in words:
            option, equals, value = word.partition("=")
            value = value if equals else next(words, "")
            self._set(option, value)
        if not (self.tcp or self.udp or self.sctp or self.sniff):
            raise UsageError("no port: give --tcp PORT or --udp PORT")

    def _set(self, option: str, value: str) -> None:
        ports = {"--tcp": self.tcp, "--udp": self.udp, "--sctp": self.sctp}.get(option)
        if ports is not None:
            ports.append(_whole(option, value, 1, 65535))
        elif option == "--sniff" and ":" in value:
            interface, _, skip = value.rpartition(":")
            self.sniff.append((interface, _whole(option, skip, 1, 1000)))
        elif option == "--name" and value:
            self.name = value
        elif option == "--record" and value:
            self.record = value
        elif option == "--rate":
            self.rate = float(_whole(option, value, 1, 10_000_000))
        elif option == "--capacity":
            self.capacity = _whole(option, value, 1, 1 << 32)
        else:
            raise UsageError(f"{option}: unknown option, or its value is missing")


def _whole(option: str, value: str, low: int, high: int) -> int:
    if not value.isdecimal() or not low <= int(value) <= high:
        raise UsageError(f"{option}: {value!r} is not a whole number from {low} to {high}")
    return int(value)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def start(options: Options) -> Responder:
    """Open the record file and the sockets. Raises UsageError naming what cannot be had."""
    writer = None
    if options.record is not None:
        try:
            writer = recordfile.RecordWriter(
                options.record,
                recordfile.KIND_RECEIVED,
                records.RECEIVED_SIZE,
                options.capacity,
                options.name,
            )
        except OSError as err:
            raise UsageError(f"--record {options.record}: {err.strerror}") from None
    responder = Responder(options.name, udp_receive.Recorder(writer))
    for port in options.tcp:
        with _naming(f"--tcp {port}"):
            responder.serve_tcp(port)
    for port in options.sctp:
        with _naming(f"--sctp {port}"):
            responder.serve_tcp(port, socket.IPPROTO_SCTP)
    for port in options.udp:
        with _naming(f"--udp {port}"):
            responder.serve_udp(port, options.rate)
    for interface, skip in options.sniff:
        with _naming(f"--sniff {interface}:{skip}"):
            responder.serve_sniffing(interface, skip, options.rate)
    return responder


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Say which option it was that cannot be had."""
    try:
        yield
    except OSError as err:
        raise UsageError(f"{option}: {err.strerror}") from None


def main(arguments: list[str]) -> int:
    """Run as a process; returns its exit code."""
    try:
        options = Options(arguments)
        costs.of(costs.RESPONDER).pay(costs.START)
        responder = start(options)
    except KproxyError as err:
        print(f"responder: {err}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _terminate)
    print(f'{{"event": "ready", "pid": {os.getpid()}}}', flush=True)
    try:
        responder.run()
    except KeyboardInterrupt:
        return 0
    finally:
        responder.note_drops()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
