"""The embedded kernels of this machine: Debian's, and those that were built here.

A kernel that was built is a directory in the user's cache, and its name is the directory's::

    $XDG_CACHE_HOME/kproxy/kernels/6.12.117-1a2b3c4d/
        kernel.json  linux  entropy.so  config  build.log

It appears there by a rename when it is complete, so whatever is there can be used. A build that
is not finished is a directory ``unfinished-1a2b3c4d`` beside it, which :mod:`build` knows.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netns import errors
from netns.kernels import base, uml

DEBIAN = "debian"
UNFINISHED = "unfinished-"
METADATA = "kernel.json"
EXECUTABLE = "linux"
ENTROPY = "entropy.so"
CONFIGURATION = "config"
LOG = "build.log"
LOCK = ".lock"
_HIDDEN = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A kernel that was built here, as its ``kernel.json`` has it, and the directory of it.

    ``source`` is what it was built from, for people; ``source_digest`` and ``fragment_digest``
    tell exactly. ``built`` is when (ISO 8601, UTC), ``seconds`` how long it took (of the last run
    if it was interrupted), ``size`` the bytes of the program, ``objects`` the files compiled.
    """

    directory: Path
    name: str
    version: str
    source: str
    source_digest: str
    fragment_digest: str
    compiler: str
    features: tuple[base.Feature, ...]
    options: Mapping[str, str]
    built: str
    seconds: float
    size: int
    objects: int

    def kernel(self) -> uml.UmlKernel:
        """Return it as something that can be booted."""
        return uml.UmlKernel(
            executable=self.directory / EXECUTABLE,
            version=self.version,
            origin=f"own kernel {self.name}",
            name=self.name,
            time_travel=base.Feature.TIME_TRAVEL in self.features,
            features=self.features,
            entropy=self.directory / ENTROPY,
        )


def directory() -> Path:
    """Return where the kernels are; it may not exist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # as the XDG specification demands
        cache = Path.home() / ".cache"
    return cache / "kproxy" / "kernels"


def write(built: Built) -> None:
    """Write the metadata of a kernel into its directory."""
    fields = dataclasses.asdict(built)
    del fields["directory"]
    (built.directory / METADATA).write_text(json.dumps(fields, indent=2) + "\n")


def read(place: Path) -> Built | None:
    """Return the kernel in a directory, or None if there is none that can be used."""
    try:
        fields: dict[str, Any] = json.loads((place / METADATA).read_text())
        fields["features"] = tuple(base.Feature(name) for name in fields["features"])
        built = Built(directory=place, **{**fields, "name": place.name})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return built if os.access(place / EXECUTABLE, os.X_OK) else None


def built_kernels() -> list[Built]:
    """Return the kernels that were built here: the newest version first, then the youngest."""
    found = [read(place) for place in _entries() if not place.name.startswith(UNFINISHED)]
    kernels = [built for built in found if built is not None]
    return sorted(kernels, key=lambda one: (_order(one.version), one.built), reverse=True)


def unfinished() -> list[Path]:
    """Return the directories of builds that were begun and not finished."""
    return [place for place in _entries() if place.name.startswith(UNFINISHED)]


def kernels() -> list[uml.UmlKernel]:
    """Return all embedded kernels, the preferred one first."""
    debian = uml.debian()
    return [*(built.kernel() for built in built_kernels()), *([debian] if debian else [])]


def preferred() -> uml.UmlKernel | None:
    """Return our newest kernel, or Debian's, or None."""
    return next(iter(kernels()), None)


def find(name: str) -> uml.UmlKernel:
    """Return the kernel of that name. Raises KernelUnusable, which names those that there are."""
    known = kernels()
    for kernel in known:
        if kernel.name == name:
            return kernel
    there = ", ".join(kernel.name for kernel in known) or "none"
    remedy = f"embedded kernels here: {there}"
    if name == DEBIAN:
        remedy = f"apt-get install user-mode-linux; {remedy}"
    raise errors.KernelUnusable(f"there is no kernel {name!r}", remedy=remedy)


def with_key(key: str) -> Built | None:
    """Return the kernel whose name ends with this hash."""
    return next((one for one in built_kernels() if one.name.endswith(f"-{key}")), None)


def remove(names: list[str]) -> list[str]:
    """Remove kernels and unfinished builds by name; return the names.

    Raises KernelUnusable, and removes nothing, if one of them is not there or is being built.
    """
    places = {place.name: place for place in _entries()}
    for name in names:
        if name == DEBIAN:
            raise errors.KernelUnusable(
                "Debian's kernel is a package", remedy="apt-get remove user-mode-linux"
            )
        if name not in places:
            there = ", ".join(places) or "none"
            raise errors.KernelUnusable(
                f"there is no kernel {name!r}", remedy=f"built here: {there}"
            )
    with contextlib.ExitStack() as stack:
        if any(name.startswith(UNFINISHED) for name in names):
            stack.enter_context(lock())
        for name in names:
            discard(places[name])
    return names


def removable() -> list[str]:
    """Return the names of everything that ``remove`` can remove, damaged kernels included."""
    return [place.name for place in _entries()]


def discard(place: Path) -> None:
    """Remove a directory, at once for everyone who looks."""
    hidden = place.with_name(f"{_HIDDEN}{place.name}")
    _remove_tree(hidden)
    place.rename(hidden)
    _remove_tree(hidden)


def sweep() -> None:
    """Remove what a removal that was killed has left. To be called with the lock held."""
    for place in directory().glob(f"{_HIDDEN}*"):
        if place.is_dir():
            _remove_tree(place)


@contextlib.contextmanager
def lock(*, busy: Callable[[], None] | None = None) -> Iterator[int]:
    """Hold the right to build; a program that inherits the descriptor holds it as well.

    If somebody else holds it, calls ``busy`` and waits; without it, raises KernelUnusable.
    """
    directory().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory() / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy is None:
                raise errors.KernelUnusable(
                    "a kernel is being built right now", remedy="wait for its end"
                ) from None
            busy()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _entries() -> list[Path]:
    """Return the directories of kernels and unfinished builds, by name."""
    places = directory().glob("*")
    return sorted(one for one in places if one.is_dir() and not one.name.startswith(_HIDDEN))


def _remove_tree(place: Path) -> None:
    """Remove a directory, if it is there; another process may be doing the same."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
