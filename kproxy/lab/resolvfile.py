"""Gives a program a resolv.conf of its own, which nobody else sees and which goes with it.

The program is started by a thread in a mount namespace of its own, where the file lies over
``/etc/resolv.conf``. So nothing is written outside the lab's directory, and however the program
ends, the mount goes with its namespace.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kproxy.errors import KproxyError

T = TypeVar("T")
PLACE = Path("/etc/resolv.conf")
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_SLAVE = 0x20000, 0x1000, 0x4000, 0x80000
_libc = ctypes.CDLL(None, use_errno=True)


def start_with(path: Path, text: str, start: Callable[[], T], place: Path = PLACE) -> T:
    """Return what ``start`` returns; programs that it starts find this text at ``place``.

    Without a text they find what everybody does. The text is kept in the file ``path``; programs
    that run with a former one keep that. ``start`` is called in another thread, but the caller
    waits for it, and gets its exceptions. On a machine without such a place programs do without.
    For root. Raises KproxyError.
    """
    if not text:
        return start()
    partial = path.with_name(f".{path.name}.{threading.get_ident()}.new")
    partial.write_text(text)
    partial.replace(path)
    outcome: list[T] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            _cover(path, place)
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


def _cover(path: Path, place: Path) -> None:
    """Lay a file over another one, for the calling thread and its children only."""
    _check(_libc.unshare(_CLONE_NEWNS), "make a mount namespace")
    # What is unmounted outside goes here, too (a pod's network namespace, say), never the reverse.
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "separate mounts")
    if place.exists():
        covered = os.fsencode(place), os.fsencode(path)
        _check(_libc.mount(covered[1], covered[0], None, _MS_BIND, None), f"mount {path}")


def _check(result: int, doing: str) -> None:
    if result != 0:
        reason = os.strerror(ctypes.get_errno())
        raise KproxyError(f"cannot {doing}: {reason}", remedy="run this as root")
