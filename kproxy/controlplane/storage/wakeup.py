"""Wake the other processes that have a database open: a file that every commit touches.

Whoever watches is woken by inotify(7), also by the end of a process that was killed between its
commit and its touch: the kernel closes the file for it, which is an event as well. Where the
kernel has no inotify for the file (none left for this user, a file system of its own mind), which
is tried rather than guessed, a watcher looks again every POLL_SECONDS, sleeping in between.
"""

import ctypes
import os
import select
import time
from pathlib import Path

POLL_SECONDS = 0.25

_IN_MODIFY, _IN_CLOSE_WRITE = 0x2, 0x8


class Bell:
    """One process's right to wake the others."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def ring(self) -> None:
        """Wake everybody who has an :class:`Ear` at the file."""
        os.pwrite(self._fd, b"\n", 0)

    def close(self) -> None:
        """Give it up, which wakes everybody once more."""
        os.close(self._fd)


class Ear:
    """Waits for the bell, in one thread; :meth:`close` may come from another."""

    def __init__(self, path: Path) -> None:
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._stop, select.POLLIN)
        self._inotify = _watch(path)
        if self._inotify >= 0:
            self._poll.register(self._inotify, select.POLLIN)
        self.polls = not self._hears(path)
        """Whether it must look again and again, because nothing wakes it."""

    def wait(self, deadline: float | None) -> None:
        """Wait until the bell has rung, the time (of time.monotonic()) has come, or stop().

        Who polls returns after POLL_SECONDS, too.
        """
        seconds = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        if self.polls:
            seconds = POLL_SECONDS if seconds is None else min(seconds, POLL_SECONDS)
        # Rounded up: to wake a moment too early would be to wake twice.
        ready = self._poll.poll(None if seconds is None else int(seconds * 1000) + 1)
        if any(fd == self._inotify for fd, _ in ready):
            self._drain()

    def stop(self) -> None:
        """End waiting, now and for ever; may be called from another thread."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Free its descriptors; only by the thread that waits, or when none does."""
        os.close(self._stop)
        if self._inotify >= 0:
            os.close(self._inotify)

    def _hears(self, path: Path) -> bool:
        if self._inotify < 0:
            return False
        bell = Bell(path)
        bell.ring()
        bell.close()
        heard = bool(self._poll.poll(0))
        self._drain()
        return heard

    def _drain(self) -> None:
        try:
            while os.read(self._inotify, 4096):
                pass
        except BlockingIOError:
            pass


def _watch(path: Path) -> int:
    """Return an inotify descriptor that watches a file; -1 if there can be none."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        return -1
    if libc.inotify_add_watch(fd, bytes(path), _IN_MODIFY | _IN_CLOSE_WRITE) < 0:
        os.close(fd)
        return -1
    return fd
