"""What an alert says is to be repaired, and how often it may be: values, for who decides.

Pure, and apart from :mod:`.seams`, whose actions speak to the API.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kproxy.errors import InvalidObject

ACTION_LABEL = "remediation"
"""The label of an alert that names the action that cures it."""


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
