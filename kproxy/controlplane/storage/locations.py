"""Where objects are kept: ``--store`` of the API server.

>>> parse("memory")  # doctest: +ELLIPSIS
<function ...>
"""

import time
from collections.abc import Callable
from pathlib import Path

from kproxy import errors

from . import base

FORMS = "sqlite:PATH|etcd:URL[,URL...]|memory"


def parse(text: str) -> Callable[[], base.Storage]:
    """Return what opens a storage (which may raise Unavailable). Raises UsageError.

    Implementations are imported only when they are asked for.
    """
    kind, _, rest = text.partition(":")
    if text == "memory":
        return _memory
    if kind == "sqlite" and rest:
        return lambda: _sqlite(Path(rest))
    raise errors.UsageError(f"store {text!r}", remedy=f"give it as {FORMS}")


def _memory() -> base.Storage:
    from .memory import MemoryStorage

    # Microseconds: no server makes so many changes that its successor could begin below them.
    return MemoryStorage(first_revision=time.time_ns() // 1000)


def _sqlite(path: Path) -> base.Storage:
    from .sqlite import SqliteStorage

    return SqliteStorage(path)
