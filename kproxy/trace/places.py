"""Network namespaces: those that there are, by which names, and entering them."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kproxy.errors import UsageError

NAMED = Path("/run/netns")
MOST = 256
"""More namespaces than that are not looked at; name those that matter."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_OWN = Path("/proc/thread-self/ns/net")

Identity = tuple[int, int]
"""Device and inode: the same for all ways to one namespace."""


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace: what to call it, and a path to it."""

    name: str
    path: Path

    @property
    def identity(self) -> Identity:
        """Return what tells it from others. OSError: it has gone."""
        status = self.path.stat()
        return status.st_dev, status.st_ino


def find(text: str) -> Place:
    """Return the namespace of this name, path, or ``pid:NUMBER``. UsageError."""
    if text.startswith("pid:"):
        path = Path("/proc") / text.removeprefix("pid:") / "ns/net"
    elif "/" in text:
        path = Path(text)
    else:
        path = NAMED / text
    place = Place(text, path)
    try:
        _ = place.identity
    except OSError:
        known = ", ".join(sorted(one.name for one in _named())) or "none"
        raise UsageError(
            f"--from {text}: there is no such network namespace",
            remedy=f"pid:NUMBER, a path, or a name of /run/netns: {known}",
        ) from None
    return place


def here() -> Place:
    """Return the calling thread's namespace."""
    return Place("here", _OWN)


def every(prefix: str = "") -> list[Place]:
    """Return all namespaces, named ones first; ``prefix``: only those whose name begins so.

    Of names the prefix is left out. Those without a name are called by a process in them.
    """
    found: dict[Identity, Place] = {}
    for one in _named():
        if one.name.startswith(prefix):
            place = Place(one.name.removeprefix(prefix) or one.name, one.path)
            found.setdefault(place.identity, place)
    if not prefix:
        for place in _of_processes(set(found)):
            found.setdefault(place.identity, place)
    return list(found.values())[:MOST]


def _named() -> list[Place]:
    with contextlib.suppress(OSError):
        plain = NAMED.stat().st_dev
        paths = [path for path in sorted(NAMED.iterdir()) if path.stat().st_dev != plain]
        return [Place(path.name, path) for path in paths]
    return []


def _of_processes(known: set[Identity]) -> Iterator[Place]:
    pids = sorted(int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal())
    for pid in pids:
        directory = Path("/proc") / str(pid)
        try:
            place = Place(process(directory), directory / "ns/net")
            identity = place.identity
        except OSError:
            continue  # it has ended, or is not ours to look at
        if identity not in known:
            known.add(identity)
            yield place


def process(directory: Path) -> str:
    """Return what to call the process of a directory of /proc. OSError: it has ended."""
    # The kernel cuts names after fifteen bytes, perhaps within a character.
    name = (directory / "comm").read_text(errors="replace").strip()
    return f"{name}[{directory.name}]"


@contextlib.contextmanager
def entered(place: Place) -> Iterator[None]:
    """The calling thread is in the namespace for the block; sockets made there stay in it.

    UsageError: it cannot be entered.
    """
    home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(place)
        try:
            yield
        finally:
            if _libc.setns(home, _CLONE_NEWNET):
                os.abort()  # to go on in the wrong namespace would be worse
    finally:
        os.close(home)


def _enter(place: Place) -> None:
    try:
        target = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(target, _CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
        finally:
            os.close(target)
    except OSError as error:
        told = error.errno in (errno.EPERM, errno.EACCES)
        raise UsageError(
            f"cannot enter network namespace {place.name}: {error.strerror}",
            remedy="run this as root" if told else "is it one?",
        ) from None
