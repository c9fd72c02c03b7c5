"""The sockets of probes: how one is begun, when it is answered, what ends it. Nothing blocks."""

import errno
import os
import selectors
import socket
import struct
from enum import Enum, auto
from typing import Protocol

from .targets import Probe, Target

_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER`` by which closing leaves nothing behind: no TIME_WAIT for each probe."""
_LARGEST = 2048
_SEQUENCE = struct.Struct("!Q")
_MARK = b"kproxy-probe"


class Fate(Enum):
    """What has become of a probe."""

    ANSWERED = auto()
    LOST = auto()
    WAITING = auto()


class Attempt(Protocol):
    """Probes of one target, one at a time."""

    def begin(self) -> Fate:
        """Send a probe; WAITING: watch :attr:`sock` for :attr:`events`."""
        ...

    def look(self) -> Fate:
        """Return what has become of it; also to be called when nothing is outstanding."""
        ...

    def end(self) -> None:
        """Forget the probe; close what the next one does not use."""
        ...

    def close(self) -> None:
        """Close everything."""
        ...

    @property
    def sock(self) -> socket.socket | None:
        """The socket that is open, if any."""
        ...

    @property
    def events(self) -> int:
        """What to watch the socket for."""
        ...


def attempt(target: Target) -> Attempt:
    """Return what probes a target."""
    if target.probe is Probe.TCP_CONNECT:
        return _Connect(target)
    return _Echo(target, lasting=target.probe is Probe.UDP_FLOW)


class _Connect:
    """A TCP connection: answered when it is made; then reset, so that nothing remains of it."""

    events = selectors.EVENT_WRITE

    def __init__(self, target: Target) -> None:
        self._place = (target.address, target.port)
        self.sock: socket.socket | None = None

    def begin(self) -> Fate:
        """See :class:`Attempt`."""
        try:
            self.sock = _socket(self._place, socket.SOCK_STREAM)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        except OSError:
            return Fate.LOST
        return _of_connect(self.sock.connect_ex(self._place))

    def look(self) -> Fate:
        """See :class:`Attempt`."""
        if self.sock is None:
            return Fate.WAITING
        failed = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return _of_connect(failed or self.sock.connect_ex(self._place))

    def end(self) -> None:
        """See :class:`Attempt`."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    close = end


def _of_connect(error: int) -> Fate:
    if error in (0, errno.EISCONN):
        return Fate.ANSWERED
    return Fate.WAITING if error in (errno.EINPROGRESS, errno.EALREADY) else Fate.LOST


class _Echo:
    """Datagrams that come back as they were sent."""

    events = selectors.EVENT_READ

    def __init__(self, target: Target, *, lasting: bool) -> None:
        self._place = (target.address, target.port)
        self._lasting = lasting
        self._sequence = 0
        # Not to be mistaken for that of another prober's flow from the same port.
        self._name = _MARK + os.urandom(8)
        self._sent: bytes | None = None
        self.sock: socket.socket | None = None

    def begin(self) -> Fate:
        """See :class:`Attempt`."""
        self._sequence += 1
        self._sent = self._name + _SEQUENCE.pack(self._sequence)
        try:
            if self.sock is None:
                self._open()
            self._send(self._sent)
        except OSError:
            return Fate.LOST
        return Fate.WAITING

    def look(self) -> Fate:
        """See :class:`Attempt`."""
        while self.sock is not None:
            try:
                answer = self.sock.recv(_LARGEST)
            except BlockingIOError:
                break
            except OSError:  # what ICMP told: nobody is there
                if self._sent is not None:
                    return Fate.LOST
            else:
                if answer == self._sent:
                    return Fate.ANSWERED
        return Fate.WAITING

    def end(self) -> None:
        """See :class:`Attempt`."""
        self._sent = None
        if not self._lasting:
            self.close()

    def close(self) -> None:
        """See :class:`Attempt`."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _open(self) -> None:
        opened = _socket(self._place, socket.SOCK_DGRAM)
        try:
            opened.connect(self._place)
        except OSError:
            opened.close()
            raise
        self.sock = opened

    def _send(self, payload: bytes) -> None:
        assert self.sock is not None
        try:
            self.sock.send(payload)
        except ConnectionRefusedError:
            # That was about an earlier one, and is told only once.
            self.sock.send(payload)


def _socket(place: tuple[str, int], kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
