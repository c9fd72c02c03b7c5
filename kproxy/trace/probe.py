"""Sends the marked packet as this host's own programs would, and waits for its answer."""

import errno
import secrets
import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from kproxy.errors import MeasurementError, UsageError
from kproxy.kernel.inet import IPAddress, Protocol
from kproxy.trace.facts import ANSWERED
from kproxy.trace.packet import TOKEN_BYTES, Flow, Mark

_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_REPAIR_ON, _REPAIR_OFF, _SEND_QUEUE = 1, 0, 2
_RECVERR = {4: 11, 6: 25}
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "prohibited",
    errno.EPERM: "dropped by a rule of the sender",
    errno.EINVAL: "no route",
}
NOTHING = "no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How it ended for the sender: ``answered``, ``refused``, ``no answer`` and so on."""

    outcome: str
    sent_ns: int
    """CLOCK_REALTIME, when the packet was handed to the kernel."""
    took_ms: float | None = None
    text: str = ""
    """What was answered to a request."""


class Probe:
    """A socket that is ready to send; made in the namespace that sends. Close it.

    UsageError: no such way can be taken from here.
    """

    def __init__(
        self, protocol: Protocol, target: IPAddress, port: int, source: IPAddress | None = None
    ) -> None:
        self.mark = Mark(
            protocol=protocol,
            token=b"kpxtrace" + secrets.token_bytes(TOKEN_BYTES - 8),
            isn=1 + secrets.randbits(31),
        )
        self._target = (str(target), port)
        family = socket.AF_INET if target.version == 4 else socket.AF_INET6
        kind = socket.SOCK_DGRAM if protocol is Protocol.UDP else socket.SOCK_STREAM
        self._socket = socket.socket(family, kind)
        self._socket.setblocking(False)
        try:
            # Otherwise it is only told that a port is closed, not that a host cannot be reached.
            level = socket.IPPROTO_IP if target.version == 4 else socket.IPPROTO_IPV6
            self._socket.setsockopt(level, _RECVERR[target.version], 1)
            own = source or _own_address(family, target, port)
            self._socket.bind((str(own), 0))
            if protocol is Protocol.TCP:
                _set_first_number(self._socket, self.mark.isn)
            else:
                self._socket.connect(self._target)
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"nothing can be sent to {target} from here: {error.strerror}",
                remedy="is there a route? as root?",
            ) from None
        address, number = self._socket.getsockname()[:2]
        self.flow = Flow(ip_address(address), number, target, port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def send(self, timeout_s: float, request: bytes = b"") -> Reply:
        """Send the packet, wait for its answer; with a ``request`` send that, too (TCP)."""
        sent = time.time_ns()
        begun = time.monotonic_ns()
        try:
            code = self._send()
            if code == 0 and not self._ready(timeout_s):
                return Reply(outcome=NOTHING, sent_ns=sent)
            took = (time.monotonic_ns() - begun) / 1e6
            code = code or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                return Reply(outcome=_word(code), sent_ns=sent, took_ms=took)
            text = self._answer(timeout_s, request)
        except OSError as error:
            return Reply(outcome=_word(error.errno or 0), sent_ns=sent)
        return Reply(outcome=ANSWERED, sent_ns=sent, took_ms=took, text=text)

    def _send(self) -> int:
        """Return an errno, or 0 where an answer may come."""
        if self.mark.protocol is Protocol.UDP:
            self._socket.send(self.mark.token)
            return 0
        code = self._socket.connect_ex(self._target)
        return 0 if code == errno.EINPROGRESS else code

    def _ready(self, timeout_s: float) -> bool:
        sock = [self._socket]
        writes = sock if self.mark.protocol is Protocol.TCP else []
        return any(select.select(sock, writes, [], timeout_s))

    def _answer(self, timeout_s: float, request: bytes) -> str:
        if self.mark.protocol is Protocol.TCP and not request:
            return ""
        if request:
            self._socket.send(request)
            if not select.select([self._socket], [], [], timeout_s)[0]:
                return "(the connection stands; the request has no answer)"
        data = self._socket.recv(4096)
        if data[:TOKEN_BYTES] == self.mark.token:
            return ""
        text = data.decode(errors="replace").partition("\n")[0].strip()[:200]
        return text if text.isprintable() else f"{len(data)} bytes"


def _word(code: int) -> str:
    return _WORDS.get(code) or errno.errorcode.get(code, "error")


def _own_address(family: socket.AddressFamily, target: IPAddress, port: int) -> IPAddress:
    """Return the address with which this namespace sends to the target."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((str(target), port or 9))
        return ip_address(sock.getsockname()[0])


def _set_first_number(sock: socket.socket, number: int) -> None:
    """Have a connection begin with this sequence number: what marks it. MeasurementError."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_ON)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, _SEND_QUEUE)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ, struct.pack("=I", number))
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _REPAIR_OFF)
    except PermissionError:
        raise MeasurementError(
            "a TCP connection cannot be marked", remedy="run this as root"
        ) from None
