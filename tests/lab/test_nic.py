"""Network cards in labs: they carry packets, and are given back as they were, whatever happens."""

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import netns_samples as samples
import pytest
import simulated_cards as cards
from simulated_cards import Pair, ip

from netns import ethtool, lab, namespace, nicstate
from netns.cable import CarrierWatch
from netns.errors import NetnsError, WaitTimeout
from netns.ethtool import Ethtool, Group
from netns.lab import Lab
from netns.uplink import Attachment

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_tool("ip", "ethtool"),
    pytest.mark.skipif(
        not (cards.BUS / "link_device").exists(),
        reason="this kernel has no netdevsim with link_device (6.9 and newer, CONFIG_NETDEVSIM)",
    ),
]

NAME = f"nc{os.getpid()}"
CHILD = Path(__file__).with_name("nic_child.py")
DEADLINE = 60.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.remove()


@pytest.fixture
def furnished(pair: Pair) -> tuple[str, str, dict[str, str]]:
    first, second = pair.names
    cards.furnish(first)
    ip("link", "set", second, "up")
    return first, second, cards.furniture(first)


def child(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(CHILD), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_packets_pass_and_everything_is_given_back(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path
) -> None:
    first, second, before = furnished
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        for number in ("192.0.2.2", "2001:db8::2"):
            samples.arrives(running["left"], running["right"], number)
        assert first not in {name for _, name in running["left"].call(_interfaces)}
        assert not Path("/sys/class/net", first).exists()
        running["left"].call(cards.spoil, "wire")
    assert cards.furniture(first) == before
    assert "lab." not in ip("link")
    assert samples.remains(NAME, tmp_path / "state", "") == []


def test_a_card_that_was_down_is_down_again(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    before = ip("-o", "link", "show", first)
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        samples.arrives(running["left"], running["right"], "192.0.2.2")
    assert ip("-o", "link", "show", first) == before


def test_a_card_by_its_other_name_has_its_first_one_again(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path
) -> None:
    first, second, before = furnished
    other = f"other-{first}"
    with Lab(cards.wired(other, second), name=NAME, state_dir=tmp_path / "state") as running:
        assert running.cards()[0].nic == first
        with pytest.raises(NetnsError, match=f"no card {other} .a lab has it"):
            Lab(cards.wired(other, second), name="b", state_dir=tmp_path / "b").__enter__()
    assert cards.furniture(first) == before
    with pytest.raises(NetnsError, match=f"{first} is taken by another interface, too"):
        Lab(cards.wired(other, first), name=NAME, state_dir=tmp_path / "state").__enter__()
    assert cards.furniture(first) == before


def test_a_driver_that_answers_only_while_its_card_is_up_is_told_then(
    furnished: tuple[str, str, dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second, before = furnished
    change, request = Ethtool.change, Ethtool._request

    def unwilling(tool: Ethtool, name: str, group: Group, values: ethtool.Values) -> None:
        if not int(Path("/sys/class/net", name, "flags").read_text(), 16) & nicstate.UP:
            raise OSError(errno.ENETDOWN, "is down")
        change(tool, name, group, values)

    def broken(tool: Ethtool, command: int, body: bytes) -> list[bytes]:
        if command == Group.ENERGY:
            raise OSError(errno.EIO, "has no such register")
        return request(tool, command, body)

    monkeypatch.setattr(Ethtool, "change", unwilling)
    monkeypatch.setattr(Ethtool, "_request", broken)
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        running["left"].call(cards.spoil, "wire")
    assert cards.furniture(first) == before
    assert caplog.messages == []


def test_a_card_that_is_plugged_out_meanwhile_is_missed_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair()
    with Lab(cards.wired(*pair.names), name=NAME, state_dir=tmp_path / "state"):
        pair.remove()
    assert len(caplog.messages) == 2
    assert all("it is nowhere to be found" in each for each in caplog.messages)
    assert samples.remains(NAME, tmp_path / "state", "") == []


def test_a_card_goes_home_to_another_namespace_than_that_of_who_gives_it_back(
    pair: Pair, tmp_path: Path
) -> None:
    home, (first, second) = f"{NAME}home", pair.names
    namespace.create(home)
    try:
        for each in (first, second):
            ip("link", "set", each, "netns", home)
        with namespace.entered(home):
            running = Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state")
            running.__enter__()
        running.close()
        with namespace.entered(home):
            assert {first, second} <= {name for _, name in _interfaces()}
    finally:
        namespace.delete(home)


def test_the_card_of_a_host_that_is_removed_goes_home(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path
) -> None:
    first, second, _ = furnished
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        running.remove("left")
        assert Path("/sys/class/net", first).exists()
        assert [card.nic for card in running.cards()] == [second]


def test_an_owner_killed_at_any_step_is_repaired(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path
) -> None:
    first, second, before = furnished
    state = tmp_path / "state"
    out, _ = child("fatal", state, NAME, first, second, -1).communicate(timeout=DEADLINE)
    steps = int(out.split()[-1])
    assert cards.furniture(first) == before
    away = 0
    for point in range(0, steps, 3):
        process = child("fatal", state, NAME, first, second, point)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == -signal.SIGKILL, f"step {point} of {steps}"
        away += not Path("/sys/class/net", first).exists()
        lab.repair(state)
        assert cards.furniture(first) == before, f"after step {point} of {steps}"
        assert "lab." not in ip("link")
        assert samples.remains(NAME, state, "") == []
    assert away >= 3  # otherwise the steps are not those that matter


def test_cards_that_the_kernel_put_back_are_repaired(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has deleted the namespace, and somebody else has got the card's name."""
    first, second, before = furnished
    state = tmp_path / "state"
    process = child("hold", state, NAME, first, second)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    namespace.delete(f"{NAME}-left")
    ip("link", "add", first, "type", "veth", "peer", "name", "other")
    try:
        with caplog.at_level(logging.WARNING):
            lab.repair(state)
    finally:
        ip("link", "delete", "other")
    (said,) = caplog.messages
    assert f"{first} (now wire)" in said
    assert f"the name {first}: File exists" in said
    ip("link", "set", "wire", "down")
    ip("link", "set", "wire", "name", first, "up")
    assert cards.furniture(first)["-g"] == before["-g"]


def test_what_cannot_be_taken_is_refused_in_words(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    ip("link", "set", first, "up")
    ip("link", "set", second, "up")

    def refusal(topology: object = None) -> str:
        with pytest.raises(NetnsError) as refused:
            Lab(topology or cards.wired(first, second), name=NAME, state_dir=tmp_path).__enter__()
        assert not list(Path("/run/netns").glob(f"{NAME}-*"))
        return str(refused.value)

    assert "there is no card eth77 (`ip link` tells" in refusal(cards.wired("eth77", second))
    ip("address", "add", "198.51.100.7/24", "dev", first)
    ip("route", "add", "default", "via", "198.51.100.1", "metric", "7")
    assert f"{first} carries this machine's default route (IPv4)" in refusal()
    ip("route", "delete", "default", "via", "198.51.100.1", "metric", "7")
    ip("-6", "route", "add", "default", "dev", second, "table", "9")
    assert f"{second} carries this machine's default route (IPv6)" in refusal()
    ip("-6", "route", "delete", "default", "dev", second, "table", "9")
    ip("link", "add", "br7", "type", "bridge")
    ip("link", "set", first, "master", "br7")
    assert f"{first} belongs to br7 (take it out first: ip link set {first} nomaster)" in refusal()
    ip("link", "delete", "br7")
    ip("link", "add", "over", "link", first, "type", "macvlan")
    assert f"{first} carries over" in refusal()
    ip("link", "delete", "over")
    ip("link", "add", "veth7", "type", "veth", "peer", "name", "veth8")
    assert "veth7 is no card but a virtual interface (veth)" in refusal(
        cards.wired("veth7", second)
    )
    ip("link", "delete", "veth7")
    functions = cards.wired("eth77", second, Attachment.VF)
    assert "there is no card eth77" in refusal(functions)
    assert f"{first} has no virtual function" in refusal(cards.wired(first, second, Attachment.VF))
    assert "uplink" in refusal(cards.wired(first, first))


def test_the_default_route_may_be_taken_by_who_says_so(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    ip("link", "set", first, "up")
    ip("address", "add", "198.51.100.7/24", "dev", first)
    ip("route", "add", "default", "via", "198.51.100.1", "metric", "7")
    topology = cards.wired(first, second)
    with Lab(topology, name=NAME, state_dir=tmp_path / "state", take_default_route=True):
        assert ip("route", "show", "default", "metric", "7") == ""
    assert f"via 198.51.100.1 dev {first}" in ip("route", "show", "default", "metric", "7")


def test_a_card_has_one_lab(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state"):
        other = Lab(cards.wired(first, second), name="other", state_dir=tmp_path / "other")
        with pytest.raises(
            NetnsError, match=f"a lab has it, in the network namespace {NAME}-left"
        ):
            other.__enter__()


def test_without_a_carrier_it_is_said_and_nothing_stays(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, before = furnished
    monkeypatch.setattr("netns.build._CARRIER_DEADLINE", 0.2)
    topology = cards.wired(first, second)
    only = type(topology)(
        hosts=topology.hosts[:1],
        segments=(samples.Segment(name="wire", interfaces=(topology.links[0].a,)),),
    )
    ip("link", "set", second, "down")
    with pytest.raises(NetnsError, match=f"left:wire: {first} has no carrier after 0.2 s"):
        Lab(only, name=NAME, state_dir=tmp_path / "state").__enter__()
    ip("link", "set", second, "up")
    assert cards.furniture(first) == before
    assert samples.remains(NAME, tmp_path / "state", "") == []


def test_macvlans_share_a_card_that_stays(
    furnished: tuple[str, str, dict[str, str]], tmp_path: Path
) -> None:
    first, _, before = furnished
    topology = cards.wired(first, first, Attachment.MACVLAN, mtu=1300)
    with Lab(topology, name=NAME, state_dir=tmp_path / "state") as running:
        samples.arrives(running["left"], running["right"], "192.0.2.2")
        assert cards.furniture(first)["routes"] == before["routes"]
        assert [(card.attachment, card.mtu) for card in running.cards()] == [("macvlan", 1300)] * 2
    assert cards.furniture(first) == before
    large = cards.wired(first, first, Attachment.MACVLAN)
    with pytest.raises(NetnsError, match=rf"an MTU of 1400, .* \(ip link set {first} mtu 1500\)"):
        Lab(large, name=NAME, state_dir=tmp_path / "state").__enter__()
    ip("link", "set", first, "down")
    with pytest.raises(NetnsError, match=rf"is down, .* \(ip link set {first} up\)"):
        Lab(topology, name=NAME, state_dir=tmp_path / "state").__enter__()


def test_a_macvlan_that_has_its_card_alone_has_the_card_s_mac(pair: Pair, tmp_path: Path) -> None:
    for each in pair.names:
        ip("link", "set", each, "up")
    topology = cards.wired(*pair.names, Attachment.MACVLAN, mode="passthru")
    with Lab(topology, name=NAME, state_dir=tmp_path / "state") as running:
        samples.arrives(running["left"], running["right"], "192.0.2.2")
        told = [each.mac for each in running.topology.interfaces()]
        assert told == [card.mac for card in running.cards()]


def test_a_cable_is_pulled_noticed_and_plugged_in_again(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        left, right = running["left"], running["right"]
        known = right.call(ip, "neighbour", "show", "dev", "wire", "nud", "permanent")
        assert "192.0.2.1 " in known
        with left.call(CarrierWatch, "wire") as watch:
            with pytest.raises(WaitTimeout, match="carrier of wire to go"):
                watch.await_state(up=False, timeout=0.1)
            running.plug("left", "wire", connected=False)
            gone = watch.await_state(up=False, timeout=DEADLINE)
            with pytest.raises(OSError, match=r"unreachable|timed out"):
                samples.arrives(left, right, "192.0.2.2")
            running.plug("left", "wire", connected=True)
            assert watch.await_state(up=True, timeout=DEADLINE) > gone
        assert right.call(ip, "neighbour", "show", "dev", "wire", "nud", "permanent") == known
        for address in ("192.0.2.2", "2001:db8::2"):
            samples.arrives(left, right, address)


def test_a_cable_of_a_switch_is_noticed_too(tmp_path: Path) -> None:
    with Lab(samples.lan("a", "b"), name=NAME, state_dir=tmp_path / "state") as running:
        with running["a"].call(CarrierWatch, "eth0") as watch:
            running.plug("a", "eth0", connected=False)
            watch.await_state(up=False, timeout=DEADLINE)
            running.plug("a", "eth0", connected=True)
            watch.await_state(up=True, timeout=DEADLINE)
        samples.arrives(running["a"], running["b"], "192.0.2.2")


def test_a_report_tells_what_a_card_is_and_what_spoils_figures(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.names
    with Lab(cards.wired(first, second), name=NAME, state_dir=tmp_path / "state") as running:
        running["left"].call(cards.spoil, "wire")
        left, right = running.cards()
    assert (left.host, left.interface, left.nic, left.driver) == (
        "left",
        "wire",
        first,
        "netdevsim",
    )
    assert left.bus.startswith("netdevsim")
    assert left.mtu == 1300
    assert (left.rings["rx"], left.coalescing["rx-usecs"]) == (512, 100)
    said = " ".join(left.warnings)
    assert "adapts its interrupts" in said
    assert "up to 100 µs" in said
    assert "pause frames" in said
    assert "GRO" not in said
    assert right.warnings == (f"merges received packets (GRO): ethtool -K {second} gro off",)


def _interfaces() -> list[tuple[int, str]]:
    with nicstate.Netlink() as netlink:
        return [(index, nicstate.names(found)[0]) for index, _, found in nicstate.links(netlink)]
