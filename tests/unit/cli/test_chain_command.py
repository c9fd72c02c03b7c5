"""``kproxy chain`` on the command line, and a run in parts put together."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from kproxy import errors
from kproxy.cli import chain_job, chain_parts, parts
from kproxy.cli.chain import chain
from kproxy.cli.chain_job import Job
from kproxy.cli.kernel_option import KernelChoice
from kproxy.lab import costmodel
from kproxy.lab.chain import reproduction, soak, table
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.comparison import Step
from kproxy.traffic import chainset
from kproxy.traffic.chainset import ChainSet, LinkTrial
from netns.kernels import base, quantities

PART = """
import pathlib, sys
from kproxy.cli import chain_job
from kproxy.traffic import chainset
job = chain_job.read(pathlib.Path(sys.argv[sys.argv.index("--job") + 1]))
links, number = job.parameters.links, job.parameters.first
print(f"    1 s  [1/9] {links[0]}: trial", file=sys.stderr, flush=True)
if "node" in links:
    sys.exit("no such thing")
trials = tuple(chainset.LinkTrial(link=link, number=number, repair_ms=1.0) for link in links)
found = chainset.ChainSet(
    kernel={"clock": "virtual", "release": "6"}, host={"cpus": 3},
    parameters={"incomplete": [], "seed": 4, "costs": None}, trials=trials, summary=(),
)
chainset.write(found, pathlib.Path(job.place) / "result.json")
"""


@pytest.fixture(autouse=True)
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(base.STATE_VARIABLE, str(tmp_path / "state"))
    command = [sys.executable, "-c", PART]
    monkeypatch.setattr(parts, "command", lambda kernel, word: command)


def job(*links: str, **changes: Any) -> Job:
    return Job(
        parameters=Parameters(links=links or tuple(table.LINKS), **changes),
        named=True,
        model=None,
        place="unused",
        fresh=False,
        as_json=False,
    )


def test_links_are_named_with_what_is_done() -> None:
    done = CliRunner().invoke(chain, ["--list"])
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == list(table.LINKS)
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "moon"], "--only moon"),
        (["--only", "node", "--monitoring"], "--monitoring beside --only"),
        (["--random", "--only", "node"], "--only beside --random"),
        (["--random", "--monitoring"], "--monitoring beside --random"),
        (["--mode", "ebpf"], "--mode ebpf"),
        (["--random", "--hours", "0"], "--hours 0"),
        (["--reproduce", "missing.json"], "missing.json"),
    ],
)
def test_a_mistake_is_told_before_anything_is_built(words: list[str], said: str) -> None:
    with pytest.raises(errors.UsageError, match=said):
        CliRunner().invoke(chain, words, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    "words", [["--mode", "ipvs"], ["--monitoring"], ["--random"], ["--hours", "3"]]
)
def test_what_the_result_decides_is_ruled_out(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(errors.UsageError, match=rf"{words[0]}s?: with --reproduce"):
        CliRunner().invoke(
            chain,
            ["--reproduce", str(path), *words],
            catch_exceptions=False,
            standalone_mode=False,
        )


def test_parts_are_put_together_in_the_order_of_the_chain(tmp_path: Path) -> None:
    steps: list[Step] = []
    wanted = job("proxy-process", "etcd-leader", "all-managers", trials=2)
    found = chain_parts.run(wanted, KernelChoice(), steps.append)
    order = ["proxy-process", "all-managers", "etcd-leader"]
    assert [row.link for row in found.summary] == order
    assert [row.trials for row in found.summary] == [2, 2, 2]
    assert [(t.link, t.number) for t in found.trials] == [
        (link, number) for number in (1, 2) for link in order
    ]
    assert (found.kernel["release"], found.host, found.parameters["seed"]) == ("6", {"cpus": 3}, 4)
    assert {step.total for step in steps} == {6}
    assert list((tmp_path / "state").iterdir()) == []


def test_a_part_without_a_result_is_named_with_what_it_said() -> None:
    with pytest.raises(errors.MeasurementError, match=r"node \(1\): .* 1 .*no such thing"):
        chain_parts.run(job("node"), KernelChoice(), lambda step: None)


def test_what_only_monitoring_catches_is_broken_when_asked_for() -> None:
    chain_itself, all_links = (table.names(monitoring=wanted) for wanted in (False, True))
    assert Parameters().links == chain_itself
    assert all_links == tuple(table.LINKS)
    extra = set(all_links) - set(chain_itself)
    assert extra == {name for name, link in table.LINKS.items() if link.variant}
    assert {"proxy-hung-mixin", "weight-zero-alone"} < extra


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> list[KernelChoice]:
    """Return what is booted, which ends the command instead."""
    given: list[KernelChoice] = []

    def boot(kernel: KernelChoice, **others: Any) -> None:
        given.append(kernel)
        raise SystemExit(0)

    monkeypatch.setattr("kproxy.cli.chain.run_on_kernel", boot)
    return given


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        (["--hours", "2"], 4 * 3600),
        (["--hours", "0.1"], 3600),
        (["--hours", "2", "--time-limit", "5m"], 300),
    ],
)
def test_killing_at_random_has_time_enough(
    booted: list[KernelChoice], tmp_path: Path, words: list[str], seconds: float
) -> None:
    CliRunner().invoke(chain, ["--random", "--out", str(tmp_path / "out"), *words])
    assert [one.limits.time for one in booted] == [seconds]


@pytest.mark.parametrize("words", [[], ["--memory", "3G"]])
def test_the_kernel_gets_as_much_memory_as_the_help_says(
    booted: list[KernelChoice], tmp_path: Path, words: list[str]
) -> None:
    CliRunner().invoke(chain, ["--random", "--out", str(tmp_path / "out"), *words])
    (told,) = (option for option in chain.params if option.name == "memory")
    assert isinstance(told, click.Option)
    assert told.show_default
    wanted = quantities.parse_memory(words[1] if words else str(told.default))
    assert [one.limits.memory for one in booted] == [wanted]


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    wanted = dataclasses.replace(job("node"), random=soak.Plan(hours=3), part=True)
    assert chain_job.read(chain_job.write(wanted, tmp_path)) == wanted


def test_a_job_holds_its_cost_model() -> None:
    assert isinstance(chain_job.whole_model(job(), base.Clock.VIRTUAL).model, dict)
    none = dataclasses.replace(job(), model=costmodel.NONE)
    assert chain_job.whole_model(none, base.Clock.VIRTUAL).model == costmodel.NONE


def whole(*trials: LinkTrial) -> ChainSet:
    from kproxy.lab.chain import run

    made = ChainSet(
        kernel={"clock": "virtual", "release": "6", "name": None, "memory_limit_bytes": 5},
        host={},
        parameters={"seed": 4, "costs": None},
        trials=(),
        summary=(),
    )
    return run.whole(Parameters(links=("node",), nodes=3), trials, [], made)


def test_a_result_says_how_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    chainset.write(whole(LinkTrial(link="node", number=1)), path)
    recipe = reproduction.recipe(chainset.read(path), path)
    assert recipe.parameters == Parameters(links=("node",), nodes=3)
    assert (recipe.seed, recipe.clock, recipe.memory) == (4, base.Clock.VIRTUAL, 5)


def test_a_result_made_on_the_machines_own_kernel_says_so() -> None:
    kernel = {"clock": "real", "release": "6", "name": None, "provider": "native"}
    recipe = reproduction.recipe(dataclasses.replace(whole(), kernel=kernel), Path("x"))
    assert recipe.kernel == "native"


def test_a_result_that_does_not_say_how_cannot_be_made_again() -> None:
    broken = dataclasses.replace(whole(), kernel={})
    with pytest.raises(errors.UsageError, match=r"result\.json"):
        reproduction.recipe(broken, Path("result.json"))


def test_every_figure_that_differs_is_told() -> None:
    before = whole(LinkTrial(link="node", number=1, repair_ms=1.0))
    after = whole(LinkTrial(link="node", number=1, repair_ms=2.0))
    assert reproduction.differences(before, before) == []
    assert "node repair_ms median: 1.0, now 2.0" in reproduction.differences(before, after)
    assert reproduction.differences(before, whole()) == ["node: only before"]
