"""What the proxies of a comparison are: a mode and a restart policy, or a mode that is left. Pure.

A setup has a name in tables and results: ``ipvs``, ``ipvs+flush-at-start``, ``ipvs>nftables``.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from kproxy import errors


class Policy(StrEnum):
    """What a proxy's start and end do to the rules that are there; the words are ``--policy``'s.

    ``keep`` is what kproxy does, and kube-proxy today. The others are what the pod around it does:
    what kube-proxies did once, and what is asked for again and again.
    """

    KEEP = "keep"
    FLUSH_AT_START = "flush-at-start"
    CLEANUP_AT_EXIT = "cleanup-at-exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The proxies' mode and policy. ``to``: the mode that a node is switched into, if it is."""

    mode: str
    policy: Policy = Policy.KEEP
    to: str = ""

    @property
    def label(self) -> str:
        """Return its name in tables and results."""
        if self.to:
            return f"{self.mode}>{self.to}"
        return self.mode if self.policy is Policy.KEEP else f"{self.mode}+{self.policy}"

    @property
    def file_name(self) -> str:
        """Return a name for a directory."""
        return f"{self.mode}-to-{self.to}" if self.to else f"{self.mode}-{self.policy}"


def pairs(modes: Sequence[str], old: str = "", new: str = "") -> tuple[tuple[str, str], ...]:
    """Return all ordered pairs of different modes, or those from ``old`` and into ``new`` alone.

    ``modes``: at least one, each once. Raises ``UsageError`` naming the option where there are
    no such pairs.
    """
    for option, mode in (("--from", old), ("--to", new)):
        if mode and mode not in modes:
            raise errors.UsageError(
                f"{option} {mode}: there is no such mode among those compared",
                remedy=f"name one of: {', '.join(modes)}",
            )
    found = tuple(
        (one, other)
        for one, other in itertools.permutations(modes, 2)
        if old in ("", one) and new in ("", other)
    )
    if not found:
        said = f"--from {old} --to {new}" if len(modes) > 1 else f"mode {modes[0]} alone"
        raise errors.UsageError(f"{said}: that is no change", remedy="name two different modes")
    return found


def policies(words: Sequence[str]) -> tuple[Policy, ...]:
    """Return the policies of these names. Raises ``UsageError`` for a name that is none."""
    try:
        return tuple(dict.fromkeys(Policy(word) for word in words))
    except ValueError as error:
        raise errors.UsageError(
            f"--policy: {error}", remedy=f"known: {', '.join(Policy)}"
        ) from None
