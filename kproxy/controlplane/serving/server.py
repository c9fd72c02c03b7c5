"""The listening socket of an API server, and a thread for each connection to it.

A slow client holds up its own thread only, and not for ever: nothing is waited for without a
deadline. Clients beyond the limit are turned away at once.
"""

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable

from kproxy import logs

from ..rest import Api
from . import http1
from .conversation import Conversation
from .limits import Limits

BACKLOG = 512
STACK_BYTES = 512 * 1024
"""Of each thread: enough for the deepest JSON that is decoded."""
NO_DESCRIPTOR_SECONDS = 0.1


class Server:
    """Listens on one address. :meth:`serve` answers, :meth:`stop` ends that."""

    def __init__(
        self,
        address: tuple[str, int],
        api: Api,
        conversation: Conversation,
        limits: Limits,
        log: logs.Log,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.api = api
        self._conversation = conversation
        self._limits = limits
        self._log = log
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self._wake = os.eventfd(0)
        self._last_things: list[Callable[[], None]] = []
        self.server_address: tuple[str, int] = self._listener.getsockname()[:2]

    def serve(self) -> None:
        """Answer until :meth:`stop`, then end all watches and close the socket."""
        while True:
            readable, _, _ = select.select([self._listener.fileno(), self._wake], [], [])
            if self._wake in readable:
                break
            self._accept()
        self._listener.close()
        for last_thing in self._last_things:
            last_thing()
        self.api.store.close()
        self._hang_up()
        wake, self._wake = self._wake, -1
        os.close(wake)

    def stop(self) -> None:
        """Make :meth:`serve` return; may be called from a signal handler, and twice."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def before_close(self, last_thing: Callable[[], None]) -> None:
        """Have something done when no connection is accepted any more, and the store is there."""
        self._last_things.append(last_thing)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # whoever it was has hung up already
        except OSError as error:
            self._log.error("cannot accept a connection", error=str(error))
            select.select([self._wake], [], [], NO_DESCRIPTOR_SECONDS)
            return
        if not self._limits.connect():
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        http1.notice_absence(connection)
        thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
        with self._lock:
            self._open.add(connection)
            self._threads.add(thread)
        try:
            before = threading.stack_size(STACK_BYTES)
            try:
                thread.start()
            finally:
                threading.stack_size(before)
        except RuntimeError as error:
            self._log.error("cannot start a thread", error=str(error))
            self._forget(connection, thread)
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        current = connection

        def note(secured: socket.socket) -> None:
            nonlocal current
            with self._lock:
                self._open.discard(current)
                self._open.add(secured)
            current = secured

        try:
            self._conversation.run(connection, self._tls, note)
        finally:
            self._forget(current, threading.current_thread())

    def _forget(self, connection: socket.socket, thread: threading.Thread) -> None:
        with self._lock:
            self._open.discard(connection)
            self._threads.discard(thread)
        self._limits.disconnect()

    def _hang_up(self) -> None:
        """End connections that wait for a request; what is being answered is answered."""
        with self._lock:
            waiting, threads = list(self._open), list(self._threads)
        for connection in waiting:
            # Not SSLSocket's own, which would tear TLS down under the thread that is writing.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RD)
        for thread in threads:
            thread.join(0.5)
