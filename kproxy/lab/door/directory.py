"""Where a lab that runs is found: one directory for each, by its name.

``lock``
    its owner holds an flock on it as long as it lives;
``owner.json``
    who that is, and what it keeps (:class:`Owner`);
``socket``
    where commands come in;
``log``
    what the owner and the kernel have printed;
``net``
    the state of a lab on this machine's own kernel (:mod:`netns.lab`).
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kproxy import errors
from netns import lab
from netns.errors import NetnsError, WaitTimeout
from netns.process import Process, ProcessId

END_SECONDS = 60.0
KILL_SECONDS = 15.0


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who keeps a lab alive, on which kernel and by which clock; ``began``: seconds since 1970."""

    pid: int
    start_time: int
    kernel: str
    clock: str
    began: float


@dataclass(frozen=True, slots=True)
class LabDirectory:
    """One lab's directory, ``root``; its last part is the lab's name."""

    root: Path

    @property
    def name(self) -> str:
        """Return the lab's name."""
        return self.root.name

    @property
    def log(self) -> Path:
        """Return the file of what the owner prints."""
        return self.root / "log"

    @property
    def net(self) -> Path:
        """Return the state directory of a lab on this machine's kernel."""
        return self.root / "net"

    def owner(self) -> Owner | None:
        """Return who keeps the lab alive now; None: nobody."""
        try:
            found = msgspec.json.decode((self.root / "owner.json").read_bytes(), type=Owner)
        except FileNotFoundError:
            return None
        return found if ProcessId(found.pid, found.start_time).alive else None

    @contextlib.contextmanager
    def taken(self, kernel: str, clock: str) -> Iterator[None]:
        """Be the owner for the block. Raises UsageError if there is one; repairs dead ones'.

        At the end the directory is gone, but for the log if something went wrong.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(stat.S_IRWXU)
        lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise self.present() from None
        try:
            self._repair()
            own = ProcessId.of(os.getpid())
            assert own is not None
            owner = Owner(
                pid=own.pid,
                start_time=own.start_time,
                kernel=kernel,
                clock=clock,
                began=time.time(),
            )
            partial = self.root / "owner.new"
            partial.write_bytes(msgspec.json.encode(owner))
            partial.replace(self.root / "owner.json")
            yield
        finally:
            self._repair()
            self._clear(keep_log=True)
            os.close(lock)

    def listen(self) -> socket.socket:
        """Return a socket at which commands come in."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with self._short() as path:
            listener.bind(path)
        listener.listen(64)
        return listener

    def connect(self) -> socket.socket:
        """Return a connection to the owner. Raises UsageError if there is none."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with self._short() as path:
                connection.connect(path)
        except (OSError, errors.UsageError):
            connection.close()
            raise self.absent() from None
        return connection

    def present(self) -> errors.UsageError:
        """Return the error that there is such a lab already."""
        return errors.UsageError(
            f"lab {self.name} is up already",
            remedy=f"kproxy lab down --name {self.name}, or choose another name",
        )

    def absent(self) -> errors.UsageError:
        """Return the error that there is no such lab, which names those there are."""
        others = [one.name for one in every(self.root.parent) if one.owner() is not None]
        there = f"there are: {', '.join(others)} (--name)" if others else ""
        return errors.UsageError(
            f"lab {self.name} is not up", remedy=there or "start it by `kproxy lab up`"
        )

    def take_down(self) -> bool:
        """End the lab, and repair what it left; whether there was anything.

        Raises KproxyError if its owner does not end.
        """
        found = self.owner()
        if found is None:
            there = self.root.exists()
            self._repair()
            self._clear()
            return there
        with contextlib.suppress(NetnsError):  # it has ended just now
            process = Process(ProcessId(found.pid, found.start_time))
            process.terminate()
            if not _ended(process, END_SECONDS):
                process.signal(signal.SIGKILL)
                if not _ended(process, KILL_SECONDS):
                    raise errors.KproxyError(f"process {found.pid} does not end")
        self._repair()
        self._clear()
        return True

    def _repair(self) -> None:
        try:
            if self.net.exists():
                lab.repair(self.net)
        except NetnsError as error:
            raise errors.KproxyError(error.message, remedy=error.remedy) from None
        for name in ("socket", "owner.json", "owner.new"):
            (self.root / name).unlink(missing_ok=True)

    def _clear(self, *, keep_log: bool = False) -> None:
        if keep_log and self.log.exists():
            (self.root / "lock").unlink(missing_ok=True)
            return
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):  # there are other labs
            self.root.parent.rmdir()

    @contextlib.contextmanager
    def _short(self) -> Iterator[str]:
        """Yield a path of the socket that is not too long for one."""
        try:
            place = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.absent() from None
        try:
            yield f"/proc/self/fd/{place}/socket"
        finally:
            os.close(place)


def every(parent: Path) -> list[LabDirectory]:
    """Return the directories of all labs below a directory, dead ones too."""
    if not parent.is_dir():
        return []
    return [LabDirectory(path) for path in sorted(parent.iterdir()) if path.is_dir()]


def _ended(process: Process, timeout: float) -> bool:
    try:
        process.wait(timeout)
    except WaitTimeout:
        return False
    return True
