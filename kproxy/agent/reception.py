"""Who comes to the lock of a node, and what those who hold and want it send each other.

The sockets of :mod:`kproxy.agent.nodelock`: packets with descriptors, and the thread of a holder
that hears who is ready to take over from it.
"""

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kproxy.agent import handover
from kproxy.agent.handover import Candidate, Word
from kproxy.agent.listeners import wait_if_exhausted

BACKLOG = 16
SOCKETS_MAX = 250
"""So many descriptors fit in one message (the kernel's limit is 253)."""
_PACKET_MAX = 4096
_CREDENTIALS = struct.Struct("3i")
_INFINITE = float("inf")


class Reception:
    """Hears, in a thread of its own, who connects to the lock and says that it is ready."""

    def __init__(
        self,
        listener: socket.socket,
        ready: deque[tuple[socket.socket, Candidate]],
        tell: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._ready = ready
        self.tell = tell
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._patience = 0.0
        self._thread = threading.Thread(target=self._run, name="lock", daemon=True)
        self._thread.start()

    def stop(self, patience_s: float = 0.0) -> None:
        """Accept no more; those who are not chosen learn by the end of their connection.

        What has been said up to now is heard. Where somebody has come but is not ready, and nobody
        is, wait for that so long.
        """
        if self._wake >= 0:
            self._patience = patience_s
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            os.close(self._wake)
            self._wake = -1

    def again(self) -> "Reception":
        """Return one that goes on after a stop."""
        return Reception(self._listener, self._ready, self.tell)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        silent: dict[int, socket.socket] = {}
        until = _INFINITE
        while events := poll.poll(_milliseconds(until)):
            found = {descriptor for descriptor, _ in events}
            if self._wake in found:
                poll.unregister(self._wake)
                until = time.monotonic() + self._patience
            for descriptor in found - {self._wake}:
                if descriptor == self._listener.fileno():
                    self._accept(poll, silent)
                else:
                    poll.unregister(descriptor)
                    self._hear(silent.pop(descriptor))
            if until < _INFINITE and (self._ready or not silent):
                until = 0.0
        for one in silent.values():
            one.close()

    def _accept(self, poll: "select.poll", silent: dict[int, socket.socket]) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            wait_if_exhausted(error)
            return  # Else it went away again.
        if peer(sock).user != os.geteuid() or len(silent) >= BACKLOG:
            sock.close()
            return
        silent[sock.fileno()] = sock
        poll.register(sock, select.POLLIN)

    def _hear(self, sock: socket.socket) -> None:
        try:
            message = handover.decode(receive(sock)[0])
            if message.word is not Word.READY:
                raise ValueError(message.word)
        except (OSError, ValueError):
            sock.close()
            return
        self._ready.append((sock, Candidate(pod=message.pod, reserve=message.reserve)))
        self.tell()


class Peer(NamedTuple):
    """A process at the other end of a connection."""

    pid: int
    user: int


def peer(sock: socket.socket) -> Peer:
    """Return who is at the other end; pid 0: a process of another pid namespace."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, user)


def has_ended(sock: socket.socket) -> bool:
    """Return whether the other end, which has nothing more to say, is closed."""
    return readable(sock, 0.0)


def readable(sock: socket.socket, until: float) -> bool:
    """Wait for something to read, or the end; return whether it came by then."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        timeout = _milliseconds(until)
        if poll.poll(timeout):
            return True
        if timeout == 0:
            return False


def _milliseconds(until: float) -> float | None:
    """Return how long to poll until a moment of the monotonic clock."""
    return None if until == _INFINITE else max(until - time.monotonic(), 0.0) * 1000


def receive(sock: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """Receive one packet with its sockets. Raises OSError; ConnectionError at the end."""
    size = socket.CMSG_SPACE(SOCKETS_MAX * 4)
    try:
        packet, ancillary, _, _ = sock.recvmsg(_PACKET_MAX, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The other one died and had something unread; what it sent before that comes now.
        packet, ancillary, _, _ = sock.recvmsg(_PACKET_MAX, size, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for _, _, data in ancillary:
        whole = len(data) - len(data) % 4
        descriptors += memoryview(data[:whole]).cast("i")
    if not packet:
        raise ConnectionError("the other one has ended")
    return packet, [socket.socket(fileno=descriptor) for descriptor in descriptors]
