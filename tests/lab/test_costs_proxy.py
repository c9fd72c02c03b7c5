"""The proxy as a process with a cost model: it is later by what the model says, and says so."""

import time
from pathlib import Path

import agent_node
import pytest
from stub_api import service, slice_of

from kproxy import costfile, costs

pytestmark = [pytest.mark.lab, pytest.mark.needs_tool("ip", "iptables-legacy-save")]

START_S, LIST_S, FULL_S = 2.0, 0.25, 0.5


def entry(place: str, mode: str, **seconds: float) -> costfile.Entry:
    return costfile.Entry(
        process=costs.PROXY,
        place=place,
        mode=mode,
        seconds=costfile.Terms(**seconds),
        kernel="none",
        machine="none",
        date="2026-01-02",
    )


def test_a_proxy_pays_what_its_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = costfile.Model(
        name="test",
        entries=(
            entry(costs.START, "", constant=START_S),
            entry(costs.LIST, "", per_endpoint=LIST_S / 2),
            entry(costs.SYNC_FULL, "iptables", per_service=FULL_S),
        ),
    )
    path = tmp_path / "model.json"
    path.write_bytes(costfile.encode(model))
    monkeypatch.setenv(costs.VARIABLE, str(path))
    with agent_node.running(tmp_path, "iptables") as node:
        node.api.put(service("web", "10.96.0.10"), slice_of("web", "10.128.0.5", "10.128.1.6"))
        begin = time.monotonic_ns()
        proxy = node.start()
        ends = []
        for place, seconds, then in (
            (costs.START, START_S, "started"),
            (costs.LIST, LIST_S, "listed"),
            (costs.SYNC_FULL, FULL_S, "synced"),
        ):
            paid = proxy.wait_for(costs.PAID, place=place, seconds=seconds, node="node1")
            ends += [paid["mono_ns"], proxy.wait_for(then)["mono_ns"]]
        assert ends == sorted(ends)
        assert ends[-1] - begin >= (START_S + LIST_S + FULL_S) * 1e9
        assert ends[0] - begin >= START_S * 1e9
        assert "10.128.1.6:8080" in node.contents()


def test_a_wrong_model_ends_the_proxy_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(costs.VARIABLE, str(tmp_path / "nowhere.json"))
    with agent_node.running(tmp_path, "iptables") as node:
        proxy = node.start()
        assert proxy.process.wait(agent_node.PATIENCE_S) == 2
        proxy.end()
        assert proxy.lines == [
            f"kproxy proxy: cost model {tmp_path}/nowhere.json: No such file or directory "
            "(make one: kproxy bench costs --out FILE)\n"
        ]
