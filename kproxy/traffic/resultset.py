"""The result file: what was measured, raw and summed up, in one versioned JSON object.

``docs/measuring.md`` describes every field. Reports read this file and nothing else, so it holds
enough to compute its summary again (:mod:`kproxy.traffic.summary`). Times are milliseconds,
rates per second; a field that does not apply is null. Single figures are in
:mod:`kproxy.traffic.figures`, how files are written and read in :mod:`kproxy.traffic.resultfile`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kproxy.traffic import resultfile
from kproxy.traffic.figures import (
    Convergence,
    Delay,
    Failover,
    Figure,
    LossPattern,
    Recovery,
    ServiceResult,
)
from kproxy.traffic.switchset import Switch

FORMAT = "kproxy.result/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Where a median over trials lies with 95 % confidence; None: beyond what was watched."""

    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Over the trials. None: a trial had no value, it never recovered while it was watched.

    ``confidence`` is of the median; None: too few trials for one.
    """

    median: float | None
    min: float | None
    max: float | None
    confidence: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectMs:
    """Connect time of the connections that were made, milliseconds; None without any."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRow:
    """TCP requests or connections: ``failed`` includes ``reset``; see :class:`TcpResult`.

    ``failed_per_trial`` is null in files of format 1.
    """

    attempted: int
    failed: int
    reset: int
    connect_ms: ConnectMs
    stalled: int | None = None
    failed_per_trial: Spread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledShare:
    """How much of a time comes from the cost model, 0 to 1: the median over the trials.

    None: there is no such time.
    """

    failover_time: float | None
    restart_to_synced: float | None


class Verdict(StrEnum):
    """What may be said of one mode's figure beside another mode's."""

    LESS = "less"
    GREATER = "greater"
    NOT_SHOWN = "no difference shown"
    TOO_FEW = "too few trials"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of one row beside the same one of another ``mode``.

    ``p``: the permutation test's, ``corrected_p``: for the number of comparisons; None: no test
    was made, because all values are the same or there are too few.
    """

    figure: str
    mode: str
    verdict: Verdict
    p: float | None
    corrected_p: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """What the other methods find, over the trials, milliseconds.

    See the same names of :class:`Failover`, :class:`Convergence` and :class:`Recovery`.
    """

    plbm_ms: Spread | None
    tblm_ms: Spread | None
    reset_ms: Spread | None
    first_route_ms: Spread | None
    full_ms: Spread | None
    programmed_ms: Spread | None
    recovered_ms: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayRow:
    """Delay over the trials, milliseconds."""

    median_ms: Spread | None
    p99_ms: Spread | None
    pdv_ms: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the summary: one mode, scenario, place and kind of traffic, over all trials."""

    mode: str
    scenario: str
    node: str
    traffic: str
    trials: int
    offered_pps: float | None
    sent: int | None
    received: int | None
    lost: int | None
    duplicated: int | None
    reordered: int | None
    failover_packet_loss: Spread | None
    failover_time_ms: Spread | None
    restart_to_synced_ms: Spread | None
    tcp: TcpRow | None
    accuracy_ms: float | None
    valid: bool
    modelled_share: ModelledShare | None = None
    unexplained: int | None = None
    methods: Methods | None = None
    delay_ms: DelayRow | None = None
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpFlowResult:
    """One UDP flow in one trial; see :class:`kproxy.traffic.accounting.FlowAccount`."""

    flow: int
    sent: int
    received: int
    lost: int
    late: int
    duplicated: int
    reordered: int
    not_sent: int
    loss_periods: int
    pod_before: str
    pod_after: str
    recovered: bool
    failover_packet_loss: int
    failover_time_ms: float | None
    loss_derived_ms: float
    accuracy_ms: float
    agrees: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpResult:
    """TCP in one trial. ``outcomes`` counts each; ``connect_samples_ms`` are all connect times.

    Under the virtual clock there are none: the data path takes no time there. ``stalled`` counts
    what succeeded, but took so long that the kernel must have sent again (null in format 1).
    """

    attempted: int
    failed: int
    reset: int
    reestablished: int
    outcomes: dict[str, int]
    connect_samples_ms: tuple[float, ...]
    stalled: int | None = None


