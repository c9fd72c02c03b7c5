"""The bench of traffic: how it tells, by each clock."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kproxy.cli import bench_traffic
from netns.kernels import base

OUTCOME = bench_traffic.Outcome(
    clock=base.Clock.REAL,
    seed=None,
    offered_pps=1000.0,
    achieved_pps=1000.0,
    sent=0,
    received=0,
    lost=0,
    held=True,
    duplicated=0,
    not_sent=0,
    failed=0,
    receiver_drops=0,
    lateness_ms={"p50": 0.1, "p99": 0.2, "max": 0.3},
    delay_ms={"p50": 0.1, "p99": 0.2, "max": 0.3},
    reason="",
)
REPORT: dict[str, Any] = {
    "planned": 0,
    "offered_pps": 1000.0,
    "achieved_pps": 1000.0,
    "failed": {},
    "lateness_ms": {"p50": 0.1, "p99": 0.2, "max": 0.3},
}


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
    monkeypatch.setattr(bench_traffic, "TMAX_NS", 0)
    outcome = bench_traffic._account([], Path("none"), REPORT)
    assert (outcome.clock, outcome.seed) == (clock, 5)
    assert (outcome.delay_ms is None) is (clock is base.Clock.VIRTUAL)
