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

from kproxy.client.kept import Kept

KILLED_WITHIN_S = 5.0
_PIECE = 65536


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
