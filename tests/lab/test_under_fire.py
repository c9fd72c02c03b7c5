"""Packets, changes of endpoints, and proxies that die or hand over, all at once.

In virtual time: there a minute of it takes as long as computing it, and the proxy is away for as
long as the cost model says however busy the machine is.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fire
import pytest
from fire import Fire

from kproxy import costfile, costs
from netns.kernels import base

pytestmark = [
    pytest.mark.lab,
    pytest.mark.needs_tool("ip", "iptables-legacy-save"),
    pytest.mark.skipif(base.clock() is not base.Clock.VIRTUAL, reason="needs the virtual clock"),
]

PACKETS_PER_S = 10_000
CHANGES_PER_S = 50
KILL_EVERY_S = 2.0
SECONDS = 60.0
TMAX_S = 1.0

PLACES = {costs.START: 0.15, costs.LIST: 0.05, costs.SYNC_ADOPT: 0.1, costs.SYNC_PARTIAL: 0.005}
"""What takes the proxy time, in seconds; about what is measured for 100 services."""


@pytest.fixture(
    params=[
        "iptables",
        pytest.param("ipvs", marks=pytest.mark.needs_module("ip_vs", "dummy", "ip_set")),
        pytest.param("nftables", marks=pytest.mark.needs_tool("nft")),
    ]
)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def burning(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fire]:
    entries = tuple(
        costfile.Entry(
            process=costs.PROXY,
            place=place,
            mode="",
            seconds=costfile.Terms(constant=seconds),
            kernel="none",
            machine="none",
            date="2026-01-02",
        )
        for place, seconds in PLACES.items()
    )
    path = tmp_path / "model.json"
    path.write_bytes(costfile.encode(costfile.Model(name="test", entries=entries)))
    with fire.burning(tmp_path, mode) as burning:
        monkeypatch.setenv(costs.VARIABLE, str(path))
        yield burning


def test_a_proxy_that_is_killed_all_the_time_loses_nothing(burning: Fire) -> None:
    proxy = burning.start_proxy()
    proxy.wait_for("synced", first=True)
    sender = burning.send(PACKETS_PER_S)
    begin = time.monotonic()
    for number in range(round(SECONDS * CHANGES_PER_S)):
        _sleep_until(begin + number / CHANGES_PER_S)
        burning.change()
        if number % round(KILL_EVERY_S * CHANGES_PER_S) == 0 and number:
            proxy.end(signal.SIGKILL)
            proxy = burning.start_proxy()
    assert sender.tell("stop")["event"] == "stopped"
    time.sleep(TMAX_S)  # what has not come by then is lost
    assert len(burning.proxies) == SECONDS / KILL_EVERY_S
    assert all(one.pending("synced") for one in burning.proxies)
    _judge(burning)


def test_hand_overs_lose_nothing(burning: Fire) -> None:
    proxy = burning.start_proxy("--make-before-break")
    proxy.wait_for("synced", first=True)
    sender = burning.send(PACKETS_PER_S)
    begin = time.monotonic()
    for number in range(round(10 * CHANGES_PER_S)):
        _sleep_until(begin + number / CHANGES_PER_S)
        burning.change()
        if number % round(KILL_EVERY_S * CHANGES_PER_S) == 0 and number:
            proxy = burning.start_proxy("--make-before-break")
    assert sender.tell("stop")["event"] == "stopped"
    time.sleep(TMAX_S)  # what has not come by then is lost
    *before, last = burning.proxies
    assert [one.process.wait(60) for one in before] == [0] * 4
    assert last.pending("holding") == 1
    _judge(burning)


def _judge(burning: Fire) -> None:
    account = burning.account()
    assert account.lost == []
    # The test would prove nothing if flows had not had to move.
    assert account.moved > account.sent / 1000


def _sleep_until(when: float) -> None:
    time.sleep(max(when - time.monotonic(), 0.0))
