"""Removing everything of ours from a node: ``kproxy proxy --cleanup``.

All modes and both IP families, whatever mode the node is in now, or all but the one that a proxy
works in (``--cleanup-except``). What is not the proxy's own, such as rules in built-in chains,
other tables and virtual servers of others, stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kproxy.backends import base
from kproxy.desired.model import Family
from kproxy.errors import KernelError, Unsupported
from kproxy.logs import Log

SHARING = frozenset({"ipvs", "iptables"})
"""Modes that use the same names of chains: whichever synced last has removed what the other had
besides, so that all the chains there are its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What became of one mode."""

    mode: str
    removed: int = 0
    """Kernel objects, in both families."""
    unusable: str = ""
    """Why this kernel cannot do the mode, so that it has left nothing; empty: it can."""
    failures: Sequence[KernelError] = ()
    """What stood in the way; the next attempt begins with it."""

    def __str__(self) -> str:
        if self.failures:
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            return f"{self.mode}: not all removed: {self.failures[0]}{more}"
        if self.removed:
            noun = "object" if self.removed == 1 else "objects"
            return f"{self.mode}: {self.removed} {noun} removed"
        if self.unusable:
            return f"{self.mode}: nothing to remove: {self.unusable}"
        return f"{self.mode}: nothing to remove"


def clean_up(log: Log, *, spared: str = "") -> list[Cleaned]:
    """Remove what every mode writes, in both families; return what became of each mode.

    ``spared`` is a mode in which a proxy works on this node: what it has written stays. A failure
    keeps nothing else from being removed.
    """
    return [
        _clean_mode(mode, log, keep_chains={mode, spared} <= SHARING)
        for mode in base.BACKENDS
        if mode != spared
    ]


def _clean_mode(mode: str, log: Log, *, keep_chains: bool) -> Cleaned:
    removed = 0
    unusable: dict[Family, str] = {}
    failures: list[KernelError] = []
    for family in Family:
        try:
            removed += _clean_family(mode, family, keep_chains=keep_chains)
        except Unsupported as error:
            unusable[family] = str(error)
            log.debug("nothing to clean up", backend=mode, family=family, reason=str(error))
        except KernelError as error:
            failures.append(error)
    log.debug("cleaned up", backend=mode, removed=removed, failures=len(failures))
    return Cleaned(
        mode=mode,
        removed=removed,
        unusable=unusable[Family.IPV4] if len(unusable) == len(Family) else "",
        failures=tuple(failures),
    )


def _clean_family(mode: str, family: Family, *, keep_chains: bool) -> int:
    """Return how many objects were removed. Unsupported, KernelError."""
    backend = base.loader(mode)(family, base.Options())
    try:
        if (reason := backend.supported()) is not None:
            raise Unsupported(reason)
        return backend.cleanup(keep_chains=keep_chains)
    finally:
        backend.close()
