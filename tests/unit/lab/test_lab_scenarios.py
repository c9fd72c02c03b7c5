"""Scenarios do to a cluster what their names say, in that order, and mark it."""

import itertools
from collections.abc import Iterator

import pytest

from kproxy import errors
from kproxy.lab import scenarios


class RecordingStage:
    """Notes what a scenario does; its clock advances by one with every act."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.marks: list[tuple[str, int, str]] = []
        self._clock: Iterator[int] = itertools.count(1)

    hit = "node1"
    nodes = ("node1", "node2")

    def _act(self, text: str) -> int:
        self.acts.append(text)
        return next(self._clock)

    def mark(self, name: str, ns: int | None = None, detail: str = "") -> int:
        when = next(self._clock) if ns is None else ns
        self.marks.append((name, when, detail))
        return when

    def kill_proxy(self, node: str) -> tuple[int, int]:
        return self._act(f"kill {node}"), next(self._clock)

    def delete_proxy(self, node: str) -> None:
        self._act(f"delete {node}")

    def await_exit(self, node: str, since: int) -> int:
        return self._act(f"await exit {node}")

    def await_restart(self, node: str, since: int) -> tuple[int, int]:
        return self._act(f"await restart {node}"), next(self._clock)

    def choose_endpoint(self) -> str:
        self.acts.append("choose")
        return "web-1"

    def destroy_endpoint(self, pod: str) -> None:
        self._act(f"destroy {pod}")

    def await_endpoint_removed(self, node: str, pod: str) -> int:
        return self._act(f"await {pod} removed on {node}")

    def await_hand_over(self, node: str, since: int) -> tuple[int, int]:
        return self._act(f"await hand-over {node}"), next(self._clock)

    def update_proxies(self, *, surge: bool) -> None:
        self._act("surge" if surge else "update")


def run(name: str) -> RecordingStage:
    stage = RecordingStage()
    scenarios.by_name(name).run(stage)
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


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(errors.UsageError, match="proxy-crash"):
        scenarios.by_name("proxy-nap")


def test_each_scenario_has_one_line_for_users() -> None:
    for scenario in scenarios.SCENARIOS.values():
        assert scenario.summary.endswith((".", ":")) or ";" in scenario.summary
        assert "\n" not in scenario.summary
