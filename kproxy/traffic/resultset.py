"""The result file: what was measured, raw and summed up, in one versioned JSON object.

``docs/measuring.md`` describes every field. Reports read this file and nothing else, so it holds
enough to compute its summary again (:mod:`kproxy.traffic.summary`). Times are milliseconds,
rates per second; a field that does not apply is null.
"""

import os
import tempfile
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kproxy.errors import UsageError

FORMAT = "kproxy.result/1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Over the trials. None: a trial had no value, it never recovered while it was watched."""

    median: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectMs:
    """Connect time of the connections that were made, milliseconds; None without any."""

    p50: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRow:
    """TCP requests or connections: ``failed`` includes ``reset``."""

    attempted: int
    failed: int
    reset: int
    connect_ms: ConnectMs


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledShare:
    """How much of a time comes from the cost model, 0 to 1: the median over the trials.

    None: there is no such time.
    """

    failover_time: float | None
    restart_to_synced: float | None


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

    Under the virtual clock there are none: the data path takes no time there.
    """

    attempted: int
    failed: int
    reset: int
    reestablished: int
    outcomes: dict[str, int]
    connect_samples_ms: tuple[float, ...]


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
    step_ms: float
    sent: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderQuality:
    """The tester's own errors (RFC 6201 and irtt both ask for them); lateness in milliseconds."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One kind of traffic from one place in one trial.

    ``failover_time_ms`` is null while ``recovered`` is false. ``affected_flows`` is the number
    of flows with impaired packets and ``affected_pps`` their offered rate. ``modelled_ms`` is how
    much of the failover time the proxy of that node and the controllers spent in declared delays;
    null without a cost model.
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
    write_as(results, path)


def write_as(results: Any, path: Path) -> None:
    """Write any kind of result file (a dataclass) as :func:`write` does, what matters first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(_ordered(results)), indent=2)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text + b"\n")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _ordered(results: Any) -> dict[str, Any]:
    names = [one.name for one in fields(results)]
    first = ("format", "kernel", "host", "parameters", "summary")
    ordered = sorted(names, key=lambda name: first.index(name) if name in first else len(first))
    return {name: getattr(results, name) for name in ordered}


def read(path: Path) -> ResultSet:
    """Read a result file.

    Raises :class:`~kproxy.errors.UsageError` for a file that is missing, cut, of another format
    or of a newer version, or whose fields have wrong types; it names the field.
    """
    return read_as(path, ResultSet, FORMAT)


def read_as(path: Path, wanted: type[T], form: str) -> T:
    """Read any kind of result file as :func:`read` does; ``form`` is its FAMILY/VERSION."""
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from None
    try:
        top = msgspec.json.decode(data)
    except msgspec.DecodeError as err:
        raise UsageError(f"{path}: cut, or not JSON: {err}", remedy="run again") from None
    _check_format(path, top.get("format") if isinstance(top, dict) else None, form)
    try:
        return msgspec.convert(top, wanted)
    except msgspec.ValidationError as err:
        raise UsageError(f"{path}: {err}") from None


def _check_format(path: Path, found: object, form: str) -> None:
    family, _, version = found.partition("/") if isinstance(found, str) else ("", "", "")
    wanted_family, _, wanted_version = form.partition("/")
    if family != wanted_family:
        raise UsageError(
            f"{path}: format: is {found!r}, not {form!r}", remedy="name a result.json of kproxy"
        )
    if version != wanted_version:
        raise UsageError(
            f"{path}: format: {found!r} is not what this kproxy reads ({form!r})",
            remedy="read it with the kproxy that wrote it",
        )
