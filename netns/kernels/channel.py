"""What the guest says, as the host reads it: from a pipe, or from a file that the guest writes.

In virtual time the guest must never wait for the host: whenever it waits its clock runs on, and
how far would depend on the host. A pipe is full when its reader is late; a file never is. So
under such clocks the guest appends its frames to a file, and what was read of it is given back
to the file system at once.
"""

import ctypes
import os
from pathlib import Path
from typing import Protocol

from netns import errors

OUTPUT_NAME = "output"
READ_AT_ONCE = 256 * 1024
GIVE_BACK = 4 * 1024 * 1024
MOST_BEHIND = 64 * 1024 * 1024
IN_MODIFY = 2
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", _libc.fallocate)
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Intake(Protocol):
    """Where the guest's frames come in. ``descriptor`` is to be polled for input."""

    descriptor: int

    def read(self) -> bytes | None:
        """Read what is there: no bytes at the end, None if there is nothing now."""

    def overflowing(self) -> bool:
        """Tell whether far more lies here than anybody reads."""

    def close(self) -> None:
        """Release what this holds."""


class Pipe:
    """The reading end of a pipe. The guest waits when it is full, so it never overflows."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor

    def read(self) -> bytes | None:
        """See Intake."""
        try:
            return os.read(self.descriptor, READ_AT_ONCE)
        except BlockingIOError:
            return None

    def overflowing(self) -> bool:
        """See Intake."""
        return False

    def close(self) -> None:
        """See Intake. The pipe is not ours."""


class File:
    """A file that the guest appends to; ``descriptor`` is an inotify instance."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._offset = self._given_back = 0
        self.descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if (
            self.descriptor < 0
            or _libc.inotify_add_watch(self.descriptor, os.fsencode(path), IN_MODIFY) < 0
        ):
            raise errors.KernelUnusable(
                f"cannot watch {path}: {os.strerror(ctypes.get_errno())}",
                remedy="raise fs.inotify.max_user_instances",
            )

    def read(self) -> bytes | None:
        """See Intake. There is no end: the kernel's process ends, and then there is no more."""
        data = os.pread(self._file, READ_AT_ONCE, self._offset)
        self._offset += len(data)
        if len(data) < READ_AT_ONCE:
            self._forget_events()
            more = os.pread(self._file, READ_AT_ONCE, self._offset)  # came in between
            self._offset += len(more)
            data += more
        if self._offset - self._given_back >= GIVE_BACK:
            self._give_back()
        return data or None

    def _forget_events(self) -> None:
        try:
            os.read(self.descriptor, 4096)
        except BlockingIOError:
            return

    def _give_back(self) -> None:
        """Free the room of what has been read; not every file system can, and then it stays."""
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        length = self._offset - self._given_back
        _fallocate(self._file, mode, self._given_back, length)
        self._given_back = self._offset

    def overflowing(self) -> bool:
        """See Intake."""
        return os.fstat(self._file).st_size - self._offset > MOST_BEHIND

    def close(self) -> None:
        """See Intake."""
        os.close(self.descriptor)
        os.close(self._file)
