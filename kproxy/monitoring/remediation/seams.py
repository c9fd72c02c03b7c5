"""What an action is, what it is given, and how it reaches a node: the seams of remediation.

Actions are written against this module alone; the engine knows of an action what is said here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from kproxy.client.rest import Rest
from kproxy.errors import InvalidObject, KproxyError
from kproxy.logs import Log

ACTION_LABEL = "remediation"
"""The label of an alert that names the action that cures it."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What an alert says is wrong. The values of its labels were looked at (:func:`target_of`)."""

    alert: str
    """The alert's name."""
    labels: Mapping[str, str]
    begun: float = 0.0
    """When the action on it began, in seconds since the epoch; 0: it has not.

    What verifies may so tell a sync after the repair from one before it, also after a restart of
    the receiver.
    """

    @property
    def node(self) -> str:
        """Return the node that the alert concerns; empty: none in particular."""
        return self.labels.get("node", "")

    @property
    def namespace(self) -> str:
        """Return the namespace of what the alert concerns; empty: none."""
        return self.labels.get("namespace", "")

    @property
    def key(self) -> str:
        """Return one text for what is repaired: limits count by it. ``Node/n1``, ``Pod/a/b``."""
        if self.node:
            return f"Node/{self.node}"
        for label in ("service", "daemonset", "deployment", "pod"):
            if name := self.labels.get(label):
                return f"{KINDS[label]}/{self.namespace or 'default'}/{name}"
        return f"Alert/{self.alert}"


KINDS = {
    "node": "Node",
    "service": "Service",
    "daemonset": "DaemonSet",
    "deployment": "Deployment",
    "pod": "Pod",
}
"""Labels that name an object, and the kind of that object."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
"""A name of an object (RFC 1123): nothing in it means anything to a shell, a path or an option."""


def target_of(labels: Mapping[str, str], begun: float = 0.0) -> Target:
    """Return what the labels of an alert point to.

    Raises :class:`~kproxy.errors.InvalidObject` if a label that names an object is no name: what
    comes in an alert is shaped by whoever can make a metric.
    """
    for label in (*KINDS, "namespace"):
        value = labels.get(label, "")
        if value and not _NAME.fullmatch(value):
            alert = labels.get("alertname", "?")
            raise InvalidObject(f"alert {alert}", f"labels.{label}", f"{value[:80]!r} is no name")
    return Target(alert=labels.get("alertname", ""), labels=labels, begun=begun)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often an action may run, and how long its parts may take. Durations in seconds."""

    runs: int = 3
    """So many times at once after a quiet time, and after that ``runs`` times each ``period``."""
    period: float = 3600.0
    cool_down: float = 300.0
    """Not again on the same target for so long; doubled with each time that it did not help."""
    check_within: float = 10.0
    """So long one call of ``check`` or ``verify`` may take."""
    run_within: float = 60.0
    verify_within: float = 120.0
    """So long after it ran its success may take to show."""
    verify_every: float = 2.0


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
