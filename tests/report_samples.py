"""Results that nobody measured, of which all that a report should say is known."""

import dataclasses
from pathlib import Path

from kproxy.reports.reading import Loaded
from kproxy.traffic import resultset, summary
from kproxy.traffic.resultset import (
    Cause,
    Loss,
    Measurement,
    ResultSet,
    SenderQuality,
    Series,
    TcpResult,
    TimelineEvent,
    Trial,
    UdpFlowResult,
)

SERVICES = ("shop/dns:53", "shop/telemetry:8125")
STEP_MS = 10.0
OUTAGE_MS = {"ipvs": 120, "iptables": 180, "nftables": 90}
MODES = tuple(OUTAGE_MS)


def series(service: str, outage_ms: float) -> Series:
    """Return 3 s of 1,000 packets/s, of which a quarter is lost during the outage."""
    steps = 300
    sent = tuple(10 for _ in range(steps))
    lost = tuple(
        (3, 2)[step % 2] if 0 <= -1000 + step * STEP_MS < outage_ms else 0 for step in range(steps)
    )
    return Series(service=service, start_ms=-1000.0, step_ms=STEP_MS, sent=sent, lost=lost)


def measurement(node: str, outage_ms: float, *, rates: bool = True) -> Measurement:
    both = (series(SERVICES[0], outage_ms), series(SERVICES[1], 0))
    lost = sum(both[0].lost)
    sent = sum(sum(one.sent) for one in both)
    stale = lost // 3
    losses = (
        Loss(
            place="node1>web-1",
            cause=Cause.NO_NEIGHBOUR,
            packets=lost - stale,
            witness="drop monitor: neigh_failed",
        ),
        Loss(place="node1", cause=Cause.CONNTRACK_STALE, packets=stale, witness="conntrack -L"),
    )
    flow = UdpFlowResult(
        flow=65536,
        sent=188,
        received=188 - lost,
        lost=lost,
        late=0,
        duplicated=0,
        reordered=0,
        not_sent=0,
        loss_periods=1,
        pod_before="shop/dns-1",
        pod_after="shop/dns-2",
        recovered=True,
        failover_packet_loss=lost,
        failover_time_ms=outage_ms + 16,
        loss_derived_ms=outage_ms,
        accuracy_ms=32.0,
        agrees=True,
    )
    return Measurement(
        node=node,
        traffic="udp",
        offered_pps=2000.0,
        sent=sent,
        received=sent - lost,
        lost=lost,
        late=0,
        duplicated=0,
        reordered=0,
        affected_flows=1 if lost else 0,
        failover_packet_loss=lost,
        failover_time_ms=outage_ms + 16 if lost else 0.0,
        first_good_ms=outage_ms + 4 if lost else None,
        accuracy_ms=32.0,
        flows=(flow,) if lost else (),
        losses=losses if lost and rates else (),
        unexplained=0 if rates else None,
        series=both if rates else (),
        sender=SenderQuality(late=3, lateness_p99_ms=1.25, lateness_max_ms=4.5),
    )


def tcp(node: str, failed: int) -> Measurement:
    return Measurement(
        node=node,
        traffic="tcp-connect",
        failover_time_ms=0.0,
        tcp=TcpResult(
            attempted=60,
            failed=failed,
            reset=0,
            reestablished=0,
            outcomes={"ok": 60 - failed},
            connect_samples_ms=tuple(0.2 + 0.01 * i for i in range(60 - failed)),
        ),
    )


def trial(mode: str, scenario: str, number: int, *, rates: bool = True) -> Trial:
    outage = OUTAGE_MS[mode] + 20 * number if scenario == "endpoint-crash" else 0
    events = [
        TimelineEvent(name="fault", ms=0.0),
        TimelineEvent(name="process gone", ms=4.6, detail="node1"),
        TimelineEvent(name="process started", ms=40.0 + number, detail="node1"),
        TimelineEvent(name="synced", ms=70.0 + number, detail="node1"),
    ]
    if outage:
        events.append(TimelineEvent(name="first good packet", ms=outage + 4.0, detail="hit"))
    return Trial(
        mode=mode,
        scenario=scenario,
        number=number,
        timeline=() if scenario == "baseline" else tuple(events),
        restart_to_synced_ms=None if scenario == "baseline" else 65.4 + number,
        measurements=(
            measurement("hit", outage, rates=rates),
            measurement("other", 0, rates=rates),
            tcp("hit", 1 if outage else 0),
        ),
    )


def comparison(*, rates: bool = True, trials: int = 3) -> ResultSet:
    """Return a whole comparison; without ``rates`` it says neither when nor where."""
    scenarios = ("baseline", "proxy-crash", "endpoint-crash")
    found = tuple(
        trial(mode, scenario, number, rates=rates)
        for mode in MODES
        for number in range(1, trials + 1)
        for scenario in scenarios
    )
    return ResultSet(
        kernel={"release": "6.12.1", "clock": "virtual", "name": "sample"},
        host={"cpus": 2, "memory_bytes": 1 << 30, "guest": {"cpus": 1}},
        parameters={
            "modes": list(MODES),
            "scenarios": list(scenarios),
            "trials": trials,
            "started": "2026-01-02T03:04:05+00:00",
            "seed": 1,
            "lossless": ["baseline", "proxy-crash"],
            "incomplete": [],
            "rates": {"udp_pps": 2000.0},
        },
        trials=found,
        summary=summary.summarise(found),
    )


def spoiled(results: ResultSet) -> ResultSet:
    """Return a comparison whose last trial is not valid and lost packets nobody can explain."""
    *others, last = results.trials
    hit, *rest = last.measurements
    unknown = Loss(place="", cause=Cause.UNEXPLAINED, packets=7)
    hit = dataclasses.replace(
        hit, lost=(hit.lost or 0) + 7, unexplained=7, losses=(*hit.losses, unknown)
    )
    last = dataclasses.replace(
        last, measurements=(hit, *rest), problems=("udp from hit: receivers dropped 7 packets",)
    )
    trials = (*others, last)
    return dataclasses.replace(results, trials=trials, summary=summary.summarise(trials))


def loaded(results: ResultSet, label: str = "sample") -> Loaded:
    return Loaded(path=Path(f"{label}/result.json"), label=label, results=results)


def written(results: ResultSet, directory: Path) -> Path:
    path = directory / "result.json"
    resultset.write(results, path)
    return path
