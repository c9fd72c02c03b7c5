"""What a command says, while it runs: as much of it as fits, and nothing that comes after its end.

What a command has started may live on with its pipes, as a master connection of ssh does. So it is
the process that is waited for; what is in the pipes when it has ended is taken, and no more.
"""

import fcntl
import os
import selectors
import struct
import subprocess
import termios
import time

HEAD_MOST = TAIL_MOST = 2 * 1024 * 1024
"""Bytes that are kept of the beginning and of the end of each output."""
KILLED_WITHIN_S = 5.0
_PIECE = 65536


class Kept:
    """The head and the tail of an output, with a line between them that says what is missing."""

    def __init__(self, head_most: int = HEAD_MOST, tail_most: int = TAIL_MOST) -> None:
        self._head_most = head_most
        self._tail_most = tail_most
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out = 0
        """Bytes that are missing."""

    def add(self, part: bytes) -> None:
        """Take what comes next."""
        room = self._head_most - len(self._head)
        self._head += part[:room]
        self._tail += part[room:]
        over = len(self._tail) - self._tail_most
        if over > 0:
            del self._tail[:over]
            self.left_out += over

    def text(self) -> str:
        """Return it as text; what is none becomes U+FFFD."""
        if not self.left_out:
            return (self._head + self._tail).decode(errors="replace")
        head, tail = (one.decode(errors="replace") for one in (self._head, self._tail))
        return f"{head}\n[{self.left_out} bytes are left out here]\n{tail}"


class Listener:
    """Listens to a process whose output and errors are pipes."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        assert popen.stdout is not None
        assert popen.stderr is not None
        self._popen = popen
        self.stdout, self.stderr = Kept(), Kept()
        self._open = {popen.stdout.fileno(): self.stdout, popen.stderr.fileno(): self.stderr}

    def until_end(self, timeout: float) -> bool:
        """Take what it says until it has ended; return whether it has within so many seconds."""
        until = time.monotonic() + timeout
        pidfd = os.pidfd_open(self._popen.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for descriptor in (pidfd, *self._open):
                    selector.register(descriptor, selectors.EVENT_READ)
                while (left := until - time.monotonic()) > 0:
                    ready = {key.fd for key, _ in selector.select(left)}
                    if pidfd in ready:
                        self._popen.wait()
                        self.take_rest()
                        return True
                    for descriptor in ready:
                        self._take(selector, descriptor)
        finally:
            os.close(pidfd)
        return False

    def take_rest(self) -> None:
        """Take what is in the pipes now, whoever may still write to them."""
        for descriptor, kept in self._open.items():
            there = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
            left: int = struct.unpack("i", there)[0]
            while left > 0:
                part = os.read(descriptor, min(left, _PIECE))
                kept.add(part)
                left -= len(part)

    def _take(self, selector: selectors.BaseSelector, descriptor: int) -> None:
        if part := os.read(descriptor, _PIECE):
            self._open[descriptor].add(part)
        else:
            selector.unregister(descriptor)
            del self._open[descriptor]
