"""The bench of costs: what it refuses, and how it tells."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kproxy import costfile
from kproxy.cli import bench_costs
from kproxy.errors import UsageError
from kproxy.lab import costbench, costfit, facts, modes
from netns.kernels import base

ORIGIN = costfit.Origin(kernel="native 6.18", machine="x86_64", date="2026-01-02")


def sample(place: str, mode: str, seconds: float) -> costfit.Sample:
    sized = place != "start"
    return costfit.Sample(
        process="proxy",
        place=place,
        mode=mode,
        services=10 * sized,
        endpoints=20 * sized,
        seconds=seconds,
    )


class Bench:
    """A machine that can do some modes, and what is measured on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lacking: str) -> None:
        self.embedded: list[tuple[str, ...]] = []
        self.modes: list[str] = []
        monkeypatch.setattr(bench_costs.os, "geteuid", lambda: 0)
        monkeypatch.setattr(
            modes, "unsupported", lambda mode: "no such thing" if mode in lacking else None
        )
        monkeypatch.setattr(costbench, "tools", lambda: "iptables-old")
        monkeypatch.setattr(costbench, "measure", self.measure)
        monkeypatch.setattr(bench_costs, "_measure_embedded", self.measure_embedded)

    def measure(self, modes: list[str], *rest: object) -> list[costfit.Sample]:
        self.modes = modes
        return [sample("start", "", 0.1), *(sample("sync-full", mode, 0.2) for mode in modes)]

    def measure_embedded(self, modes: tuple[str, ...], *rest: object) -> costfile.Model:
        self.embedded.append(modes)
        samples = [sample("start", "", 1.0), *(sample("sync-full", mode, 2.0) for mode in modes)]
        return costfit.model("m", samples, costfit.Origin(kernel="UML", machine="m", date="d"))


def kernels(out: Path) -> dict[tuple[str, str], str]:
    return {(one.place, one.mode): one.kernel for one in costfile.read(out).entries}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--modes", "ipvs,none"], "--modes none"),
        (["--modes", ","], "none is named"),
        (["--runs", "4"], "--runs 4: at least 5"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(bench_costs.costs, arguments)
    assert isinstance(result.exception, UsageError)
    assert named in str(result.exception)


def test_each_mode_is_measured_where_it_exists_and_the_start_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench, out = Bench(monkeypatch, "ipvs"), tmp_path / "new" / "model.json"
    result = CliRunner().invoke(bench_costs.costs, ["--out", str(out)])
    assert result.exception is None, result.output
    assert bench.embedded == [("ipvs",)]
    here = bench_costs._origin(facts.host()).kernel
    assert kernels(out) == {
        ("start", ""): here,
        ("sync-full", "iptables"): f"{here}, {costbench.tools()}",
        ("sync-full", "ipvs"): "UML",
        ("sync-full", "nftables"): here,
    }


def test_the_start_is_measured_here_even_if_the_mode_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench, out = Bench(monkeypatch, "ipvs"), tmp_path / "model.json"
    CliRunner().invoke(bench_costs.costs, ["--modes", "ipvs", "--out", str(out)])
    assert bench.modes == ["iptables"]
    assert kernels(out) == {
        ("start", ""): bench_costs._origin(facts.host()).kernel,
        ("sync-full", "ipvs"): "UML",
    }


def test_a_named_kernel_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, "ipvs")
    result = CliRunner().invoke(bench_costs.costs, ["--kernel", "native"])
    assert "--modes ipvs: not on this kernel" in str(result.exception)
    assert bench.embedded == []


def test_costs_are_not_measured_in_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    Bench(monkeypatch)
    monkeypatch.setattr(bench_costs.base, "clock", lambda: bench_costs.base.Clock.VIRTUAL)
    result = CliRunner().invoke(bench_costs.costs, [])
    assert "costs are measured in real time" in str(result.exception)


def test_the_table_has_terms_and_points() -> None:
    model = costfit.model(
        "m", [sample("sync-full", "ipvs", seconds) for seconds in (0.1, 0.3, 0.2)], ORIGIN
    )
    head, point = bench_costs.as_table(model)
    assert head.startswith("proxy sync-full ipvs: 200.0 ms + 0.0 µs per service")
    assert "(native 6.18)" in head
    assert "200.0 ms (100.0–300.0)" in point
    assert "n = 3" in point


def test_a_busy_machine_is_warned_of_and_marked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Bench(monkeypatch)
    out = tmp_path / "model.json"
    for load, busy in ((0.1, False), (1000.0, True)):
        monkeypatch.setattr(bench_costs.os, "getloadavg", lambda load=load: (load, load, load))
        result = CliRunner().invoke(bench_costs.costs, ["--out", str(out)])
        assert ("measure on an idle machine" in result.output + result.stderr) is busy
        assert ("MEASURED ON A BUSY MACHINE" in result.output) is busy
        entries = costfile.read(out).entries
        assert {entry.busy for entry in entries} == {busy}
        assert all(f"load {load:.1f}" in entry.machine for entry in entries)


def test_inside_a_guest_the_machine_is_the_one_around_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Bench(monkeypatch)
    out = tmp_path / "model.json"
    told = {"cpus": 64, "load_average": [40.0, 1.0, 1.0], "started": "2026-01-01T00:00:00+00:00"}
    monkeypatch.setenv(facts.HOST_VARIABLE, json.dumps(told))
    monkeypatch.setenv(base.GUEST_VARIABLE, "uml")
    result = CliRunner().invoke(bench_costs.costs, ["--out", str(out)])
    assert result.exception is None, result.output
    for entry in costfile.read(out).entries:
        assert "64 CPUs, load 40.0" in entry.machine
        assert entry.busy
