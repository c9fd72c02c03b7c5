"""How long controllers wait before they act, and the options of a manager that say so.

The defaults are those of production Kubernetes' ``kube-controller-manager``.
"""

import argparse
from dataclasses import dataclass
from typing import Any

from kproxy.api.durations import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds, unless told otherwise."""

    node_monitor: float = 5.0
    """Nodes are looked at so often."""
    node_grace: float = 50.0
    """A node that gave no sign of life for so long is taken for lost."""
    node_startup: float = 60.0
    """The same for a node that has never reported how it is."""
    eviction_rate: float = 0.1
    """Nodes a second, in each zone, from which pods begin to be evicted."""
    secondary_eviction_rate: float = 0.01
    """The same where a large part of a large zone is lost."""
    unhealthy_zone: float = 0.55
    """A zone with at least this part of its nodes lost is in trouble itself."""
    large_cluster: int = 50
    """Zones of up to so many nodes evict nothing while they are in trouble."""
    pod_gc: float = 20.0
    """Pods that nobody needs are looked for so often."""
    orphan_quarantine: float = 40.0
    """Pods of a node that is not there are left alone for so long."""
    terminated_pods: int = 12_500
    """So many pods that have ended are kept."""


DEFAULT = Times()

_DURATIONS = (
    ("--node-monitor-period", "node_monitor"),
    ("--node-monitor-grace-period", "node_grace"),
    ("--node-startup-grace-period", "node_startup"),
    ("--pod-gc-period", "pod_gc"),
    ("--pod-gc-orphan-quarantine", "orphan_quarantine"),
)
_NUMBERS = (
    ("--node-eviction-rate", "eviction_rate", float),
    ("--secondary-node-eviction-rate", "secondary_eviction_rate", float),
    ("--unhealthy-zone-threshold", "unhealthy_zone", float),
    ("--large-cluster-size-threshold", "large_cluster", int),
    ("--terminated-pod-gc-threshold", "terminated_pods", int),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each of the times."""
    add = parser.add_argument_group("times of controllers").add_argument
    for option, field in _DURATIONS:
        default = Duration(getattr(DEFAULT, field))
        add(option, dest=field, type=duration, default=default, metavar=default.text)
    for option, field, kind in _NUMBERS:
        default = getattr(DEFAULT, field)
        add(option, dest=field, type=kind, default=default, metavar=f"{default:g}")


def of(options: argparse.Namespace) -> Times:
    """Return what the options say."""
    fields = [field for _, field in _DURATIONS] + [field for _, field, _ in _NUMBERS]
    values: dict[str, Any] = {field: getattr(options, field) for field in fields}
    return Times(**values)


def duration(text: str) -> Duration:
    """Return what an option says, for ``argparse``, which then shows what is wrong with it."""
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
