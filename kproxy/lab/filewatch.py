"""Which files of a directory have changed: inotify(7), so that nobody has to look again and again.

Looking at twenty log files fifty times a second would take CPU away from what is being measured,
on an embedded kernel's only one.
"""

import ctypes
import os
import select
import struct
from pathlib import Path

from kproxy import errors

_EVENT = struct.Struct("iIII")
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO = 0x2, 0x100, 0x80
_CHANGES = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
_IN_Q_OVERFLOW = 0x4000


class FileWatch:
    """The changes of the files of one directory since it was made."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._directory = directory
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(directory), _CHANGES) < 0:
            number = ctypes.get_errno()
            raise errors.KproxyError(f"cannot watch {directory}: {os.strerror(number)}")

    def wait(self, timeout: float) -> bool:
        """Wait until a file has changed, at most so many seconds; return whether one has."""
        return bool(select.select([self._fd], [], [], max(timeout, 0))[0])

    def changed(self) -> set[Path]:
        """Return the files changed since the last call, without waiting."""
        found: set[Path] = set()
        while True:
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")
                at += _EVENT.size + length
                if mask & _IN_Q_OVERFLOW:
                    found.update(self._directory.iterdir())
                elif name:
                    found.add(self._directory / os.fsdecode(name))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
