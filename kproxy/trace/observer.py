"""Listens in one network namespace: which marked packets pass its links, which rules they meet."""

import contextlib
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from kproxy.errors import KernelError, Unsupported
from kproxy.kernel.inet import Family
from kproxy.kernel.iptables import met
from kproxy.kernel.links import cards as links
from kproxy.kernel.links.card import Card
from kproxy.kernel.nft.traced import Hooked, Key, Traced
from kproxy.kernel.nft.tracing import Tracing, base_chains
from kproxy.trace import filters
from kproxy.trace.facts import Seen
from kproxy.trace.packet import Mark
from kproxy.trace.places import Place, entered
from kproxy.traffic import sniff, udp_receive

_ETH_P_ALL = 3
_ETHER, _LOOPBACK = 1, 772
_MOST_BYTES = 512
_PIECES = 4 << 20


class Observer:
    """Everything that listens in one namespace, from entering to leaving.

    ``untraced``: why rules are not told there; "": they are.
    """

    def __init__(self, place: Place, family: Family, mark: Mark, source_port: int) -> None:
        self.place = place
        self._family = family
        self._mark = mark
        self._port = source_port
        self.untraced = ""
        self.cards: Mapping[int, Card] = {}
        self.chains: Mapping[Key, Hooked] = {}
        self._tracing: Tracing | None = None
        self._before: list[met.Met] = []

    def __enter__(self) -> Self:
        with entered(self.place):
            self.cards = links.cards()
            self._before = met.counted(self._family)
            self._socket = _packet_socket(self._family, self._mark, self._port)
            try:
                rules = filters.rules(self._family, self._mark, self._port)
                self._tracing = Tracing(rules).__enter__()
                self.chains = base_chains()
            except (Unsupported, KernelError) as error:
                self.untraced = str(error)
            except BaseException:
                self._socket.close()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        if self._tracing is not None:
            self._tracing.__exit__(kind, error, trace)

    def frames(self) -> list[Seen]:
        """Return the frames that have passed, in order, without waiting."""
        found: list[Seen] = []
        while True:
            try:
                data, control, _flags, address = self._socket.recvmsg(_MOST_BYTES, 128)
            except BlockingIOError:
                return found
            name, _protocol, kind, hardware, _mac = address
            if hardware not in (_ETHER, _LOOPBACK):
                data = _with_header(data)
            found.append(
                Seen(
                    place=self.place.name,
                    order=len(found),
                    ns=udp_receive.stamp(control) or 0,
                    device=self._index(name),
                    outgoing=kind == socket.PACKET_OUTGOING,
                    to_us=kind in (socket.PACKET_HOST, socket.PACKET_OUTGOING),
                    frame=data,
                )
            )

    def steps(self) -> list[Traced]:
        """Return the steps through rules that were told, without waiting."""
        return [] if self._tracing is None else self._tracing.read()

    def met(self) -> list[met.Met]:
        """Return the rules of iptables' legacy variant that packets have met since."""
        if not self._before:
            return []
        with entered(self.place):
            return met.since(self._before, met.counted(self._family))

    def _index(self, name: str) -> int:
        return next((card.index for card in self.cards.values() if card.name == name), 0)


def _packet_socket(family: Family, mark: Mark, port: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
    sniff.attach(sock, filters.socket_filter(family, mark, port))
    sock.setsockopt(socket.SOL_SOCKET, udp_receive.SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECES)
    # On a busy node what came before the filter was there has perhaps filled the socket.
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1)
    return sock


def _with_header(data: bytes) -> bytes:
    """Return the frame of a device without link layer (a tunnel) as others look."""
    kind = b"\x08\x00" if data[:1] and data[0] >> 4 == 4 else b"\x86\xdd"
    return bytes(12) + kind + data
