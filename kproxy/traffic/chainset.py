"""The result file of ``kproxy chain``: what was measured of each link, raw and summed up.

Like :mod:`kproxy.traffic.resultset`, whose terms it uses: one versioned JSON object that holds
enough to compute its summary again. Times are milliseconds; a field that does not apply is null.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kproxy.traffic import resultfile
from kproxy.traffic.resultset import Measurement, Spread, TimelineEvent

FORMAT = "kproxy.chain/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long something that goes on steadily did not, after the fault.

    ``usual_ms`` is the longest time that it took before the fault. ``longest_ms``: the longest
    time after it, ``over_ms``: by how much that is more than usual, ``total_ms``: all the time in
    which it was overdue. ``longest_ms`` and what follows from it are null if it had not gone on
    again when the trial ended. ``count``: how many of it there were; ``failed``: that failed.
    """

    usual_ms: float
    longest_ms: float | None
    over_ms: float | None
    total_ms: float | None
    count: int
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePause:
    """How long changes waited for one node's kernel, or how long no pod was made on it."""

    node: str
    pause: Pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What monitoring did about a fault, where the trial is about that.

    ``fault`` and ``title``: its name and what it is called, which trials with and without
    monitoring share; ``variant``: which of them this is. ``alert``: the one that told; empty: none
    did. Times are ms after the fault; null: it did not happen. ``seen_ms``: Prometheus evaluated
    the alert's rule and found it true; ``alert_ms``: a notification of Alertmanager arrived;
    ``action_ms``: an ``action`` began; ``verified_ms``: it was found to have helped. ``hand_ms``
    is declared, not measured: what a person takes from the alert to the repair. ``waited_ms``: so
    long it was waited in vain; the tester repaired it then.
    """

    fault: str
    title: str
    variant: str
    alert: str = ""
    seen_ms: float | None = None
    alert_ms: float | None = None
    action: str = ""
    action_ms: float | None = None
    verified_ms: float | None = None
    hand_ms: float | None = None
    waited_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTrial:
    """One fault of one link. ``timeline`` is relative to the fault.

    ``detect_ms`` and ``repair_ms``: from the fault until it was noticed, and until what had failed
    was in order again; null where nobody did. In ``measurements`` a ``node`` is a vantage point.
    ``problems`` says why the trial is not valid.
    """

    link: str
    number: int
    timeline: tuple[TimelineEvent, ...] = ()
    detect_ms: float | None = None
    repair_ms: float | None = None
    measurements: tuple[Measurement, ...] = ()
    changes: tuple[NodePause, ...] = ()
    writes: Pause | None = None
    pods: tuple[NodePause, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    watched: Watched | None = None

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against counting this trial."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTraffic:
    """One kind of traffic from one vantage point, over all trials of a link.

    ``sent`` and ``lost`` are packets, or attempted and failed requests or connections.
    """

    vantage: str
    traffic: str
    sent: int
    lost: int
    failover_time_ms: Spread | None
    accuracy_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkPause:
    """How much longer than usual something took on a node, over all trials."""

    node: str
    over_ms: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedRow:
    """What monitoring did about a fault, over all trials; see :class:`Watched`.

    ``alert`` and ``action`` are those of the first trial that has one. ``hand_ms`` and
    ``waited_ms``: of the first trial.
    """

    fault: str
    title: str
    variant: str
    alert: str
    action: str
    seen_ms: Spread | None
    alert_ms: Spread | None
    action_ms: Spread | None
    verified_ms: Spread | None
    hand_ms: float | None
    waited_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """The summary of one link. ``noticed_by``, ``repaired_by``: who, by the first trial."""

    link: str
    title: str
    guarantor: str
    trials: int
    noticed_by: str
    repaired_by: str
    detect_ms: Spread | None
    repair_ms: Spread | None
    traffic: tuple[LinkTraffic, ...]
    frozen: tuple[LinkPause, ...]
    no_writes_ms: Spread | None
    no_pods: tuple[LinkPause, ...]
    notes: tuple[str, ...]
    valid: bool
    watched: WatchedRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSet:
    """A whole result file. ``left_out``: links that could not be run, with the reason."""

    kernel: dict[str, Any]
    host: dict[str, Any]
    parameters: dict[str, Any]
    trials: tuple[LinkTrial, ...]
    summary: tuple[LinkRow, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    format: str = field(default=FORMAT)


def write(results: ChainSet, path: Path) -> None:
    """Write the file; it appears whole or not at all. The directory is made if it is missing."""
    resultfile.write(results, path)


def read(path: Path) -> ChainSet:
    """Read a file that :func:`write` made. Raises ``UsageError`` if it is not such a file."""
    return resultfile.read(path, ChainSet, FORMAT)
