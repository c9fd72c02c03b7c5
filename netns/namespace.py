"""Named network namespaces, made, entered and deleted with system calls only.

They are those of ``ip netns``: a file in ``/run/netns`` on which the namespace is mounted. Two
things differ from ``ip netns add`` and from pyroute2's ``netns.create``:

- no child process: the calling thread leaves its namespace, mounts the new one and returns. In
  User-Mode Linux a fork costs 7 ms and an exec 20 ms or more;
- ``/run/netns`` is not bind-mounted on itself, so nothing stays in the mount table. (``ip netns``
  does that for the sake of programs in other mount namespaces; unlinking the file takes the
  mount away there, too.)

A namespace belongs to a *thread*. Nothing here may be used across an ``await``: while a thread is
inside, every task of its event loop would be, too.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from netns.errors import NetnsError

DIRECTORY = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def path_of(name: str) -> Path:
    """The file on which the namespace is mounted."""
    return DIRECTORY / name


def exists(name: str) -> bool:
    """Whether there is a namespace, or at least the file of one, of this name."""
    return path_of(name).exists()


def create(name: str) -> None:
    """Make a namespace. Raises :class:`NetnsError` if the name is taken or rights are missing."""
    path = path_of(name)
    try:
        DIRECTORY.mkdir(mode=0o755, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError:
        remedy = f"delete it with: ip netns delete {name}"
        raise NetnsError(f"network namespace {name} exists already", remedy=remedy) from None
    except PermissionError:
        raise NetnsError(f"cannot create {path}", remedy="run this as root") from None
    try:
        with _returning_home():
            _check(_libc.unshare(_CLONE_NEWNET), f"make network namespace {name}")
            own = b"/proc/thread-self/ns/net"
            _check(
                _libc.mount(own, os.fsencode(path), b"none", _MS_BIND, None),
                f"mount network namespace {name}",
            )
    except BaseException:
        delete(name)
        raise


def delete(name: str) -> None:
    """Take the name away; the namespace ends with its last process. Absent is fine."""
    path = os.fsencode(path_of(name))
    while _libc.umount2(path, _MNT_DETACH) == 0:
        pass  # mounted twice if somebody bound it again; not at all if its maker was killed
    number = ctypes.get_errno()
    if number == errno.EPERM and identity(name) is not None:
        raise NetnsError(f"cannot unmount {path_of(name)}: {os.strerror(number)}")
    path_of(name).unlink(missing_ok=True)


def identity(name: str) -> tuple[int, int] | None:
    """Device and inode of the namespace, the same as those of ``/proc/PID/ns/net`` of its members.

    None if there is no such namespace.
    """
    try:
        status = path_of(name).stat()
        plain_file = status.st_dev == DIRECTORY.stat().st_dev  # nothing mounted on it (yet)
    except FileNotFoundError:
        return None
    return None if plain_file else (status.st_dev, status.st_ino)


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread is in the namespace for the duration of the block.

    Sockets and processes made in the block stay in it; other threads are not touched.
    """
    with entered_at(path_of(name)):
        yield


@contextlib.contextmanager
def entered_at(path: Path) -> Iterator[None]:
    """As :func:`entered`, of a namespace that a file stands for."""
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NetnsError(f"there is no network namespace {path.name}") from None
    try:
        with _returning_home():
            _check(_libc.setns(target, _CLONE_NEWNET), f"enter network namespace {path.name}")
            yield
    finally:
        os.close(target)


@contextlib.contextmanager
def _returning_home() -> Iterator[None]:
    # thread-self, not self: the latter is the namespace of the main thread.
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        # Also when an interrupt comes between the switch and the block.
        failed = _libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        if failed:  # to go on in the wrong namespace would be worse than to end here
            os.abort()


def _check(result: int, doing: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        remedy = "run this as root, or in: unshare --map-root-user --net --mount"
        remedy = remedy if number == errno.EPERM else ""
        raise NetnsError(f"cannot {doing}: {os.strerror(number)}", remedy=remedy)
