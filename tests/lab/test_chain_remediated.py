"""A hung proxy under traffic: seen, told, repaired and verified, each by its own record."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.lab import costmodel
from kproxy.lab.chain import run, settings
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_module("ip_vs"),
    pytest.mark.needs_tool("prometheus", "prometheus-alertmanager"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]
WITHIN_MS = 10_000.0
"""On the lab's clock, which no load of the machine disturbs."""


@pytest.fixture(autouse=True)
def costs() -> Iterator[None]:
    """Starting a proxy takes its time, as everywhere."""
    costmodel.apply(costmodel.resolve(None, costmodel.VIRTUAL))
    yield
    costmodel.apply(None)


def test_a_hung_proxy_is_repaired_and_that_is_verified_within_ten_seconds(tmp_path: Path) -> None:
    wanted = dataclasses.replace(
        settings.Parameters(), links=("proxy-hung-remediated",), members=0
    )
    found = run.run(wanted, tmp_path / "lab", progress=lambda step: None)
    assert found.parameters["incomplete"] == []
    (trial,) = found.trials
    assert trial.problems == ()
    assert trial.watched is not None
    watched = trial.watched
    assert (watched.alert, watched.action) == ("KproxyProxyUnreachable", "restart-proxy")
    times = [
        watched.seen_ms,
        watched.alert_ms,
        watched.action_ms,
        trial.repair_ms,
        watched.verified_ms,
    ]
    known = [ms for ms in times if ms is not None]
    assert len(known) == len(times)
    assert known == sorted(known)
    assert known[0] > 0
    assert known[-1] < WITHIN_MS
    (row,) = found.summary
    assert row.repaired_by == "remediation, restart-proxy"
    # A backend went while nobody could say so: that was lost, and no more after the repair.
    packets = {one.node: one for one in trial.measurements if one.traffic == "udp"}
    assert packets["hit"].lost
    assert packets["other"].lost == 0
    assert packets["hit"].failover_time_ms is not None
    assert packets["hit"].failover_time_ms < WITHIN_MS
