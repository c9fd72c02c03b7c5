"""A lab whose proxies have a cost model: figures contain it, and say so."""

from importlib import resources
from pathlib import Path

import pytest

from kproxy import costfile, costs
from kproxy.api import manifests
from kproxy.lab import comparison, costmodel, workload

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("iptables-legacy-save")]

START_S = 1.5
SCENARIO = "endpoint-crash-while-proxy-down"


def test_what_is_modelled_is_in_the_times_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = costfile.Entry(
        process=costs.PROXY,
        place=costs.START,
        seconds=costfile.Terms(constant=START_S),
        kernel="none",
        machine="none",
        date="2026-01-02",
    )
    model = tmp_path / "model.json"
    model.write_bytes(costfile.encode(costfile.Model(name="slow", entries=(entry,))))
    monkeypatch.setenv(costs.VARIABLE, "")  # so that it is as before afterwards
    costmodel.apply(model)
    text = resources.files("kproxy.lab").joinpath("examples/shop.yaml").read_text()
    load = workload.prepare(manifests.load_manifests(text)[0])
    results = comparison.run(
        comparison.Parameters(modes=("iptables",), scenarios=(SCENARIO,), trials=1),
        load,
        tmp_path / "lab",
        progress=lambda step: None,
    )
    assert not results.parameters["incomplete"]
    (trial,) = results.trials
    assert trial.restart_to_synced_ms is not None
    assert trial.modelled_ms == pytest.approx(START_S * 1e3)
    assert trial.restart_to_synced_ms >= START_S * 1e3
    hit, other = (
        next(row for row in results.summary if (row.node, row.traffic) == (node, "udp"))
        for node in ("hit", "other")
    )
    assert hit.failover_time_ms is not None
    assert hit.failover_time_ms.median is not None
    assert hit.failover_time_ms.median >= START_S * 1e3
    assert hit.modelled_share is not None
    share = START_S * 1e3 / hit.failover_time_ms.median
    assert hit.modelled_share.failover_time == pytest.approx(share, abs=0.001)
    # The other node's proxy was not restarted, so nothing was paid there.
    assert other.modelled_share is not None
    assert other.modelled_share.failover_time == 0.0
    assert results.parameters["costs"]["name"] == "slow"
