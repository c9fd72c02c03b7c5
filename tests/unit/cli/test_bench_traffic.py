"""The bench of traffic: how it tells, by each clock."""

import dataclasses
from typing import Any

import pytest

from kproxy.cli import bench_traffic
from kproxy.lab import trafficbench
from kproxy.traffic import accounting
from kproxy.traffic.resultset import Cause, Loss
from netns.kernels import base

SPREAD = {"p50": 0.1, "p99": 0.2, "max": 0.3}
REPORT: dict[str, Any] = {
    "planned": 0,
    "offered_pps": 1000.0,
    "achieved_pps": 1000.0,
    "pace": 1.0,
    "failed": {},
    "lateness_ms": SPREAD,
    "timer_error_ms": SPREAD,
    "steal_ms": 0.0,
    "realtime_refused": "",
}


def run(losses: tuple[Loss, ...] = ()) -> trafficbench.Run:
    plan = accounting.Plan(rate_pps=1000.0, flows=16, watched_until_ns=0)
    account = accounting.Accountant(plan).result()
    return trafficbench.Run(report=REPORT, account=account, losses=losses, receiver_drops=0)


OUTCOME = dataclasses.replace(bench_traffic.outcome_of(run()), clock=base.Clock.REAL, seed=None)


def test_in_real_time_a_rate_is_held() -> None:
    assert OUTCOME.text().endswith("the rate is held, nothing is lost\nclock: real")
    failed = dataclasses.replace(OUTCOME, held=False, reason="7 packets were lost")
    assert "NOT held: 7 packets were lost" in failed.text()


def test_in_virtual_time_packets_are_counted() -> None:
    virtual = dataclasses.replace(OUTCOME, clock=base.Clock.VIRTUAL, seed=1, delay_ms=None)
    assert virtual.text().endswith("every packet was counted\nclock: virtual; seed 1")
    failed = dataclasses.replace(virtual, held=False, reason="7 packets were lost")
    assert "NOT every packet was counted: 7 packets were lost" in failed.text()


@pytest.mark.parametrize("clock", base.Clock)
def test_delays_are_not_told_from_virtual_time(
    monkeypatch: pytest.MonkeyPatch, clock: base.Clock
) -> None:
    monkeypatch.setattr(base, "clock", lambda: clock)
    monkeypatch.setattr(base, "seed", lambda: 5)
    outcome = bench_traffic.outcome_of(run())
    assert (outcome.clock, outcome.seed) == (clock, 5)
    assert (outcome.delay_ms is None) is (clock is base.Clock.VIRTUAL)


def test_what_no_counter_explains_is_told() -> None:
    found = [
        Loss(place="pod1", cause=Cause.RECEIVER, packets=3),
        Loss(place="pod2", cause=Cause.RECEIVER, packets=0),
        Loss(place="node", cause=Cause.LINK, packets=5),
    ]
    said = [(one.place, one.cause, one.packets) for one in trafficbench.explained(9, found)]
    assert said == [
        ("pod1", Cause.RECEIVER, 3),
        ("node", Cause.LINK, 5),
        ("", Cause.UNEXPLAINED, 1),
    ]
    # A counter that counts more than was lost explains no more than was lost.
    assert [one.packets for one in trafficbench.explained(4, found)] == [3, 1]
    assert run(trafficbench.explained(9, found)).unexplained == 1


def test_drops_of_links_are_counted() -> None:
    text = "\n".join(
        (
            "Inter-|   Receive                    |  Transmit",
            " face |bytes packets errs drop fifo frame compressed multicast|bytes packets",
            "    lo: 1 1 9 0 9 9 9 9 1 1 9 0 9 9 9 9",
            "  eth0: 1 1 9 2 9 9 9 9 1 1 9 3 9 9 9 9",
        )
    )
    assert trafficbench.dropped(text) == 5


def test_peers_are_told_beside_it() -> None:
    found = dataclasses.replace(
        OUTCOME,
        achieved_pps=150_000.0,
        scapy_sendp_pps=500.0,
        scapy_sendp_list_pps=1000.0,
        limit_pps=200_000.0,
        ratio=300.0,
    )
    assert "500 packets/s with a call for each" in found.text()
    assert "this is 300 times as fast" in found.text()
    assert "200,000 packets/s" in found.text()
