"""What an action is, what it is given, and how it reaches a node: the seams of remediation.

Actions are written against this module alone; the engine knows of an action what is said here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from kproxy.client.rest import Rest
from kproxy.errors import KproxyError
from kproxy.logs import Log

from .targets import ACTION_LABEL as ACTION_LABEL
from .targets import KINDS as KINDS
from .targets import Limits as Limits
from .targets import Target as Target
from .targets import target_of as target_of


class NodeUnreachable(KproxyError):
    """Nothing can be run on this node now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command on a node ended. ``code`` is -1 if it was ended because it took too long."""

    code: int
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False


class NodeAccess(Protocol):
    """Runs commands on nodes."""

    def run(self, node: str, command: Sequence[str], timeout: float) -> Finished:
        """Run a command (no shell) on a node and wait for its end, at most ``timeout`` seconds.

        A command that takes longer is ended, with all its children. Raises
        :class:`NodeUnreachable` if it could not be started.
        """


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of :meth:`Action.check` or :meth:`Action.verify`, with its reason in words."""

    good: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What :meth:`Action.run` did, in words; ``done`` is False if it could not."""

    done: bool
    detail: str


@runtime_checkable
class Action(Protocol):
    """A prepared, reviewed repair.

    All methods may raise :class:`~kproxy.errors.KproxyError`: ``check`` then counts as "cannot
    tell", ``run`` as failed, ``verify`` as "not yet". They are called in a thread of their own,
    and must bound what they wait for by themselves too; one that outlives its limit is given up.
    """

    @property
    def name(self) -> str:
        """Return what alerts call it, in the label ``remediation``."""

    @property
    def summary(self) -> str:
        """Return one line for ``kproxy remediate actions``: what it does."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the labels that an alert must have, not empty."""

    @property
    def limits(self) -> Limits:
        """Return the limits that hold where the configuration says nothing else."""

    def check(self, target: Target) -> Verdict:
        """Return whether running it would help now. Changes nothing."""

    def run(self, target: Target) -> Outcome:
        """Repair. Called at most once for an alert instance."""

    def verify(self, target: Target) -> Verdict:
        """Return whether the trouble is gone. Changes nothing; asked until it is, or too late.

        May be called without ``run`` in this process: after a restart in the middle of a repair.
        """


@runtime_checkable
class Rehearsing(Protocol):
    """An action that can tell more in a dry run than that it would run."""

    def rehearse(self, target: Target) -> Outcome:
        """Return what :meth:`Action.run` would do. Changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What actions may use. ``rest`` is None where there is no API server in the configuration."""

    nodes: NodeAccess
    rest: Rest | None
    log: Log
    options: Mapping[str, str] = field(default_factory=dict)
    """Free settings for actions, from ``options`` in the configuration."""
