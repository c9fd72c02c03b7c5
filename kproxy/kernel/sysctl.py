"""Kernel switches under ``/proc/sys``. Those of the network belong to the caller's namespace."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kproxy.errors import KernelError, NotFound


class SysctlClient(Protocol):
    """What :class:`Sysctl` and :class:`FakeSysctl` have in common.

    A key is written as its path: ``net/ipv4/vs/conntrack``.
    """

    def get(self, key: str) -> str:
        """Return the value without surrounding space. NotFound, KernelError."""

    def set(self, key: str, value: str | int) -> None:
        """Write the value. NotFound, KernelError naming the key."""


class Sysctl:
    """Reads and writes ``/proc/sys`` (or the tree given)."""

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def get(self, key: str) -> str:
        """Return the value without surrounding space. NotFound, KernelError."""
        try:
            return self._path(key).read_text().strip()
        except OSError as error:
            raise _failure("read", key, error) from error

    def set(self, key: str, value: str | int) -> None:
        """Write the value. NotFound, KernelError naming the key."""
        try:
            # Opened without creating: below the real /proc/sys nothing can be made anyway, and
            # elsewhere a mistyped key must not become a file.
            with self._path(key).open("r+") as file:
                file.write(str(value))
        except OSError as error:
            raise _failure("write", key, error) from error

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise NotFound(f"sysctl {key}", errno.ENOENT, "not a key")
        return self._root / key


class FakeSysctl:
    """Holds the values in memory. A key that it was not made with does not exist."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        self.written: list[tuple[str, str]] = []

    def get(self, key: str) -> str:
        """Return the value. NotFound."""
        try:
            return self.values[key]
        except KeyError:
            raise NotFound(f"read sysctl {key}", errno.ENOENT, "no such key") from None

    def set(self, key: str, value: str | int) -> None:
        """Keep the value. NotFound."""
        if key not in self.values:
            raise NotFound(f"write sysctl {key}", errno.ENOENT, "no such key")
        self.values[key] = str(value)
        self.written.append((key, str(value)))


def ensure(sysctl: SysctlClient, key: str, value: str | int) -> bool:
    """Write the value unless it is there already; return whether it was written."""
    if sysctl.get(key) == str(value):
        return False
    sysctl.set(key, value)
    return True


def _failure(verb: str, key: str, error: OSError) -> KernelError:
    operation = f"{verb} sysctl {key}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(operation, errno.ENOENT, "no such key in this kernel")
    return KernelError(operation, error.errno or 0, error.strerror or str(error))
