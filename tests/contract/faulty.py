"""A client of the kernel that records what is written through it, and lets one write fail.

It stands before a real client (or a fake): whatever does not fail is really done. Operations of
one ``run`` are single messages to the kernel, which does the others though one fails; a restore
or a transaction is done whole or not at all.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kproxy.errors import KernelError

ERRNOS = (errno.ENOBUFS, errno.EBUSY, errno.EINTR)

LISTS = ("run", "delete", "add_addresses", "remove_addresses")
"""Methods that return one result for each of the things in their last argument."""

WHOLE = ("restore", "run", "ensure_dummy", "set_timeouts")
"""Methods that raise."""


@dataclass
class Faults:
    """What all clients of one backend share.

    ``kind`` is the kind of write that fails once, as ``seen`` names it; empty: none. ``written``
    are all writes that were tried: (kind, what).
    """

    kind: str = ""
    number: int = errno.ENOBUFS
    failed: bool = False
    written: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def seen(self) -> list[str]:
        """Return the kinds of writes that were tried, in the order of their first one."""
        return list(dict.fromkeys(kind for kind, _ in self.written))

    def meets(self, kind: str, what: Any) -> bool:
        """Note a write; return whether it is to fail."""
        self.written.append((kind, what))
        if self.failed or kind != self.kind:
            return False
        self.failed = True
        return True

    def error(self, kind: str) -> KernelError:
        """Return what the kernel would say."""
        return KernelError(kind, self.number, "made to fail")


class Faulty:
    """Stands before a client."""

    def __init__(self, name: str, client: Any, faults: Faults) -> None:
        self._name = name
        self._client = client
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in LISTS and self._name != "nft":  # whose transactions are done whole
            return self._each(name, found)
        if name in WHOLE:
            return self._whole(name, found)
        return found

    def _each(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> list[KernelError | None]:
            *before, things = arguments
            things = list(things)
            kinds = [self._kind(name, thing) for thing in things]
            doomed = {
                index
                for index, kind in enumerate(kinds)
                if self._faults.meets(kind, (*before, things[index]))
            }
            done = iter(real(*before, [t for i, t in enumerate(things) if i not in doomed]))
            return [
                self._faults.error(kinds[index]) if index in doomed else next(done)
                for index in range(len(things))
            ]

        return call

    def _whole(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            kind = f"{self._name} {name}"
            if self._faults.meets(kind, arguments):
                raise self._faults.error(kind)
            half = f"{kind} half-way"
            changes = arguments[0] if arguments else ()
            several = name == "restore" and isinstance(changes, Sequence) and len(changes) > 1
            if several and self._faults.meets(half, arguments):
                real(changes[:1], *arguments[1:])
                raise self._faults.error(half)
            return real(*arguments)

        return call

    def _kind(self, name: str, thing: Any) -> str:
        detail = type(thing).__name__ if name == "run" else name
        return f"{self._name} {detail}"
