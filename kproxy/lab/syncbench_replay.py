"""The kernel's own limit for ipvs mode: what a backend sent, recorded, prepared and sent again.

Recorded are the netlink messages of whole batches and the inputs of the tools, in their order. The
replay packs and decides nothing; it waits, as the backend must, for each batch's acknowledgement.
"""

import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kproxy.backends import base
from kproxy.desired.model import Family, State
from kproxy.errors import MeasurementError
from kproxy.kernel import netlink
from kproxy.kernel.execer import Completed, Execer
from kproxy.kernel.ipvs import proc, wire
from kproxy.lab import freshnet

DEVICE = "kube-ipvs0"
TIMEOUT_S = 600.0
_SO_PROTOCOL = 38
_NEWLINK = 16
_KIND = struct.Struct("=IHHI")
_U16 = struct.Struct("=H")
_NLMSG_ERROR = 2
_RECEIVE_BUFFER = 4 << 20
_SO_RCVBUFFORCE = 33
_READ_SIZE = 65536


@dataclass(frozen=True, slots=True)
class Sent:
    """The messages of one batch: a netlink protocol, and each message whole."""

    protocol: int
    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Executed:
    """A tool that was run with an input."""

    argv: tuple[str, ...]
    stdin: bytes


Recording = tuple[Sent | Executed, ...]


def record(mode: str, state: State) -> Recording:
    """Let the backend write a state into a fresh namespace; return what it sent."""
    freshnet.enter_fresh()
    freshnet.hold()
    backend = base.loader(mode)(Family.IPV4, base.Options())
    backend.reread()
    with _recorded() as recording:
        result = backend.sync(state)
    backend.close()
    for failure in result.failures:
        raise MeasurementError(f"a sync failed: {failure}")
    return tuple(recording)


@contextlib.contextmanager
def _recorded() -> Iterator[list[Sent | Executed]]:
    """Note meanwhile what goes to the kernel, beside sending it."""
    found: list[Sent | Executed] = []
    send_batch, run = netlink.NetlinkSocket._send_batch, Execer.run

    def sending(self: netlink.NetlinkSocket, batch: list[bytes], *how: Any) -> None:
        protocol = self._socket.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
        found.append(Sent(protocol, tuple(batch)))
        send_batch(self, batch, *how)

    def running(self: Execer, argv: Sequence[str], stdin: bytes = b"", **how: Any) -> Completed:
        if stdin:
            found.append(Executed(tuple(argv), stdin))
        return run(self, argv, stdin, **how)

    netlink.NetlinkSocket._send_batch = sending  # type: ignore[method-assign,assignment]  # while recording
    Execer.run = running  # type: ignore[method-assign]  # while recording
    try:
        yield found
    finally:
        netlink.NetlinkSocket._send_batch = send_batch  # type: ignore[method-assign]  # as it was
        Execer.run = run  # type: ignore[method-assign]  # as it was


class Prepared:
    """A recording, ready to be sent from the current namespace."""

    def __init__(self, recording: Recording) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._actions: list[Callable[[], None]] = []
        for one in recording:
            if isinstance(one, Executed):
                self._actions.append(partial(_execute, one))
                continue
            if one.protocol not in self._sockets:
                self._sockets[one.protocol] = _open(one.protocol)
            batch, last = _closed(one.messages)
            self._actions.append(partial(_send, self._sockets[one.protocol], batch, last))

    def replay(self) -> None:
        """Send all of it. MeasurementError: the kernel refused something."""
        for action in self._actions:
            action()


def prepare(recording: Recording) -> Prepared:
    """Return a recording ready to be sent into the current, empty namespace."""
    if not any(isinstance(one, Sent) and _makes_link(one) for one in recording):
        # Down, as the backend finds it: addresses are cheaper then.
        _execute(Executed(("ip", "link", "add", DEVICE, "type", "dummy"), b""))
    return Prepared(recording)


def _makes_link(sent: Sent) -> bool:
    def makes(message: bytes) -> bool:
        _length, kind, flags, _sequence = _KIND.unpack_from(message)
        return kind == _NEWLINK and bool(flags & netlink.NLM_F_CREATE)

    return sent.protocol == netlink.NETLINK_ROUTE and any(map(makes, sent.messages))


def _closed(batch: Sequence[bytes]) -> tuple[bytes, int]:
    """Return a batch whose last message asks for an answer, and that message's number."""
    last = bytearray(batch[-1])
    _U16.pack_into(last, 6, _U16.unpack_from(last, 6)[0] | netlink.NLM_F_ACK)
    return b"".join([*batch[:-1], bytes(last)]), _KIND.unpack_from(last)[3]


def _open(protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    sock.bind((0, 0))
    return sock


def _send(sock: socket.socket, batch: bytes, last: int) -> None:
    sock.send(batch)
    while True:
        answer = sock.recv(_READ_SIZE)
        at = 0
        while at < len(answer):
            length, kind, _flags, number = _KIND.unpack_from(answer, at)
            if kind == _NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", answer, at + netlink.HEADER.size)
                if code:
                    why = os.strerror(-code)
                    raise MeasurementError(f"the kernel refused a replayed message: {why}")
                if number == last:
                    return
            at += (length + 3) & ~3


def _execute(one: Executed) -> None:
    done = subprocess.run(
        one.argv, input=one.stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise MeasurementError(f"{one.argv[0]}, replayed: {words}")


class BareDump:
    """Reads the IPVS table of the current namespace, and throws it away."""

    def __init__(self) -> None:
        self._sock = netlink.NetlinkSocket(netlink.NETLINK_GENERIC)
        self._family = netlink.generic_family(self._sock, wire.FAMILY_NAME)
        read = wire.ServiceReader().read
        header = wire.genl_header(wire.GET_SERVICE)
        found = self._sock.dump(self._family, header, read, "list virtual services")
        packer = wire.Packer(self._family)
        destinations = wire.genl_header(wire.GET_DEST)
        self._requests = [destinations + packer.service_nest(one[0]) for one in found if one]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sock.close()

    def netlink(self) -> None:
        """List all virtual servers, then the real servers of each, by prepared requests."""
        header = wire.genl_header(wire.GET_SERVICE)
        self._sock.dump(self._family, header, _nothing, "list virtual services")
        for request in self._requests:
            self._sock.dump(self._family, request, _nothing, "list real servers")

    def proc(self) -> None:
        """Read the listing in procfs."""
        with Path(proc.PATH).open("rb", buffering=0) as file:
            while file.read(_READ_SIZE):
                pass


def _nothing(buffer: object, start: int, end: int) -> None:
    return None
