"""What a look at a node finds, and what a care came to: values, which become JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from kproxy.backends.base import Difference, Options
from kproxy.desired.model import State

RESTART, RESYNC = "restart-proxy", "resync-proxy"
HEAL, CLEAN = "heal-weights", "clean-conntrack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be in the kernel of a node, as the API server says it now."""

    node: str
    mode: str
    states: Sequence[State]
    """One for each IP family."""
    options: Options
    newest: Mapping[str, int] = field(default_factory=dict)
    """The newest version of an object of each kind, by the kind's plural; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node's proxy is to be found. A port of 0: it does not listen there."""

    lock: str
    """The name of the socket that who writes rules holds (``kproxy.agent.nodelock``)."""
    healthz: tuple[str, int]
    metrics: tuple[str, int]


Ask = Callable[[], Wanted]
"""Asks the API server. Raises KproxyError."""

Differ = Callable[[Wanted], Mapping[str, Sequence[Difference]]]
"""Compares the kernel with what is wanted, by IP family. Raises KproxyError."""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, and how it is known."""

    what: str
    """One word for machines: ``proxy-stopped``."""
    evidence: str
    cure: str = ""
    """The action that is prepared for it; empty: none."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """All that is seen of a node. What could not be seen is in ``unknown``, with the reason."""

    node: str
    mode: str
    proxy: dict[str, object]
    """``found``, ``kind``, ``pid``, ``state``, ``age_s``, ``writes`` (whether it holds the node's
    lock), ``catches_resync``, ``command``."""
    answers: dict[str, str]
    """Of ``/healthz`` and ``/livez``: the status, or why there is none."""
    sync: dict[str, float | None]
    """``last_s``: seconds since the last success; ``pending``: changes that wait; ``failures``."""
    drift: dict[str, int]
    """``missing``, ``different``, ``unexpected``: kernel objects against the API server."""
    watch_stale: bool | None
    """Whether the proxy has not heard of what the API server has; None: not known."""
    weights: dict[str, int]
    """``stuck`` and ``draining`` real servers of IPVS."""
    conntrack: dict[str, int]
    """``stale`` UDP flows, ``entries`` and ``limit`` of the table."""
    troubles: tuple[Trouble, ...]
    unknown: dict[str, str]

    @property
    def healthy(self) -> bool:
        """Return whether nothing is known to be wrong, and everything that counts is known."""
        return not self.troubles and not self.unknown


class Care(msgspec.Struct, frozen=True, kw_only=True):
    """What one care came to."""

    care: str
    node: str
    dry_run: bool = False
    found: tuple[str, ...] = ()
    """What was wrong at the first look, of what this care repairs."""
    done: tuple[str, ...] = ()
    """What was done; in a dry run what would be."""
    left: tuple[str, ...] = ()
    """What was still wrong at the last look."""
    refused: str = ""
    """Why nothing could be done about it, and what to do instead."""

    @property
    def good(self) -> bool:
        """Return whether nothing of it is wrong any more. A dry run: whether nothing was."""
        return not self.refused and not self.left and not (self.dry_run and self.found)


def encode(one: Look | Care) -> bytes:
    """Return it as JSON, with the verdict: ``healthy`` of a look, ``good`` of a care."""
    fields = msgspec.to_builtins(one)
    verdict = {"healthy": one.healthy} if isinstance(one, Look) else {"good": one.good}
    return msgspec.json.encode({**fields, **verdict})
