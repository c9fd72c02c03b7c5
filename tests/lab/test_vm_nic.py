"""Emulated network cards (e1000e, virtio) in a virtual machine: taken, unplugged, given back."""

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
GUEST = Path(__file__).with_name("vm_cards.py")
NICS = (Nic("e1000e", 1), Nic("e1000e", 1), Nic("virtio-net-pci", 2), Nic("virtio-net-pci", 2))
MODULES = ("e1000e", "virtio_net", "veth", "macvlan")
FIRST_VIRTIO = 2  # QEMU 7.2 does not tell an e1000e's driver of a link that has gone
PATIENCE = 560.0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Everything that the guest's script has said."""
    found: list[dict[str, Any]] = []
    command = ["env", f"PYTHONPATH={GUEST.parents[2]}", sys.executable, str(GUEST)]
    with Machine(command, NICS, MODULES, tmp_path_factory.mktemp("vm")) as machine:

        def heard(line: str) -> None:
            print(line)
            if line.startswith("{"):
                found.append(json.loads(line))
                if "ask" in found[-1]:
                    machine.plug(FIRST_VIRTIO, connected=found[-1]["ask"] == "plug")

        assert machine.run(PATIENCE, heard) == 0
    return found


def said(told: list[dict[str, Any]], what: str) -> list[Any]:
    return [one[what] for one in told if what in one]


def test_cards_carry_packets_and_tell_what_they_are(told: list[dict[str, Any]]) -> None:
    intel, virtio = said(told, "card")
    assert intel["driver"] == "e1000e"
    assert (intel["speed_mbps"], intel["duplex"]) == (1000, "full")
    assert intel["bus"].startswith("0000:00:")
    assert intel["firmware"]
    assert any("GRO" in each for each in intel["warnings"])
    assert intel["timestamps"]["timestamping"]
    assert virtio["driver"] == "virtio_net"
    assert all(said(told, "interrupts"))


def test_all_is_given_back_after_changes_and_after_a_kill(told: list[dict[str, Any]]) -> None:
    assert said(told, "spoilt") == [True, True]
    assert said(told, "back") == [{}, {}]
    assert said(told, "killed") == [[True, {}], [True, {}]]


def test_a_cable_that_is_pulled_outside_is_noticed(told: list[dict[str, Any]]) -> None:
    assert said(told, "ask") == ["pull", "plug"]
    assert len(said(told, "noticed")) == 1


def test_a_cable_that_software_cannot_pull_is_left_to_a_hand(told: list[dict[str, Any]]) -> None:
    (refusal,) = said(told, "refused")
    assert refusal == (
        "left:wire: it keeps its carrier while right:wire is down (pull the cable of eth0 by hand)"
    )


def test_a_macvlan_leaves_the_card_here(told: list[dict[str, Any]]) -> None:
    (links,) = said(told, "macvlan")
    assert len(links.splitlines()) == len(NICS) + 1
