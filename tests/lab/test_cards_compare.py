"""``kproxy compare`` on network cards: traffic goes over them, a pulled cable is accounted for."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import simulated_cards as cards
from simulated_cards import Pair

from kproxy.lab import scenarios
from kproxy.traffic import resultset

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_tool("ip", "ethtool"),
    pytest.mark.skipif(
        not (cards.BUS / "link_device").exists(),
        reason="this kernel has no netdevsim with link_device (6.9 and newer, CONFIG_NETDEVSIM)",
    ),
]
COMPARE = (sys.executable, "-m", "kproxy", "compare", "--kernel", "native", "--modes", "iptables")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.remove()


def compare(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMPARE, "--trials", "1", "--rate", "500", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def result(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> resultset.ResultSet:
    out = tmp_path_factory.mktemp("results")
    first, second = pair.names
    cards.ip("link", "set", second, "up")
    cards.furnish(first)
    before = cards.furniture(first)
    chosen = ("--scenario", "baseline", "--scenario", "cable-pull")
    done = compare("--uplinks", f"node1={first},client={second}", *chosen, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"warning: node1: {first} merges received packets (GRO)" in done.stderr
    assert cards.furniture(first) == before
    return resultset.read(out / "result.json")


def udp(result: resultset.ResultSet, scenario: str, node: str) -> resultset.Measurement:
    (trial,) = [one for one in result.trials if one.scenario == scenario]
    (found,) = [m for m in trial.measurements if (m.traffic, m.node) == ("udp", node)]
    return found


def test_the_result_says_on_which_cards_it_is(result: resultset.ResultSet, pair: Pair) -> None:
    told = {card["host"]: card for card in result.host["cards"]}
    assert {host: card["nic"] for host, card in told.items()} == dict(
        zip(("node1", "client1"), pair.names, strict=True)
    )
    assert all(card["driver"] == "netdevsim" for card in told.values())
    assert json.dumps(result.parameters["uplinks"])


def test_nothing_is_lost_without_a_fault(result: resultset.ResultSet) -> None:
    for node in ("hit", "other"):
        found = udp(result, "baseline", node)
        assert found.sent
        assert found.lost == 0


def test_what_a_pulled_cable_loses_is_lost_on_that_cable(result: resultset.ResultSet) -> None:
    hit, other = (udp(result, "cable-pull", node) for node in ("hit", "other"))
    assert other.lost == 0
    assert hit.lost
    assert {loss.place for loss in hit.losses} == {"client1>node1"}
    assert sum(loss.packets for loss in hit.losses) == hit.lost
    (trial,) = [one for one in result.trials if one.scenario == "cable-pull"]
    at = {event.name: event for event in trial.timeline}
    assert at[scenarios.FAULT].ms <= at[scenarios.CARRIER_LOST].ms < at[scenarios.PLUGGED].ms
    assert at[scenarios.CARRIER_LOST].detail == "client1"
    assert trial.problems == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("node1=none0,client=eth9", "there is no card none0"),
        ("client=eth9", "client1 is behind node1, which has no card"),
        ("node7=eth9", "uplinks.node7: there is no such host"),
    ],
)
def test_mistakes_are_told_in_one_line(words: str, said: str, tmp_path: Path) -> None:
    done = compare("--uplinks", words, "--scenario", "baseline", "--out", str(tmp_path))
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