class Cause(StrEnum):
    """Why a packet was lost. Each has a test that loses a known number of packets of it."""

    LINK = "dropped on a link"
    QUEUE = "dropped by a queue"
    NO_ROUTE = "no route"
    NO_NEIGHBOUR = "neighbour does not answer"
    REFUSED = "refused"
    RULE = "dropped by a rule"
    NO_DESTINATION = "no destination"
    GONE_DESTINATION = "destination is gone"
    CONNTRACK_FULL = "connection table full"
    CONNTRACK_INVALID = "invalid for connection tracking"
    CONNTRACK_STALE = "stale connection entry"
    NOT_FORWARDED = "not forwarded"
    WRONG_BACKEND = "delivered to a wrong backend"
    DEAD_BACKEND = "delivered to a dead backend"
    RECEIVER = "receiver's socket overflowed"
    LATE = "came too late"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Where so many packets of a measurement were lost, why, and by which counter that is known.

    ``place``: a host of the lab, or ``A>B`` for the link from A to B. ``direction``: ``there``, or
    ``back`` for replies. The sum over a measurement's losses is its ``lost``.
    """

    place: str
    cause: Cause
    packets: int
    direction: str = "there"
    witness: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Packets over time for one service: element i is of the time from ``start_ms + i * step_ms``.

    Milliseconds after the fault (or after the first packet, without one), by time of sending.
    ``step_ms`` is the packet sampling interval of RFC 6412.
    """

    service: str
    start_ms: float
    step_ms: Annotated[float, msgspec.Meta(gt=0)]
    sent: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderQuality:
    """The tester's own errors (RFC 6201 and irtt both ask for them); lateness in milliseconds.

    What is None is not known: the sender did not say, or the file is of format 1.
    """

    late: int = 0
    late_threshold_ms: float = 1.0
    lateness_p50_ms: float = 0.0
    lateness_p99_ms: float = 0.0
    lateness_max_ms: float = 0.0
    failed: int = 0
    not_sent: int = 0
    largest_gap_ms: float = 0.0
    receiver_drops: int = 0
    clock_error_ms: float = 0.0
    timer_error_p99_ms: float | None = None
    timer_error_max_ms: float | None = None
    longest_send_call_ms: float | None = None
    steal_ms: float | None = None
    backlog_drops: int | None = None
    realtime_refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One kind of traffic from one place in one trial.

    ``failover_time_ms`` is null while ``recovered`` is false. ``affected_flows`` is the number
    of flows with impaired packets and ``affected_pps`` their offered rate. ``modelled_ms`` is how
    much of the failover time the proxy of that node and the controllers spent in declared delays;
    null without a cost model. ``outside_fault`` are losses that the fault cannot explain,
    ``unexplained`` those without a place and a cause; null: nobody has looked for these.
    """

    node: str
    traffic: str
    offered_pps: float | None = None
    sent: int | None = None
    received: int | None = None
    lost: int | None = None
    late: int | None = None
    duplicated: int | None = None
    reordered: int | None = None
    discarded: int | None = None
    strangers: int | None = None
    outside_fault: int | None = None
    unexplained: int | None = None
    affected_flows: int | None = None
    affected_pps: float | None = None
    recovered: bool = True
    failover_packet_loss: int | None = None
    failover_time_ms: float | None = None
    loss_derived_ms: float | None = None
    reset_time_ms: float | None = None
    first_good_ms: float | None = None
    accuracy_ms: float | None = None
    modelled_ms: float | None = None
    flows: tuple[UdpFlowResult, ...] = ()
    losses: tuple[Loss, ...] = ()
    series: tuple[Series, ...] = ()
    failover: Failover | None = None
    reset: Figure | None = None
    convergence: Convergence | None = None
    services: tuple[ServiceResult, ...] = ()
    loss_pattern: LossPattern | None = None
    delay: Delay | None = None
    recovery: Recovery | None = None
    tcp: TcpResult | None = None
    sender: SenderQuality | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEvent:
    """Something that happened, in milliseconds after the fault (before it: negative).

    Names that the lab uses: ``fault``, ``process gone``, ``process started``, ``lock released``,
    ``lock held``, ``synced``, ``endpoint gone``, ``first good packet``.
    """

    name: str
    ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial. ``problems`` says, in words, why it is not valid; empty if it is.

    ``restart_to_synced_ms`` is negative if the successor had synced before its predecessor ended.
    ``modelled_ms`` are the declared delays of the hit node's proxies and of the controllers from
    the fault (from the end of the old proxy, if it ended) to ``synced``; null without a cost model
    or these events.
    """

    mode: str
    scenario: str
    number: int
    timeline: tuple[TimelineEvent, ...] = ()
    restart_to_synced_ms: float | None = None
    modelled_ms: float | None = None
    measurements: tuple[Measurement, ...] = ()
    switch: Switch | None = None
    problems: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether nothing speaks against counting this trial."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSet:
    """A whole result file."""

    kernel: dict[str, Any]
    host: dict[str, Any]
    parameters: dict[str, Any]
    trials: tuple[Trial, ...]
    summary: tuple[Row, ...]
    format: str = field(default=FORMAT)


def write(results: ResultSet, path: Path) -> None:
    """Write the file; it appears whole or not at all. The directory is made if it is missing."""
    resultfile.write(results, path)


def read(path: Path) -> ResultSet:
    """Read a result file, also one of format 1.

    Raises :class:`~kproxy.errors.UsageError` for a file that is missing, cut, of another format
    or of a newer version, or whose fields have wrong types; it names the field.
    """
    return resultfile.read(path, ResultSet, FORMAT)
