"""The main job, on a kernel with IPVS: what a restart costs is measured and adds up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.lab import modes, scenarios
from kproxy.traffic import resultset
from kproxy.traffic.summary import summarise

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
COMPARE = (sys.executable, "-m", "kproxy", "compare", "--kernel", "native")
ALL = tuple(scenarios.SCENARIOS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> resultset.ResultSet:
    out = tmp_path_factory.mktemp("results")
    done = subprocess.run(
        [*COMPARE, "--trials", "1", "--out", str(out), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = (out / "result.json").read_text()
    assert json.loads(done.stdout) == json.loads(written)
    return resultset.read(out / "result.json")


@pytest.fixture(params=modes.MODES)
def mode(request: pytest.FixtureRequest, results: resultset.ResultSet) -> str:
    """Return a mode that was compared; those that the kernel lacks are left out by then."""
    if request.param not in results.parameters["modes"]:
        pytest.skip(f"not on this kernel: {results.parameters['left_out']}")
    return str(request.param)


def trial(results: resultset.ResultSet, mode: str, scenario: str) -> resultset.Trial:
    (found,) = [t for t in results.trials if (t.mode, t.scenario) == (mode, scenario)]
    return found


def packets(one: resultset.Trial, node: str) -> resultset.Measurement:
    (found,) = [m for m in one.measurements if (m.traffic, m.node) == ("udp", node)]
    return found


def test_every_scenario_was_tried_in_every_mode_and_is_valid(
    results: resultset.ResultSet,
) -> None:
    rows = {(row.mode, row.scenario, row.node, row.traffic) for row in results.summary}
    assert rows == {
        (mode, scenario, node, traffic)
        for mode in results.parameters["modes"]
        for scenario in ALL
        for node in ("hit", "other")
        for traffic in ("udp", "tcp-established", "tcp-connect")
    }
    assert {*results.parameters["modes"]} >= {"ipvs", "iptables"}
    assert [trial.problems for trial in results.trials if trial.problems] == []
    assert all(row.valid for row in results.summary)


@pytest.mark.parametrize(
    "scenario", [name for name, one in scenarios.SCENARIOS.items() if one.lossless]
)
def test_restarts_lose_nothing_because_the_kernel_goes_on(
    results: resultset.ResultSet, mode: str, scenario: str
) -> None:
    for node in ("hit", "other"):
        found = packets(trial(results, mode, scenario), node)
        assert found.sent
        assert found.sent > 1000
        assert (found.lost, found.received) == (0, found.sent)
    # The packets' flows are older than the fault; new connections need the rules themselves.
    for found in trial(results, mode, scenario).measurements:
        if found.tcp is not None:
            assert found.tcp.attempted
            assert found.tcp.outcomes == {"ok": found.tcp.attempted}


@pytest.mark.parametrize("scenario", ["endpoint-crash", "endpoint-crash-while-proxy-down"])
def test_only_flows_of_the_dead_endpoint_lose_and_their_times_agree(
    results: resultset.ResultSet, mode: str, scenario: str
) -> None:
    one = trial(results, mode, scenario)
    (dead,) = [e.detail for e in one.timeline if e.name == scenarios.ENDPOINT_GONE]
    for node in ("hit", "other"):
        found = packets(one, node)
        affected = [flow for flow in found.flows if flow.lost]
        assert {flow.pod_before for flow in affected} <= {f"shop/{dead}"}
        # In these modes an endpoint is out of service within 2 ms, less than a flow's interval;
        # while no proxy runs, and where a sync takes 20 ms, somebody loses.
        quick = mode != "iptables" and (node, scenario) != (
            "hit",
            "endpoint-crash-while-proxy-down",
        )
        assert affected or quick
        assert all(flow.recovered and flow.agrees for flow in affected)
        assert all(flow.pod_after != f"shop/{dead}" for flow in affected)


def test_every_loss_has_a_place_a_cause_and_a_witness(results: resultset.ResultSet) -> None:
    for one in results.trials:
        for found in one.measurements:
            lost = found.tcp.failed if found.tcp is not None else found.lost
            assert sum(loss.packets for loss in found.losses) == lost
            assert found.unexplained == 0
            assert all(loss.place and loss.witness for loss in found.losses)
            if found.traffic == "udp" and one.scenario == "endpoint-crash-while-proxy-down":
                causes = {loss.cause for loss in found.losses}
                assert causes <= {resultset.Cause.DEAD_BACKEND}
                assert all("drop monitor" in loss.witness for loss in found.losses)


def test_loss_ends_only_after_the_restarted_proxy_has_synced(
    results: resultset.ResultSet, mode: str
) -> None:
    one = trial(results, mode, "endpoint-crash-while-proxy-down")
    (synced,) = [
        event.ms
        for event in one.timeline
        if event.name == f"{scenarios.SYNCED} without the endpoint" and event.detail == "node1"
    ]
    hit = packets(one, "hit")
    assert hit.lost
    assert hit.failover_time_ms is not None
    assert hit.first_good_ms is not None
    assert hit.accuracy_ms is not None
    # "synced" is logged after the kernel's last acknowledgement, so a packet that is already on
    # its way may get through a little earlier; the log line is at most one packet interval late.
    assert hit.first_good_ms >= synced - hit.accuracy_ms
    assert hit.failover_time_ms >= synced - hit.accuracy_ms


@pytest.mark.parametrize("scenario", ["endpoint-crash", "endpoint-crash-while-proxy-down"])
def test_event_kernel_and_data_plane_are_told_on_one_clock(
    results: resultset.ResultSet, mode: str, scenario: str
) -> None:
    for node in ("hit", "other"):
        found = packets(trial(results, mode, scenario), node)
        assert found.recovery is not None
        assert found.recovery.programmed_ms is not None
        assert found.recovery.event_ms == 0 < found.recovery.programmed_ms
        assert (found.recovery.recovered_ms is not None) == bool(found.lost)
        assert found.failover is not None
        for figure in (found.failover.tbm_ms, found.failover.plbm_ms, found.failover.tblm_ms):
            assert figure.low_ms <= figure.ms <= figure.high_ms
        assert found.convergence is not None
        if not found.lost:
            continue
        assert found.recovery.recovered_ms is not None
        assert found.convergence.full_ms is not None
        # The log line of a sync is written after the kernel's last acknowledgement of it, and a
        # packet that is on its way by then may get through a little earlier.
        assert found.recovery.programmed_ms <= found.recovery.recovered_ms.high_ms + 5
        step = found.convergence.sampling_interval_ms
        # Both tell when the last packets were lost: one by the packets, one by the interval.
        assert abs(found.convergence.full_ms.ms - found.recovery.recovered_ms.low_ms) <= 2 * step
        assert sum(one.lost for one in found.services) == found.lost
        assert sum(sum(one.lost) for one in found.series) == found.lost
        assert sum(sum(one.sent) for one in found.series) == found.sent


def test_the_time_line_is_in_order(results: resultset.ResultSet, mode: str) -> None:
    one = trial(results, mode, "proxy-crash")
    at = {event.name: event.ms for event in one.timeline}
    assert 0 == at["fault"] <= at["process gone"] <= at["process started"] < at["synced"]
    assert one.restart_to_synced_ms == pytest.approx(
        at["synced"] - at["process gone"], abs=0.002
    )  # each was rounded to microseconds


def test_the_summary_can_be_computed_again_from_the_trials(
    results: resultset.ResultSet,
) -> None:
    assert summarise(results.trials) == results.summary


def test_a_users_manifests_are_measured(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MANIFESTS)
    command = [*COMPARE, "-f", str(path), "--modes", "ipvs", "--scenario", "baseline"]
    command += ["--trials", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    # The object with a mistake is left out and named; the rest is measured.
    assert done.returncode == 2
    assert "Service default/broken" in done.stderr
    assert "spec.ports[0].port: 70000 is out of range" in done.stderr
    result = resultset.read(tmp_path / "out" / "result.json")
    udp = [row for row in result.summary if row.traffic == "udp"]
    assert [row.lost for row in udp] == [0, 0]
    assert all(row.sent for row in udp)


MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers: [{name: api, image: example.com/api}]
---
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports: [{port: 443, targetPort: 8443}]
---
apiVersion: v1
kind: Service
metadata: {name: broken}
spec:
  selector: {app: api}
  ports: [{port: 70000}]
"""
