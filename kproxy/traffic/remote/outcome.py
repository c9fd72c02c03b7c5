"""From what a run left to numbers: a measurement as in every result file, delays, clocks."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from kproxy.traffic import accounting, measurement, resultset
from kproxy.traffic.remote.clockoffset import Clocks
from kproxy.traffic.remote.terms import Taken

SCENARIO = "measure"
MOST_LATE_MS = 50.0
"""Half of the packets later than that: the sender is behind all the time, not stalled once."""


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
class Arrivals:
    """By whom arrivals were stamped (``software``: the kernel, ``hardware``: the card).

    How exactly these times are known by the receiver's CLOCK_MONOTONIC, and how many packets the
    card has left out, which have the kernel's stamp.
    """

    timestamps: str
    error_ms: float
    unstamped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything about one run. ``problems`` say why it is not to be believed.

    ``round_trip``: the delays of the measurement are there and back. ``arrivals`` is None
    where nobody received, or the receiver's records are lost.
    """

    measurement: resultset.Measurement
    round_trip: bool
    clocks: ClocksFound
    arrivals: Arrivals | None
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
    # What is not known of the other host's clock makes every time on the way less exact.
    error = taken.state.clock_error_ns + taken.clocks.error_ns
    state = taken.state._replace(clock_error_ns=error)
    measured = measurement.udp(account, node=place, report=taken.report, receivers=[state])
    measured = dataclasses.replace(measured, traffic=traffic)
    if taken.gone:
        measured = _half(measured)
    return Outcome(
        measurement=measured,
        round_trip=not taken.receiver,
        clocks=_clocks(taken.clocks),
        arrivals=_arrivals(taken),
        timeline=_timeline(taken),
        problems=_problems(measured, taken),
        outcomes=taken.outcomes,
        cut=taken.cut,
    )


def _half(measured: resultset.Measurement) -> resultset.Measurement:
    """Return what is known without the receiver's records: what was sent, and how well."""
    return resultset.Measurement(
        node=measured.node,
        traffic=measured.traffic,
        offered_pps=measured.offered_pps,
        sent=(measured.sent or 0) + (measured.discarded or 0),
        sender=measured.sender,
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


def _arrivals(taken: Taken) -> Arrivals | None:
    if "unstamped" not in taken.receiver:  # nobody receives, or the receiver is lost
        return None
    return Arrivals(
        timestamps=str(taken.receiver.get("timestamps"))[:40],
        error_ms=round(taken.state.clock_error_ns / 1e6, 6),
        unstamped=int(taken.receiver["unstamped"]),
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
    if taken.gone:
        known = f"{taken.receiver['packets']:,} packets had arrived when it last told"
        found.append(f"the receiver's records are missing: {taken.gone}; {known}")
    if not measured.sent:
        found.append("nothing was sent")
    if quality.failed:
        reasons = ", ".join(f"{number:,} × {why}" for why, number in _failed(taken).items())
        found.append(f"{quality.failed:,} packets could not be sent: {reasons}")
    if measurement.fell_short(measured):
        found.append(f"the sender fell behind: {quality.not_sent:,} packets were not sent")
    if quality.lateness_p50_ms > MOST_LATE_MS:
        late = f"half of the packets by more than {quality.lateness_p50_ms:,.0f} ms"
        found.append(f"the sender does not hold the rate: it sent {late} late")
    if quality.receiver_drops:
        found.append(f"the receiver's socket dropped {quality.receiver_drops:,} packets")
    arrivals = _arrivals(taken)
    if arrivals is not None and arrivals.unstamped:
        found.append(
            f"the receiver's card has not stamped {arrivals.unstamped:,} packets: their times are "
            "the kernel's"
        )
    if measured.strangers:
        found.append(f"{measured.strangers:,} packets came that were not sent")
    return tuple(found)


def _failed(taken: Taken) -> dict[str, Any]:
    return dict(taken.report["failed"])
