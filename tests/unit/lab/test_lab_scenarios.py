"""Scenarios do to a cluster what their names say, in that order, and mark it."""

import pytest
from recording_stage import RecordingStage

from kproxy.lab import scenarios


def run(name: str) -> RecordingStage:
    stage = RecordingStage()
    scenarios.SCENARIOS[name].run(stage)
    return stage


def test_baseline_does_nothing() -> None:
    stage = run("baseline")
    assert (stage.acts, stage.marks) == ([], [])


def test_every_other_scenario_marks_its_fault_first() -> None:
    for name in scenarios.SCENARIOS:
        if name != "baseline":
            assert run(name).marks[0][0] == scenarios.FAULT, name


def test_the_endpoint_is_destroyed_only_after_the_proxy_is_gone() -> None:
    stage = run("endpoint-crash-while-proxy-down")
    assert stage.acts[:3] == ["choose", "kill node1", "destroy web-1"]
    assert "await web-1 removed on node1" in stage.acts
    at = {name: when for name, when, _ in stage.marks}
    assert at[scenarios.PROCESS_GONE] < at[scenarios.ENDPOINT_GONE]


def test_an_endpoint_crash_leaves_the_proxies_alone() -> None:
    stage = run("endpoint-crash")
    assert stage.acts == [
        "choose",
        "destroy web-1",
        "await web-1 removed on node1",
        "await web-1 removed on node2",
    ]


def test_a_rolling_update_follows_every_node_the_hit_one_first() -> None:
    stage = run("proxy-rolling-update")
    assert stage.acts[0] == "update"
    assert [act for act in stage.acts if act.startswith("await restart")] == [
        "await restart node1",
        "await restart node2",
    ]


def test_a_surge_update_marks_who_held_the_lock_when() -> None:
    stage = run("proxy-surge-update")
    assert stage.acts[0] == "surge"
    names = [name for name, _, node in stage.marks if node == "node1"]
    assert names == ["process started", "lock released", "lock held", "synced", "process gone"]
    assert {node for _, _, node in stage.marks} == {"", "node1", "node2"}


@pytest.mark.parametrize("name", ["proxy-crash", "proxy-delete"])
def test_a_restart_is_marked_gone_started_synced(name: str) -> None:
    names = [name for name, _, _ in run(name).marks]
    assert names == ["fault", "process gone", "process started", "synced"]


def test_a_pulled_cable_is_plugged_in_again_and_both_are_noticed() -> None:
    stage = run("cable-pull")
    assert stage.acts == ["pull node1", "pause", "plug node1"]
    assert [name for name, _, _ in stage.marks] == [
        "fault",
        "carrier lost",
        "cable plugged in",
        "carrier back",
    ]


def test_an_upgrade_gives_every_node_another_version() -> None:
    stage = run("proxy-upgrade")
    assert stage.acts[0] == "upgrade"
    assert [node for name, _, node in stage.marks if name == scenarios.SYNCED] == [
        "node1",
        "node2",
    ]


def test_each_scenario_has_one_line_for_users() -> None:
    for scenario in scenarios.SCENARIOS.values():
        assert scenario.summary.endswith((".", ":")) or ";" in scenario.summary
        assert "\n" not in scenario.summary
