"""One TCP connection of the client: connect, then one request at a time, each with a deadline.

What it needs of the run it belongs to is :class:`Host`: deadlines and events of sockets.
"""

import errno
import socket
from collections.abc import Callable
from typing import Protocol

from kproxy.traffic import control, profile

_BY_ERRNO = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
}


_NUMBER = {profile.Protocol.TCP: socket.IPPROTO_TCP, profile.Protocol.SCTP: socket.IPPROTO_SCTP}
BULK = b"#"
"""Begins a line of which only the length is answered."""


def _outcome(code: int | None) -> str:
    """Return the word for an errno."""
    return _BY_ERRNO.get(code or 0, "error")


class Host(Protocol):
    """The run to which exchanges belong."""

    wanted: profile.TcpProfile

    def at(self, deadline: int, action: Callable[[int, int], None]) -> int:
        """Call ``action(now, number)`` when ``deadline`` has come; returns that number."""

    def watch(self, exchange: "Exchange") -> None:
        """Wait for a connecting socket."""

    def readable_only(self, exchange: "Exchange") -> None:
        """Wait no longer for a socket to be writable."""

    def writable_too(self, exchange: "Exchange") -> None:
        """Wait for a socket to be writable, too."""

    def unwatch(self, exchange: "Exchange") -> None:
        """Forget a socket that is about to be closed."""


class Exchange:
    """One connection, on which at most one request is waiting for its answer.

    ``ended(exchange, outcome)`` is called once per connect or request that ends: with
    "connected", "ok", or what went wrong; after the latter the socket is closed.
    """

    def __init__(
        self,
        run: Host,
        target: profile.Established | profile.Connects,
        connection: int,
        ended: Callable[["Exchange", str], None],
    ) -> None:
        self.run, self.target, self.connection, self.ended = run, target, connection, ended
        self.sock: socket.socket | None = None
        self.start = 0
        self.connected = 0
        self.pod = ""
        self._unsent = b""
        self._expected = b""
        self._answer = b""
        self._waiting_for = ""
        self._number = 0

    @property
    def waiting(self) -> bool:
        """Whether a connect or a request has not ended yet."""
        return bool(self._waiting_for)

    def connect(self, now: int) -> None:
        """Begin to connect."""
        self.start, self.connected, self.pod, self._waiting_for = now, 0, "", "connect"
        family = socket.AF_INET6 if ":" in self.target.address else socket.AF_INET
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
        try:
            self.sock = socket.socket(family, kind, _NUMBER[self.target.protocol])
        except OSError:  # this kernel does not have the protocol
            self.end("error")
            return
        if self.target.protocol is profile.Protocol.TCP:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.sock.connect_ex((self.target.address, self.target.port))
        if code not in (0, errno.EINPROGRESS):
            self.end(_outcome(code))
            return
        self.run.watch(self)
        self._limit(now + int(self.run.wanted.connect_timeout_s * control.SECOND))

    def request(self, now: int, seq: int) -> None:
        """Send a request on the connection, which must be established and idle."""
        assert self.sock is not None
        self.pod, self._answer, self._waiting_for = "", b"", "request"
        text = f"{self.run.wanted.trial} {self.target.target} {self.connection} {seq} "
        bulk = self.target.bulk_bytes if isinstance(self.target, profile.Established) else None
        size = bulk or self.run.wanted.request_bytes
        line = (BULK + b"." * size)[: size - 1] if bulk else text.encode().ljust(size - 1, b".")
        self._unsent = line + b"\n"
        self._expected = b"%b%d\n" % (BULK, len(line)) if bulk else self._unsent
        self._limit(now + int(self.run.wanted.response_timeout_s * control.SECOND))
        if self._send() and self._unsent:
            self.run.writable_too(self)

    def _send(self) -> bool:
        """Send what the socket takes; returns whether the connection goes on."""
        assert self.sock is not None
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return True
        except OSError as err:
            self.end(_outcome(err.errno))
            return False
        return True

    def _limit(self, deadline: int) -> None:
        self._number = self.run.at(deadline, self._timeout)

    def _timeout(self, now: int, number: int) -> None:
        if self.waiting and number == self._number:
            self.end("timeout")

    def event(self, now: int) -> None:
        """Go on after the socket has become readable or writable, or has failed."""
        if self.sock is None:
            return
        if self._waiting_for == "connect":
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                self.connected = now
            self.run.readable_only(self)
            self.end("connected" if code == 0 else _outcome(code))
            return
        if self._unsent:
            if not self._send():
                return
            if not self._unsent:
                self.run.readable_only(self)
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as err:
            self.end(_outcome(err.errno))
            return
        self._answer += data
        if not data:
            self.end("closed")
        elif self._answer.endswith(b"\n"):
            pod, _, line = self._answer.partition(b" ")
            self.pod = pod.decode(errors="replace")
            self.end("ok" if line == self._expected else "error")

    def end(self, outcome: str) -> None:
        """Report the end of what was going on; close the socket unless it went well."""
        self._waiting_for, self._unsent = "", b""
        if outcome not in ("ok", "connected"):
            self.close()
        self.ended(self, outcome)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self.sock is not None:
            self.run.unwatch(self)
            self.sock.close()
            self.sock = None
