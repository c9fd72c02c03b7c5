"""A TCP connection that carries lines, with deadlines: nobody waits for ever."""

import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kproxy.api.addresses import with_port
from kproxy.errors import MeasurementError, UsageError
from kproxy.traffic.remote import messages


class Closed(MeasurementError):
    """The other end has gone."""


def clock_identity() -> str:
    """Return a name of CLOCK_MONOTONIC here: who has the same reads the same clock."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return boot  # a kernel without time namespaces


class Channel:
    """Lines over one socket. ``name`` is the other end's, for messages."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.sock = sock
        self.name = name
        self._rest = b""
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return what to wait for."""
        return self.sock.fileno()

    def close(self) -> None:
        """End the connection."""
        self.sock.close()

    def send(self, timeout: float = 10.0, **fields: Any) -> None:
        """Send one line. Closed, or MeasurementError if it is not taken in time."""
        data = memoryview(messages.pack(**fields))
        deadline = time.monotonic() + timeout
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                self._wait(deadline, write=True)
            except OSError as error:
                raise Closed(f"{self.name}: {error.strerror}") from None

    def line(self) -> dict[str, Any] | None:
        """Return a message that is there; None: there is no whole one. Closed at the end."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                return messages.unpack(line)
            if len(self._rest) > messages.LONGEST_LINE:
                raise MeasurementError(f"{self.name}: a line of it is too long")
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return None
            except OSError as error:
                raise Closed(f"{self.name}: {error.strerror}") from None
            if not data:
                raise Closed(f"{self.name} has closed the connection")
            self._rest += data

    def receive(self, timeout: float = 10.0) -> dict[str, Any]:
        """Wait for a message. Closed, MeasurementError."""
        deadline = time.monotonic() + timeout
        while (found := self.line()) is None:
            self._wait(deadline)
        return found

    def expect(self, event: str, timeout: float = 10.0) -> dict[str, Any]:
        """Wait for this answer; what is said otherwise raises MeasurementError."""
        return self.checked(self.receive(timeout), event)

    def checked(self, found: dict[str, Any], event: str) -> dict[str, Any]:
        """Return what was said if it is this answer; else MeasurementError."""
        if found.get("event") == "error":
            raise MeasurementError(f"{self.name}: {found.get('message')}")
        if found.get("event") != event:
            raise MeasurementError(f"{self.name} says {str(found)[:80]}, not {event!r}")
        return found

    def _wait(self, deadline: float, *, write: bool = False) -> None:
        left = deadline - time.monotonic()
        reads, writes = ([], [self.sock]) if write else ([self.sock], [])
        if left <= 0 or not any(select.select(reads, writes, [], left)):
            raise MeasurementError(f"{self.name} does not answer in time")


def connect(host: str, port: int, timeout: float = 5.0) -> Channel:
    """Connect to a receiver. UsageError: nobody listens there, with the remedy."""
    where = with_port(host, port)
    try:
        sock = socket.create_connection((host, port), timeout)
    except (OSError, UnicodeError) as error:  # the latter: of what can be no name
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"no receiver at {where}: {why}",
            remedy="start `kproxy measure receive` there, and let its control port through",
        ) from None
    return Channel(sock, where)


def listen(host: str, port: int) -> socket.socket:
    """Listen for senders; an empty ``host`` or ``::``: on all addresses. UsageError."""
    try:
        if host not in ("", "::"):
            host.encode("idna")  # create_server leaves its socket open after such an error
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=8)
        if socket.has_dualstack_ipv6() and Path("/proc/net/if_inet6").exists():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8
            )
        return socket.create_server(("", port), backlog=8)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--control: cannot listen on {host or '*'} port {port}: {why}",
            remedy="give another --control ADDRESS:PORT",
        ) from None


def fresh_file(name: str) -> tuple[int, str]:
    """Return a file in memory that nothing can leave behind: its descriptor, and a path to it."""
    descriptor = os.memfd_create(name)
    return descriptor, f"/proc/self/fd/{descriptor}"
