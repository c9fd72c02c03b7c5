"""Gives a program files of its own at places of the machine, which nobody else sees.

The program is started by a thread in a mount namespace of its own, where files and directories lie
over the places. So nothing is written outside the lab's directory, and however the program ends,
the mounts go with its namespace.

A place that the machine does not have, ``/run/secrets/…`` for one, is made without touching the
machine: over its nearest directory that is there lies a file system in memory, with all that was
in it, each entry mounted at its place. Only what is made there later is not the machine's.
"""

import contextlib
import ctypes
import errno
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from kproxy.errors import KproxyError

T = TypeVar("T")
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 0x1000, 0x4000, 0x80000
_libc = ctypes.CDLL(None, use_errno=True)


def write(path: Path, text: str) -> Path:
    """Replace a file that programs may have mounted; those that run keep the former one."""
    partial = path.with_name(f".{path.name}.{threading.get_ident()}.new")
    partial.write_text(text)
    partial.replace(path)
    return path


def start_with(mounts: Mapping[Path, Path], start: Callable[[], T]) -> T:
    """Return what ``start`` returns; programs that it starts find our files at the places.

    ``mounts``: place → our file or directory. Without any they find what everybody does. ``start``
    is called in another thread, but the caller waits for it, and gets its exceptions. For root.
    Raises KproxyError.
    """
    if not mounts:
        return start()
    outcome: list[T] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            _check(_libc.unshare(_CLONE_NEWNS), "make a mount namespace")
            # What is unmounted outside goes here, too (a pod's network namespace, say), never the
            # reverse.
            _check(_mount("none", Path("/"), _MS_REC | _MS_SLAVE), "separate mounts")
            for place, ours in mounts.items():
                _lay(ours, place.resolve())
            outcome.append(start())
        except BaseException as problem:
            problems.append(problem)

    # A thread that has left the others' mount namespace cannot come back unnoticed: it ends.
    thread = threading.Thread(target=work, name="starter")
    thread.start()
    thread.join()
    if problems:
        raise problems.pop()
    return outcome.pop()


def _lay(ours: Path, place: Path) -> None:
    """Lay a file or directory over a place, for the calling thread and its children only."""
    if not place.exists():
        _make_room(next(one for one in place.parents if one.exists()))
        place.parent.mkdir(parents=True, exist_ok=True)
        _make_like(ours.is_dir(), place)
    _check(_mount(ours, place, _MS_BIND), f"mount {ours}")


def _make_room(directory: Path) -> None:
    """Let new entries be made in a directory of which the machine knows nothing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_mount("tmpfs", directory, 0, "mode=755"), f"cover {directory}")
        with os.scandir(descriptor) as entries:
            for entry in entries:
                place = directory / entry.name
                if entry.is_symlink():
                    place.symlink_to(os.readlink(entry.name, dir_fd=descriptor))
                    continue
                _make_like(entry.is_dir(), place)
                old = f"/proc/self/fd/{descriptor}/{entry.name}"
                if _mount(old, place, _MS_BIND | _MS_REC) and ctypes.get_errno() != errno.ENOENT:
                    _check(-1, f"keep {place}")
    finally:
        os.close(descriptor)


def _make_like(is_directory: bool, place: Path) -> None:
    """Make something to mount a file or a directory on."""
    with contextlib.suppress(FileExistsError):
        if is_directory:
            place.mkdir()
        else:
            place.touch()


def _mount(source: str | Path, target: Path, flags: int, data: str = "") -> int:
    kind = b"tmpfs" if source == "tmpfs" else None
    return int(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        )
    )


def _check(result: int, doing: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KproxyError(f"cannot {doing}: {reason}", remedy="run this as root")
