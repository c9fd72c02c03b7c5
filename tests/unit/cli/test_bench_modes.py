"""The benches of modes: what they refuse, on which kernel each mode runs, how they tell."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kproxy.cli import bench_path, bench_place, bench_sync
from kproxy.errors import MeasurementError, UsageError
from kproxy.lab import costbench, facts, modes
from netns.kernels import base, quantities

SYNC_ROW: dict[str, Any] = {
    "proxy": "kproxy", "mode": "ipvs", "services": 100, "endpoints": 10, "step": "noop",
    "seconds": 0.002, "seconds_min": 0.001, "seconds_max": 0.25, "n": 3, "peer": "bare dump",
    "peer_seconds": 0.004, "ratio": 0.5, "rss_mb": 41.5, "cpu_seconds": 0.25, "writes": 0,
    "seen": "return of the call", "look_ms": 0.0, "kernel": "native 6.18",
}  # fmt: skip
PATH_ROW: dict[str, Any] = {
    "mode": "iptables", "services": 1000, "endpoints": 10, "step": "connect",
    "target": "last service", "n": 2000, "seconds": 48e-6, "p99_seconds": 1.5e-4,
    "peer": "pod, no proxy", "peer_seconds": 24e-6, "peer_p99_seconds": 5e-5, "ratio": 2.0,
    "kernel": "native 6.18",
}  # fmt: skip


def document(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"rows": rows, "host": facts.host(), "kernel": {}, "started": "2026-01-02T03:04:05"}


class Machine:
    """A machine whose kernel lacks some modes, with an embedded kernel that has them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lacking: str) -> None:
        self.failures: list[str] = []
        self.here: list[tuple[str, ...]] = []
        self.embedded: list[tuple[str, ...]] = []
        monkeypatch.setattr(bench_place.os, "geteuid", lambda: 0)
        monkeypatch.setattr(
            modes, "unsupported", lambda mode: "no such thing" if mode in lacking else None
        )
        monkeypatch.setattr(costbench, "tools", lambda: "iptables-old")
        monkeypatch.setattr(bench_place, "_embedded", self._embedded)
        for module in (bench_sync, bench_path):
            monkeypatch.setattr(module, "_measurer", lambda plan: self._measure)

    def _measure(self, wanted: tuple[str, ...]) -> bench_place.Measured:
        self.here.append(wanted)
        return [{**SYNC_ROW, "mode": mode} for mode in wanted], self.failures

    def _embedded(self, bench: bench_place.Bench, wanted: tuple[str, ...], kernel: Any) -> Any:
        self.embedded.append(wanted)
        assert kernel.limits.memory >= bench_place.MEMORY
        rows = [{**SYNC_ROW, "mode": mode, "kernel": "User-Mode Linux"} for mode in wanted]
        return rows, []


COMMANDS = pytest.mark.parametrize(
    "command", [bench_sync.sync, bench_path.path], ids=["sync", "path"]
)


@COMMANDS
def test_an_embedded_kernel_gets_as_much_memory_as_the_help_says(command: click.Command) -> None:
    (told,) = (option for option in command.params if option.name == "memory")
    assert isinstance(told, click.Option)
    assert told.show_default
    assert quantities.parse_memory(str(told.default)) == bench_place.MEMORY


@COMMANDS
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--modes", "ipvs,none"], "--modes none"),
        (["--modes", ","], "--modes: none is named"),
        (["--services", "10,x"], "--services x"),
        (["--services", "0"], "--services 0"),
        (["--services", "60001"], "from 1 to 60000"),
        (["--services", ","], "--services: nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    command: Any, arguments: list[str], named: str
) -> None:
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, UsageError)
    assert named in str(result.exception)


