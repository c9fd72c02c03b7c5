"""An emulated network card (e1000e) is told to stamp arrivals, and its clock is read.

QEMU's card takes the setting and has a clock, but stamps no packet: that cannot be tested.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import virtual_machine
from virtual_machine import Machine, Nic

from netns.kernels import base

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots a virtual machine"),
    pytest.mark.skipif(
        virtual_machine.why_not() is not None, reason=str(virtual_machine.why_not())
    ),
]
GUEST = Path(__file__).with_name("vm_stamps.py")
PATIENCE = 560.0
HOUR = 3600


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the guest's script has said."""
    lines: list[str] = []
    command = ["env", f"PYTHONPATH={GUEST.parents[2]}", sys.executable, str(GUEST)]
    place = tmp_path_factory.mktemp("vm")
    with Machine(command, [Nic("e1000e", 1)], ("e1000e",), place) as machine:
        assert machine.run(PATIENCE, lines.append) == 0, lines
    # The firmware says something without ending its line.
    said: dict[str, Any] = json.loads(lines[-1][lines[-1].index("{") :])
    return said


def test_a_card_is_told_to_stamp_and_told_otherwise_at_the_end(found: dict[str, Any]) -> None:
    off, all_packets = [0, 0, 0], [0, 0, 1]
    assert (found["driver"], found["obstacle"], found["before"]) == ("e1000e", "", off)
    assert (found["meanwhile"], found["after"]) == (all_packets, off)


def test_it_is_told_otherwise_also_when_who_told_it_is_killed(found: dict[str, Any]) -> None:
    assert found["killed"] == [[0, 0, 1], [0, 0, 0]]


def test_the_cards_clock_is_read_by_both_requests(found: dict[str, Any]) -> None:
    """Its driver has set it to the time of day; in QEMU it hardly runs from then on."""
    newer, older = found["clocks"]
    assert (newer[0], older[0]) == (True, False)
    for _, behind, error in (newer, older):
        assert abs(behind) < HOUR
        assert error > 0
