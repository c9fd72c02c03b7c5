"""The ways to change a node's mode: what is done in which order, and what is marked."""

from collections.abc import Sequence

import pytest
from recording_stage import RecordingStage

from kproxy import errors
from kproxy.lab import scenarios, switching


class SwitchingStage(RecordingStage):
    new = "nftables"

    def look(self) -> None:
        self._act("look")

    def assign(self, node: str, mode: str) -> None:
        self._act(f"assign {mode or 'none'} to {node}")

    def clean(self, node: str, spared: str) -> int:
        return self._act(f"clean {node} but for {spared or 'nothing'}")

    def drain(self, node: str) -> None:
        self._act(f"drain {node}")

    def admit(self, node: str) -> None:
        self._act(f"admit {node}")


def run(way: str) -> SwitchingStage:
    stage = SwitchingStage()
    switching.WAYS[f"{switching.NAME}-{way}"].run(stage)
    return stage


REPLACED = (
    "assign none to node1",
    "await exit node1",
    "clean node1 but for nothing",
    "assign nftables to node1",
    "await restart node1",
)


@pytest.mark.parametrize(
    ("way", "acts"),
    [
        (
            "new-first",
            (
                "assign nftables to node1",
                "await exit node1",
                "await restart node1",
                "clean node1 but for nftables",
            ),
        ),
        ("clean-first", REPLACED),
        ("drained", ("drain node1", *REPLACED, "admit node1")),
    ],
)
def test_each_way_has_its_order_and_looks_before_it_begins(way: str, acts: Sequence[str]) -> None:
    stage = run(way)
    assert stage.acts == ["look", *acts]


def test_what_happened_is_marked_in_its_order() -> None:
    names = {way: [name for name, _, _ in run(way).marks] for way in ("new-first", "clean-first")}
    gone, started, synced = (
        scenarios.PROCESS_GONE,
        scenarios.PROCESS_STARTED,
        scenarios.SYNCED,
    )
    assert names["new-first"] == [scenarios.FAULT, gone, started, synced, switching.CLEANED]
    assert names["clean-first"] == [scenarios.FAULT, gone, switching.CLEANED, started, synced]


def test_the_name_of_all_ways_stands_for_each() -> None:
    assert switching.expanded(["baseline", "mode-switch"]) == ("baseline", *switching.WAYS)
    assert switching.expanded(["mode-switch", "mode-switch-drained"]) == tuple(switching.WAYS)
    assert switching.way("mode-switch-new-first") == "new-first"


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(errors.UsageError, match="proxy-nap") as told:
        switching.expanded(["proxy-nap"])
    assert "proxy-crash" in str(told.value)
    assert "mode-switch" in str(told.value)


def test_each_way_has_one_line_for_users() -> None:
    for scenario in switching.WAYS.values():
        assert scenario.summary.endswith(".")
        assert not scenario.lossless