@COMMANDS
def test_virtual_time_is_refused_with_the_reason(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    monkeypatch.setattr(bench_place.base, "clock", lambda: base.Clock.VIRTUAL)
    result = CliRunner().invoke(command, [])
    assert "never told from virtual time (use --clock real)" in str(result.exception)
    assert machine.here == []


def test_each_mode_is_measured_where_it_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine, out = Machine(monkeypatch, "ipvs"), tmp_path / "new" / "rows.json"
    result = CliRunner().invoke(bench_sync.sync, ["--json", "--out", str(out)])
    assert result.exception is None, result.output
    assert (machine.here, machine.embedded) == ([("iptables", "nftables")], [("ipvs",)])
    written = json.loads(out.read_text())
    assert json.loads(result.stdout) == written
    assert {row["mode"]: row["kernel"] for row in written["rows"]} == {
        "iptables": "native 6.18",
        "nftables": "native 6.18",
        "ipvs": "User-Mode Linux",
    }
    assert written["kernel"]["clock"] == "real"
    assert written["host"]["cpus"] > 0


def test_what_could_be_measured_is_shown_beside_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    assert CliRunner().invoke(bench_sync.sync, [], standalone_mode=False).return_value == 0
    machine.failures = ["1000 × 10, ipvs: nothing"]
    result = CliRunner().invoke(bench_sync.sync, ["--json"], standalone_mode=False)
    assert result.return_value == 1
    found = json.loads(result.stdout)
    assert found["failures"] == machine.failures
    assert len(found["rows"]) == 3


def test_a_named_kernel_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "ipvs")
    result = CliRunner().invoke(bench_sync.sync, ["--kernel", "native"])
    assert "--modes ipvs: not on this kernel" in str(result.exception)
    assert machine.embedded == []


def test_an_embedded_bench_gets_the_same_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[base.Command] = []

    class Provider:
        def describe(self) -> str:
            return "an embedded kernel"

        def run(self, command: base.Command, limits: base.Limits) -> int:
            ran.append(command)
            if len(ran) > 1:
                return 3
            found = {"rows": [{"mode": "ipvs"}], "failures": ["one"]}
            (command.writable[0] / "rows.json").write_text(json.dumps(found))
            return 1

    class Chosen:
        provider = Provider()

    monkeypatch.setattr(bench_place.choice, "choose", lambda name: Chosen)
    bench = bench_place.Bench(
        name="sync", options=("--runs", "2"), measure=lambda modes: ([], []), memory=0
    )
    kernel = bench_place.KernelChoice()
    assert bench_place._embedded(bench, ("ipvs",), kernel) == ([{"mode": "ipvs"}], ["one"])
    words = " ".join(ran[0].argv)
    assert "kproxy bench sync --modes ipvs --json --runs 2 --out " in words
    assert ran[0].clock is base.Clock.REAL
    with pytest.raises(MeasurementError, match="ended with code 3"):
        bench_place._embedded(bench, ("ipvs",), kernel)


def test_the_table_of_syncs_has_figure_spread_and_ratio() -> None:
    head, line, _empty, last = bench_sync.as_table(document(SYNC_ROW))
    assert head == "ipvs, 100 × 10, kproxy (native 6.18)"
    assert " ".join(line.split()) == (
        "noop 2.00 ms (1.00-250) cpu 0.250 s 42 MB 0.500 × bare dump 4.00 ms"
    )
    assert last.endswith("2026-01-02T03:04:05")


@pytest.mark.parametrize(("step", "said"), [("restart", True), ("endpoint", False)])
def test_a_write_where_nothing_had_changed_is_told(step: str, said: bool) -> None:
    lines = bench_sync.as_table(document({**SYNC_ROW, "step": step, "writes": 7}))
    assert ("WROTE 7 OBJECTS" in lines[1]) is said


def test_a_row_without_a_peer_has_no_ratio() -> None:
    row = {**SYNC_ROW, "peer": None, "peer_seconds": None, "ratio": None}
    assert "× bare" not in bench_sync.as_table(document(row))[1]


def test_the_table_of_paths_has_percentiles_beside_no_proxy() -> None:
    head, line, *_rest = bench_path.as_table(document(PATH_ROW))
    assert head == "iptables, connect (native 6.18), µs: p50 / p99"
    assert " ".join(line.split()) == (
        "1000 × 10 last service 48.0 / 150.0 2.00 × no proxy 24.0 / 50.0"
    )


@pytest.mark.parametrize(
    ("text", "found"), [("1", (1,)), ("100, 10,100", (100, 10)), ("60000", (60000,))]
)
def test_sizes_are_taken_once_in_their_order(text: str, found: tuple[int, ...]) -> None:
    assert bench_place.numbers(text, bench_place.LARGEST) == found
