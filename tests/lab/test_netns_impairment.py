"""Links that delay, lose and repeat packets, and cables that are pulled."""

import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import netns_samples as samples
import pytest

from netns.errors import NetnsError
from netns.impairment import Impairment
from netns.lab import Lab
from netns.topology import Host, Interface, Link, Segment, Topology

pytestmark = pytest.mark.lab

NAME = f"ni{os.getpid()}"
SLOW = Impairment(delay_s=0.02)
SECONDS = 0.5


def interface(host: str, name: str, address: str, impairment: Impairment | None) -> Interface:
    return Interface(
        host=host, name=name, addresses=(ip_interface(address),), impairment=impairment
    )


TOPOLOGY = Topology(
    hosts=(Host(name="a"), Host(name="b")),
    links=(
        Link(
            a=interface("a", "cable", "192.0.2.1/24", SLOW),
            b=interface("b", "cable", "192.0.2.2/24", None),
        ),
    ),
    segments=(
        Segment(
            name="sw",
            interfaces=(
                interface("a", "lan", "198.51.100.1/24", SLOW),
                interface("b", "lan", "198.51.100.2/24", None),
            ),
        ),
    ),
)
CABLE, LAN = "192.0.2.", "198.51.100."


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(TOPOLOGY, name=NAME, state_dir=tmp_path / "state") as made:
        yield made
    assert samples.remains(NAME, tmp_path / "state", NAME) == []


def bound(lab: Lab, host: str, address: str) -> socket.socket:
    sock = lab[host].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 7000))
    sock.settimeout(SECONDS)
    return sock


def send(lab: Lab, sender: str, receiver: str, network: str, count: int = 1) -> list[float]:
    """Send packets between two hosts; return how long each that came took, in seconds."""
    numbers = {"a": 1, "b": 2}
    with (
        bound(lab, sender, f"{network}{numbers[sender]}") as out,
        bound(lab, receiver, f"{network}{numbers[receiver]}") as into,
    ):
        begun = time.monotonic()
        for _ in range(count):
            out.sendto(b"x", (f"{network}{numbers[receiver]}", 7000))
        took = []
        while True:
            try:
                into.recv(10)
            except TimeoutError:
                return took
            took.append(time.monotonic() - begun)


def test_a_delay_is_one_way_on_a_link_and_both_ways_on_a_segment(lab: Lab) -> None:
    # Whatever the machine is busy with, no packet is earlier.
    assert send(lab, "a", "b", CABLE)[0] >= SLOW.delay_s
    assert send(lab, "a", "b", LAN)[0] >= SLOW.delay_s
    assert send(lab, "b", "a", LAN)[0] >= SLOW.delay_s
    assert min(send(lab, "b", "a", CABLE, 1)[0] for _ in range(5)) < SLOW.delay_s


def test_an_impairment_can_be_changed_and_taken_away(lab: Lab) -> None:
    lab["a"].impair("cable", Impairment(loss=1.0))
    assert send(lab, "a", "b", CABLE, 5) == []
    lab["a"].impair("cable", Impairment(duplicate=1.0))
    assert len(send(lab, "a", "b", CABLE, 5)) == 10
    for _ in range(2):
        lab["a"].impair("cable", None)
        assert len(send(lab, "a", "b", CABLE, 5)) == 5


def test_a_limited_rate_takes_its_time(lab: Lab) -> None:
    # 100 packets of 29 bytes with their headers: 43 bytes on the wire each.
    lab["a"].impair("cable", Impairment(rate_bps=100_000))
    took = send(lab, "a", "b", CABLE, 100)
    assert len(took) == 100
    assert took[-1] >= 100 * 43 * 8 / 100_000 * 0.99


def test_what_no_interface_can_do_is_refused(lab: Lab) -> None:
    with pytest.raises(NetnsError, match="loss: 200% is no part of all packets"):
        lab["a"].impair("cable", Impairment(loss=2))
    with pytest.raises(NetnsError, match="eth9"):
        lab["a"].impair("eth9", Impairment(loss=0.5))


def test_a_pulled_cable_keeps_addresses_and_routes(lab: Lab) -> None:
    before = lab["a"].run(["ip", "route", "show"]).stdout
    lab.plug("a", "lan", connected=False)
    assert send(lab, "a", "b", LAN) == []
    assert send(lab, "b", "a", LAN) == []
    carrier = lab["a"].run(["ip", "-o", "link", "show", "lan"]).stdout
    assert "NO-CARRIER" in carrier
    assert send(lab, "a", "b", CABLE) != []
    lab.plug("a", "lan", connected=True)
    assert send(lab, "a", "b", LAN) != []
    assert lab["a"].run(["ip", "route", "show"]).stdout == before
    with pytest.raises(NetnsError, match="not plugged into a switch"):
        lab.plug("a", "cable", connected=False)


def test_the_journal_keeps_impairments(lab: Lab, tmp_path: Path) -> None:
    with Lab.attach(tmp_path / "state") as other:
        assert other["a"].interface("cable").impairment == SLOW
        assert other["b"].interface("cable").impairment is None
    assert dataclasses.replace(SLOW, loss=0.5) != SLOW
