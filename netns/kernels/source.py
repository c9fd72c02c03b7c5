"""What a kernel is built from: Debian's source package, another archive, or one's own tree."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netns import errors

DEFAULT = "6.12"
PACKAGES = Path("/usr/src")  # where the packages linux-source-* put their archives
PACKAGE = "linux-source-{}"
_VERSION = re.compile(r"\d+\.\d+")
# Where a build inside the tree leaves things that a build outside of it would pick up.
_LEFT_BY_A_BUILD = (".config", "include/config", "arch/um/include/generated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An archive, or (``is_tree``) a directory. ``digest`` changes when its content does."""

    path: Path
    is_tree: bool
    digest: str

    @property
    def label(self) -> str:
        """What people call it."""
        return str(self.path) if self.is_tree else self.path.name


def find(wanted: str) -> Source:
    """Return the source that a user names: a version of Debian's package, an archive, a tree.

    Raises SourceUnusable with the remedy.
    """
    path = Path(wanted)
    if _VERSION.fullmatch(wanted) and not path.exists():
        path = _package(wanted)
    if path.is_dir():
        return _tree(path.resolve())
    if not path.is_file():
        raise errors.SourceUnusable(
            f"there is no kernel source {wanted}",
            remedy=f"--source takes a version of Debian's source package such as {DEFAULT},"
            " an archive, or a directory",
        )
    if ".tar" not in path.name:
        raise errors.SourceUnusable(f"{path} is no tar archive", remedy="linux-….tar.xz is one")
    with path.open("rb") as archive:
        digest = hashlib.file_digest(archive, "sha256").hexdigest()
    return Source(path=path.resolve(), is_tree=False, digest=digest)


def _package(version: str) -> Path:
    name = PACKAGE.format(version)
    archives = sorted(PACKAGES.glob(f"{name}.tar*"))
    if archives:
        return archives[0]
    others = sorted(
        path.name.partition(".tar")[0] for path in PACKAGES.glob("linux-source-*.tar*")
    )
    there = f" (here is {', '.join(others)})" if others else ""
    raise errors.SourceUnusable(
        f"the kernel source {name} is not installed{there}",
        remedy=f"apt-get install {name}; scripts/install --kernel does that for {DEFAULT}",
    )


def _tree(path: Path) -> Source:
    if not (path / "arch" / "um" / "Makefile").is_file():
        raise errors.SourceUnusable(
            f"{path} is no kernel source: it has no arch/um/Makefile",
            remedy="name the top directory of an unpacked kernel",
        )
    if any((path / left).exists() for left in _LEFT_BY_A_BUILD):
        raise errors.SourceUnusable(
            f"{path} has been built in, and what is left there would get into this build",
            remedy=f"make -C {path} ARCH=um mrproper",
        )
    return Source(path=path, is_tree=True, digest=_digest(path))


def _digest(tree: Path) -> str:
    """Return a hash of names, sizes and times of change: reading 90,000 files takes too long."""
    total = hashlib.sha256(str(tree).encode())
    for path in _files(tree):
        status = path.lstat()
        total.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return total.hexdigest()


def _files(tree: Path) -> Iterator[Path]:
    for root, directories, names in os.walk(tree):
        directories[:] = sorted(name for name in directories if name != ".git")
        for name in sorted(names):
            yield Path(root, name)
