"""``kproxy bench traffic``: which rate this machine can offer and count without losing a packet.

One client sends through a node with an IPVS virtual server to two pods; every packet is counted.
A comparison is worth nothing at a rate at which the generator or the receivers fail by themselves.
"""

import dataclasses
import functools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kproxy.cli.kernel_option import KernelChoice, lab_options, run_on_kernel
from kproxy.errors import UsageError
from netns.kernels import base

if TYPE_CHECKING:
    from kproxy.lab import trafficbench
    from kproxy.traffic import declared

VIRTUAL_PPS = 20_000.0
"""The rate of a run in virtual time, where every rate can be held."""
DECLARED_PPS = 1000.0
_PEER_SECONDS = 1.0
_BELOW_FOUND = 0.98
"""A rate that held for half a second is not taken to its edge for many."""
_STEP_DOWN = 0.93
_FINAL_RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was offered, sent and counted. ``held``: the rate was offered and nothing was lost.

    ``pps`` is ``achieved_pps``. ``calibrated_pps``: the highest rate that was held for half a
    second; None if a rate was asked for. Peers: ``scapy_sendp_pps`` with a call for each packet,
    ``scapy_sendp_list_pps`` with one for many, ``limit_pps`` a plain program around sendmmsg;
    ``ratio`` is pps by the first. Under the virtual clock packets cost no time: there is no
    ``delay_ms``, and there are no peers.
    """

    clock: base.Clock
    seed: int | None
    offered_pps: float
    achieved_pps: float
    pps: float
    sent: int
    received: int
    lost: int
    held: bool
    unexplained: int
    duplicated: int
    reordered: int
    not_sent: int
    failed: int
    receiver_drops: int
    losses: tuple[dict[str, Any], ...]
    lateness_ms: dict[str, float]
    timer_error_ms: dict[str, float]
    delay_ms: dict[str, float] | None
    steal_ms: float
    realtime_refused: str
    reason: str
    calibrated_pps: float | None = None
    scapy_sendp_pps: float | None = None
    scapy_sendp_list_pps: float | None = None
    limit_pps: float | None = None
    ratio: float | None = None

    def text(self) -> str:
        """Return it in words."""
        if self.clock is base.Clock.VIRTUAL:  # every rate can be held there
            good, bad = "every packet was counted", "NOT every packet was counted"
        else:
            good, bad = "the rate is held, nothing is lost", "NOT held"
        seed = "" if self.seed is None else f"; seed {self.seed}"
        return (
            f"offered {self.offered_pps:,.0f} packets/s, sent {self.achieved_pps:,.0f} packets/s: "
            f"{self.sent:,} sent, {self.received:,} received, {self.lost:,} lost "
            f"({self.unexplained:,} unexplained)\n"
            f"{_spread('lateness of sending', self.lateness_ms)}\n"
            f"{_spread('error of the timer', self.timer_error_ms)}\n"
            f"{self._peers()}"
            f"{good if self.held else f'{bad}: {self.reason}'}\n"
            f"clock: {self.clock}{seed}"
        )

    def _peers(self) -> str:
        if self.limit_pps is None or self.ratio is None:
            return ""
        found = "" if self.calibrated_pps is None else (
            f"held for half a second: up to {self.calibrated_pps:,.0f} packets/s\n"
        )  # fmt: skip
        return (
            f"{found}"
            f"scapy's sendp: {self.scapy_sendp_pps:,.0f} packets/s with a call for each, "
            f"{self.scapy_sendp_list_pps:,.0f} with one for many; this is {self.ratio:,.0f} times "
            f"as fast as the first\n"
            f"a plain program around sendmmsg, which does not count: "
            f"{self.limit_pps:,.0f} packets/s\n"
        )


def _spread(what: str, ms: dict[str, float]) -> str:
    return f"{what} p50 {ms['p50']:.3f} ms, p99 {ms['p99']:.3f} ms, max {ms['max']:.3f} ms"


@click.command()
@click.option(
    "--rate", type=click.FloatRange(1, 10_000_000), default=None,
    help="Packets per second, all flows together. [default: the highest that is held; "
    "20000 in virtual time]",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=5, show_default=True,
    help="How long to send.",
)  # fmt: skip
@click.option(
    "--packets", "kept", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Leave the fate of every packet in this file, a compressed .npz (docs/records.md).",
)  # fmt: skip
@click.option(
    "--profile", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Send the traffic that this YAML file declares instead (docs/traffic.md).",
)  # fmt: skip
@click.option(
    "--packet", default=None,
    help="Send this packet, in scapy's words, instead: IP(dst='10.96.0.10')/TCP(dport=8080, "
    "flags='S').",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@functools.partial(lab_options, clock=base.Clock.REAL)
def traffic(
    rate: float | None,
    seconds: float,
    kept: Path | None,
    profile: Path | None,
    packet: str | None,
    as_json: bool,
    kernel: KernelChoice,
) -> int:
    """Send UDP through IPVS at a rate, and count every packet.

    Without --rate the highest rate that this machine holds is looked for. What scapy does by
    itself, and a plain program around sendmmsg, are measured beside it.

    In real time, unless --clock says otherwise: in virtual time every rate can be held, and
    what is shown is how exact the sender is and that every packet is counted. Exit code 1 if the
    rate could not be held or a packet was lost.
    """
    if not math.isfinite(rate or 1) or not math.isfinite(seconds):
        raise UsageError("--rate and --seconds must be numbers", remedy="for example --rate 20000")
    wanted = _declared(profile, packet, rate)
    if kept is not None:
        if wanted:
            raise UsageError("--packets: not with --profile or --packet, which send several kinds")
        kept = kept.absolute()
        if not kept.parent.is_dir():
            raise UsageError(f"--packets {kept}: there is no directory {kept.parent}")
    run_on_kernel(
        kernel,
        writable=[] if kept is None else [kept.parent],
    )
    if wanted:
        return _played(wanted, seconds, as_json)
    outcome = measure(rate, seconds, kept)
    click.echo(json.dumps(asdict(outcome)) if as_json else outcome.text())
    return 0 if outcome.held else 1


def _declared(
    profile: Path | None, packet: str | None, rate: float | None
) -> tuple["declared.Traffic", ...]:
    """Return the traffic that was asked for instead of the bench's own; wrong ones are refused."""
    if profile is None and packet is None:
        return ()
    if profile is not None and (packet is not None or rate is not None):
        raise UsageError("--profile: says what is sent, and at which rate; give it alone")
    from kproxy.traffic import crafted, declared

    if profile is not None:
        wanted = declared.read(profile)
        for number, one in enumerate(wanted):
            if one.packet:
                crafted.parse(one.packet, f"{profile}: traffic[{number}]: packet")
        return wanted
    assert packet is not None
    crafted.parse(packet)
    fields = {"kind": "packet", "packet": packet, "rate": rate or DECLARED_PPS}
    return (declared.one(fields, "--packet"),)


