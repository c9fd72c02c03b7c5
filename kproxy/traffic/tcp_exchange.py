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
        self._line = b""
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
        self.sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
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
        self._line = text.encode().ljust(self.run.wanted.request_bytes - 1, b".") + b"\n"
        self._limit(now + int(self.run.wanted.response_timeout_s * control.SECOND))
        try:
            self.sock.send(self._line)
        except OSError as err:
            self.end(_outcome(err.errno))

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
            self.end("ok" if line == self._line else "error")

    def end(self, outcome: str) -> None:
        """Report the end of what was going on; close the socket unless it went well."""
        self._waiting_for = ""
        if outcome not in ("ok", "connected"):
            self.close()
        self.ended(self, outcome)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self.sock is not None:
            self.run.unwatch(self)
            self.sock.close()
            self.sock = None
