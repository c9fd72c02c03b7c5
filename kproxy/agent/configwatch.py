"""Notices that the configuration file says something else than when it was read.

The process then ends as after SIGTERM, but with an exit code of its own, and its supervisor (a
DaemonSet's kubelet) starts it anew with the new configuration, as with kube-proxy. A ConfigMap in
a pod changes by a symbolic link that is replaced, an editor replaces or overwrites the file: the
directories of the file and of all links on the way to it are watched, and what counts in the end
is whether the content differs.

Imported only when the proxy has been running for a while: ``ctypes`` would lengthen its start.
"""

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Iterable
from pathlib import Path

POLL_S = 10.0
"""Where the kernel gives no more watches, the file is read so often."""

SETTLE_S = 0.2
"""A new content must stay the same for so long: it may still be written."""

MOST_LINKS = 40

# From inotify(7).
IN_CLOEXEC = 0o2000000
IN_ATTRIB, IN_CLOSE_WRITE = 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
MASK = (
    IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
)


def wait_for_change(path: Path, content: bytes) -> None:
    """Return when the file holds something else than ``content``.

    A file that is gone or empty is no other content yet: somebody is replacing it.
    """
    try:
        with contextlib.closing(_Inotify()) as watches:
            while True:
                # First watch, then look: what comes in between is not missed.
                watches.add(directories(path))
                if _changed(path, content):
                    return
                watches.wait()
    except OSError:
        while not _changed(path, content):
            time.sleep(POLL_S)


def directories(path: Path) -> set[Path]:
    """Return the directories whose entries decide what ``path`` leads to."""
    found = {path.absolute().parent}
    current, rest = Path("/"), list(path.absolute().parts[1:])
    links = 0
    while rest:
        part = rest.pop(0)
        here = current / part
        if part == "..":
            current = current.parent
        elif here.is_symlink() and links < MOST_LINKS:
            links += 1
            found.add(current)
            target = here.readlink()
            if target.is_absolute():
                current, target = Path("/"), target.relative_to("/")
            rest = [*target.parts, *rest]
        else:
            current = here
    found.add(current.parent)
    return found


def _changed(path: Path, content: bytes) -> bool:
    found = _read(path)
    while found not in (b"", content):
        time.sleep(SETTLE_S)
        before, found = found, _read(path)
        if found == before:
            return True
    return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class _Inotify:
    """Watches of directories, by the C library: Python's own has none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(IN_CLOEXEC)
        if self._fd < 0:
            raise _failure()

    def add(self, places: Iterable[Path]) -> None:
        """Watch directories, also those that are watched already; one that is gone is left out.

        Raises OSError if none can be watched.
        """
        codes = [
            self._libc.inotify_add_watch(self._fd, os.fsencode(place), MASK) for place in places
        ]
        if max(codes) < 0:
            raise _failure()

    def wait(self) -> None:
        """Wait until something happens in one of them."""
        os.read(self._fd, 65536)

    def close(self) -> None:
        """Give all watches back."""
        os.close(self._fd)


def _failure() -> OSError:
    number = ctypes.get_errno() or errno.EINVAL
    return OSError(number, os.strerror(number))