def _played(wanted: tuple["declared.Traffic", ...], seconds: float, as_json: bool) -> int:
    from kproxy.lab import trafficbench, trafficplay

    rates = [one.rate for one in wanted if one.kind.protocol is None]
    with trafficbench.opened(int(sum(rates) * seconds), max(rates, default=1.0)) as bench:
        found = trafficplay.play(bench, wanted, seconds)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
    else:
        for one in found:
            click.echo(one.text())
    return 1 if any(one.reason for one in found) else 0


def measure(rate: float | None, seconds: float, kept: Path | None = None) -> Outcome:
    """Lay a small lab, send, count, take the lab away; ``kept``: leave the packets there."""
    from kproxy.lab import trafficbench

    virtual = base.clock() is base.Clock.VIRTUAL
    if virtual and rate is None:
        rate = VIRTUAL_PPS
    most = trafficbench.MOST_PPS if rate is None else rate
    buffered = trafficbench.SEARCHING_PPS if rate is None else rate
    with trafficbench.opened(int(most * seconds), buffered) as bench:
        if rate is None:
            outcome = _highest(bench, seconds)
        else:
            outcome = outcome_of(bench.run(rate, seconds))
        if kept is not None:
            bench.keep(kept)
        return outcome if virtual else _beside_peers(bench, outcome)


def _highest(bench: "trafficbench.Bench", seconds: float) -> Outcome:
    """Find the highest rate, and hold it, or one not much below it."""
    from kproxy.lab import trafficbench
    from kproxy.traffic import calibration

    found = calibration.highest(bench.attempt, trafficbench.MOST_PPS)
    rate = found.pps * _BELOW_FOUND
    outcome = outcome_of(bench.run(max(rate, 1.0), seconds))
    for _ in range(_FINAL_RUNS - 1):
        if outcome.held:
            break
        rate *= _STEP_DOWN
        outcome = outcome_of(bench.run(max(rate, 1.0), seconds))
    return dataclasses.replace(outcome, calibrated_pps=found.pps)


def _beside_peers(bench: "trafficbench.Bench", outcome: Outcome) -> Outcome:
    sendp = bench.peer("sendp", _PEER_SECONDS)
    return dataclasses.replace(
        outcome,
        scapy_sendp_pps=round(sendp, 1),
        scapy_sendp_list_pps=round(bench.peer("sendp-list", _PEER_SECONDS), 1),
        limit_pps=round(bench.peer("sendmmsg", _PEER_SECONDS), 1),
        ratio=round(outcome.pps / sendp, 1),
    )


def outcome_of(run: "trafficbench.Run") -> Outcome:
    """Return what is told of a run."""
    report, total = run.report, run.account.total
    reason = run.why_not()
    achieved = round(report["achieved_pps"], 1)
    return Outcome(
        clock=base.clock(),
        seed=base.seed(),
        offered_pps=report["offered_pps"],
        achieved_pps=achieved,
        pps=achieved,
        sent=total("sent"),
        received=total("received"),
        lost=total("lost"),
        held=not reason,
        unexplained=run.unexplained,
        duplicated=total("duplicated"),
        reordered=total("reordered"),
        not_sent=total("not_sent"),
        failed=total("failed"),
        receiver_drops=run.receiver_drops,
        losses=tuple(asdict(loss) for loss in run.losses),
        lateness_ms=_rounded(report["lateness_ms"]),
        timer_error_ms=_rounded(report["timer_error_ms"]),
        delay_ms=None if base.clock() is base.Clock.VIRTUAL else _delays(run),
        steal_ms=report["steal_ms"],
        realtime_refused=report["realtime_refused"],
        reason=reason,
    )


def _rounded(ms: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in ms.items()}


def _delays(run: "trafficbench.Run") -> dict[str, float]:
    """Return percentiles of the delay; 0 if nothing arrived."""
    from kproxy.traffic import delay

    found = delay.delay(run.account.delays_us, 0)
    if found is None:
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    return {"p50": found.median_ms, "p99": found.p99_ms, "max": found.max_ms}
