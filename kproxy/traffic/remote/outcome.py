"""From what a run left to numbers: a measurement as in every result file, delays, clocks."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kproxy.traffic import accounting, measurement, resultset
from kproxy.traffic.remote.clockoffset import Clocks
from kproxy.traffic.remote.terms import Taken

SCENARIO = "measure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Times on the way in milliseconds, each ± ``error``: there, or there and back.

    ``error`` is what is not known of the two clocks; the kernel's stamps are better than that.
    """

    round_trip: bool
    packets: int
    min: float
    p50: float
    p99: float
    max: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClocksFound:
    """What is known of the receiver's clock against ours. ``None``: was not to be known."""

    same: bool
    offset_ms: float
    error_ms: float
    drift_ppm: float | None
    drift_error_ppm: float | None
    exchanges: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything about one run. ``problems`` say why it is not to be believed."""

    measurement: resultset.Measurement
    delays: Delays | None
    clocks: ClocksFound
    timeline: tuple[resultset.TimelineEvent, ...]
    problems: tuple[str, ...]
    outcomes: dict[str, int]
    cut: str

    @property
    def lost(self) -> int:
        """How many packets were lost."""
        return self.measurement.lost or 0

    def trial(self, mode: str) -> resultset.Trial:
        """Return it as the one trial of a result file."""
        return resultset.Trial(
            mode=mode,
            scenario=SCENARIO,
            number=1,
            timeline=self.timeline,
            measurements=(self.measurement,),
            problems=self.problems,
        )


def outcome(taken: Taken, place: str, traffic: str) -> Outcome:
    """Account for a run. The first mark is the event to which times are relative."""
    found = taken.received.copy()
    found["received_ns"] = taken.clocks.ours(found["received_ns"])
    plan = accounting.Plan(
        rate_pps=taken.stream.rate_pps,
        flows=taken.stream.flows,
        watched_until_ns=taken.watched_until_ns,
        fault_ns=taken.marks[0].ns if taken.marks else None,
        tmax_ns=round(taken.stream.tmax_s * 1e9),
    )
    pod = taken.state.pod or "server"
    account = accounting.account(taken.sent, {pod: found}, plan)
    measured = measurement.udp(account, node=place, report=taken.report, receivers=[taken.state])
    measured = dataclasses.replace(measured, traffic=traffic)
    return Outcome(
        measurement=measured,
        delays=_delays(taken, found),
        clocks=_clocks(taken.clocks),
        timeline=_timeline(taken),
        problems=_problems(measured, taken),
        outcomes=taken.outcomes,
        cut=taken.cut,
    )


def _delays(taken: Taken, found: NDArray[Any]) -> Delays | None:
    """Return the times of what arrived; of a packet that came twice, the first."""
    if not len(found):
        return None
    _, first = np.unique(found[["flow", "seq"]], return_index=True)
    ns = np.sort(found["received_ns"][first] - found["sent_ns"][first])

    def percentile(percent: float) -> float:
        return float(round(np.percentile(ns, percent, method="inverted_cdf") / 1e6, 6))

    return Delays(
        round_trip=not taken.receiver,
        packets=len(ns),
        min=percentile(0),
        p50=percentile(50),
        p99=percentile(99),
        max=percentile(100),
        error=round(taken.clocks.error_ns / 1e6, 6),
    )


def _clocks(clocks: Clocks) -> ClocksFound:
    drift, error = clocks.drift_ppm, clocks.drift_error_ppm
    return ClocksFound(
        same=clocks.same,
        offset_ms=round(clocks.before.offset_ns / 1e6, 6),
        error_ms=round(clocks.error_ns / 1e6, 6),
        drift_ppm=None if drift is None else round(drift, 3),
        drift_error_ppm=None if error is None else round(error, 3),
        exchanges=clocks.before.exchanges,
    )


def _timeline(taken: Taken) -> tuple[resultset.TimelineEvent, ...]:
    zero = taken.marks[0].ns if taken.marks else taken.started_ns
    events = [("first packet", taken.started_ns), *((one.name, one.ns) for one in taken.marks)]
    return tuple(
        resultset.TimelineEvent(name=name, ms=round((ns - zero) / 1e6, 3)) for name, ns in events
    )


def _problems(measured: resultset.Measurement, taken: Taken) -> tuple[str, ...]:
    """Say what speaks against it. Losses do not: they are what is looked for."""
    quality = measured.sender
    assert quality is not None
    found = []
    if not measured.sent:
        found.append("nothing was sent")
    if quality.failed:
        reasons = ", ".join(f"{number:,} × {why}" for why, number in _failed(taken).items())
        found.append(f"{quality.failed:,} packets could not be sent: {reasons}")
    if measurement.fell_short(measured):
        found.append(f"the sender fell behind: {quality.not_sent:,} packets were not sent")
    if quality.receiver_drops:
        found.append(f"the receiver's socket dropped {quality.receiver_drops:,} packets")
    if measured.strangers:
        found.append(f"{measured.strangers:,} packets came that were not sent")
    return tuple(found)


def _failed(taken: Taken) -> dict[str, Any]:
    return dict(taken.report["failed"])
