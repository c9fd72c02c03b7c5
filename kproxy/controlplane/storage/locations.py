"""Where objects are kept: ``--store`` of the API server."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kproxy import errors

from . import base

FORMS = "sqlite:PATH|etcd:URL[,URL...]|memory"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files for etcd endpoints with https: whom to believe, and who we are."""

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def parse(text: str, certificates: Certificates | None = None) -> Callable[[], base.Storage]:
    """Return what opens a storage (which may raise Unavailable). Raises UsageError.

    Implementations are imported only when they are asked for.
    """
    kind, _, rest = text.partition(":")
    if text == "memory":
        return _memory
    if kind == "sqlite" and rest:
        return lambda: _sqlite(Path(rest))
    if kind == "etcd" and rest:
        return lambda: _etcd(rest.split(","), certificates or Certificates())
    raise errors.UsageError(f"store {text!r}", remedy=f"give it as {FORMS}")


def _memory() -> base.Storage:
    from .memory import MemoryStorage

    # Microseconds: no server makes so many changes that its successor could begin below them.
    return MemoryStorage(first_revision=time.time_ns() // 1000)


def _sqlite(path: Path) -> base.Storage:
    from .sqlite import SqliteStorage

    return SqliteStorage(path)


def _etcd(endpoints: list[str], files: Certificates) -> base.Storage:
    from .etcd import EtcdStorage

    try:
        return EtcdStorage(
            endpoints, authority=files.authority, certificate=files.certificate, key=files.key
        )
    except OSError as error:  # a file is missing, or is no certificate
        raise errors.UsageError(f"etcd certificates: {error}") from None
