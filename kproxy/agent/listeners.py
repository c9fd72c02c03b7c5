"""The ports of this process, which can be handed to another one without refusing a connection.

A listening socket that two processes have is one queue: who accepts gets the next connection. So
handing over means to stop accepting, to give the socket, and not to close it before the other one
has it. ``shutdown`` would end it for both, so a thread in :meth:`Listeners.accept` is woken by an
event instead.
"""

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Collection, Iterable

Address = tuple[str, int]

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_CLOSED = (errno.EBADF, errno.EINVAL)
EXHAUSTED_S = 0.5
"""So long nothing is accepted when the process or the machine has run out of something."""

CLIENTS_MOST = 200
"""So many connections are dealt with at once; more wait in the kernel, whoever makes them: each
costs a thread and a descriptor, which syncs need, too."""

BACKLOG = 128
"""While the ports change hands nobody accepts: connections wait."""


class Listeners:
    """The listening sockets of one process. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inherited: dict[Address, socket.socket] = {}
        self._open: dict[Address, socket.socket] = {}
        self._paused = False
        self._accepting = 0
        self._serving = 0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def inherit(self, listeners: Iterable[socket.socket]) -> None:
        """Take sockets that another process listened on, for whom asks for their addresses."""
        for one in listeners:
            address = _address(one)
            with self._changed:
                self._inherited.setdefault(address, one)

    def listen(self, address: Address, *, only_ipv6: bool = False) -> socket.socket:
        """Return a socket that listens there, inherited or new. Raises OSError.

        ``only_ipv6``: where the address is ``::``, leave the port to somebody else for IPv4.
        """
        family = _family(address)
        # As the kernel writes it, so that [0::0] finds what [::] left.
        address = socket.inet_ntop(family, socket.inet_pton(family, address[0])), address[1]
        with self._changed:
            listener = self._inherited.pop(address, None)
        if listener is None:
            listener = _bind(family, address, only_ipv6=only_ipv6)
        listener.setblocking(False)
        with self._changed:
            self._open[address] = listener
        return listener

    def accept(self, listener: socket.socket) -> socket.socket:
        """Wait for a connection; while paused nobody gets one. Raises OSError once closed.

        Call :meth:`served` when it has been dealt with.
        """
        while True:
            self._begin_to_accept()
            try:
                self._await([listener])
                if not self._paused:
                    connection, _ = listener.accept()
                    with self._changed:
                        self._serving += 1
                    return connection
            except OSError as error:
                if error.errno in _CLOSED:
                    raise
                # Else somebody was quicker, or the client has gone: the next one may be luckier.
                wait_if_exhausted(error)
            finally:
                with self._changed:
                    self._accepting -= 1
                    self._changed.notify_all()

    def accept_any(
        self, listeners: Collection[socket.socket], wake: int, timeout_s: float | None = None
    ) -> tuple[socket.socket, socket.socket] | None:
        """Wait for a connection at any of them; return it and its listener.

        None: the event ``wake`` came (and was taken), time is up, or a listener was closed. While
        paused nobody gets one. Call :meth:`served` as after :meth:`accept`.
        """
        self._begin_to_accept()
        try:
            ready = self._await(listeners, wake, timeout_s)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(wake)
            for listener in ready if not self._paused else ():
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    wait_if_exhausted(error)
                    continue  # Else somebody was quicker, or it was closed.
                with self._changed:
                    self._serving += 1
                return connection, listener
            return None
        finally:
            with self._changed:
                self._accepting -= 1
                self._changed.notify_all()

    def close(self, listener: socket.socket) -> None:
        """Listen there no more; whoever waits for a connection gets an OSError."""
        with self._changed:
            self._open = {at: one for at, one in self._open.items() if one is not listener}
        with contextlib.suppress(OSError):  # Not connected, say some kernels.
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def pause(self) -> list[socket.socket]:
        """Accept nothing more, and return all sockets: connections wait for who accepts next."""
        with self._changed:
            self._paused = True
            os.eventfd_write(self._wake, 1)
            self._changed.wait_for(lambda: not self._accepting)
            return [*self._open.values(), *self._inherited.values()]

    def resume(self) -> None:
        """Accept again."""
        with self._changed:
            if self._paused:
                os.eventfd_read(self._wake)
                self._paused = False
                self._changed.notify_all()

    def served(self) -> None:
        """Note that a connection that was accepted has been dealt with."""
        with self._changed:
            self._serving -= 1
            self._changed.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Wait until all connections have been served, but not longer than so."""
        with self._changed:
            self._changed.wait_for(lambda: not self._serving, timeout_s)

    def close_unclaimed(self) -> None:
        """Close what was inherited and nobody has asked for: the configuration has changed."""
        with self._changed:
            unclaimed, self._inherited = self._inherited, {}
        for one in unclaimed.values():
            one.close()

    def _begin_to_accept(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._paused and self._serving < CLIENTS_MOST)
            self._accepting += 1

    def _await(
        self,
        listeners: Collection[socket.socket],
        wake: int | None = None,
        timeout_s: float | None = None,
    ) -> list[socket.socket]:
        """Wait until there are connections, or an event; return the listeners that have some."""
        by_number = {listener.fileno(): listener for listener in listeners}
        by_number.pop(-1, None)  # closed meanwhile
        poll = select.poll()
        for number in (*by_number, self._wake, *(() if wake is None else (wake,))):
            poll.register(number, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        return [by_number[number] for number, _events in ready if number in by_number]


def wait_if_exhausted(error: OSError) -> None:
    """Wait if a connection could not be accepted that stays there: it would wake us at once."""
    if error.errno in _EXHAUSTED:
        time.sleep(EXHAUSTED_S)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _bind(family: socket.AddressFamily, address: Address, *, only_ipv6: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if only_ipv6 and family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # The port of a proxy that was just killed is free at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _address(listener: socket.socket) -> Address:
    host, port, *_ = listener.getsockname()
    return host, port
