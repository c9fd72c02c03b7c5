"""``kproxy kernel``: what it prints, and how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kproxy import errors
from kproxy.cli import kernel as kernel_command
from netns import errors as netns_errors
from netns.kernels import base, build, choice, native, registry, uml
from netns.kernels.progress import COMPILING, Progress

NAME = "6.12.9-aaaaaaaa"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(base.GUEST_VARIABLE, raising=False)
    monkeypatch.setattr(uml, "debian", lambda: None)
    monkeypatch.setattr(native.Native, "obstacle", lambda _self: base.Obstacle("no IPVS", "none"))
    return tmp_path / "kproxy" / "kernels"


def add(cache: Path, name: str = NAME) -> registry.Built:
    place = cache / name
    place.mkdir(parents=True)
    (place / registry.EXECUTABLE).write_text("#!/bin/sh\n")
    (place / registry.EXECUTABLE).chmod(0o755)
    built = registry.Built(
        directory=place,
        name=name,
        version=name.rpartition("-")[0],
        source="linux-source-6.12.tar.xz",
        source_digest="s",
        fragment_digest="f",
        compiler="gcc 12",
        features=(base.Feature.IPVS, base.Feature.TIME_TRAVEL),
        options={"HZ": "100"},
        built="2026-01-02T03:04:05+00:00",
        seconds=365.4,
        size=11_000_000,
        objects=1300,
    )
    registry.write(built)
    return built


def invoke(*words: str) -> Result:
    return CliRunner().invoke(kernel_command.kernel, words, standalone_mode=False)


def building(outcome: Any) -> Callable[..., Any]:
    def pretend(request: build.Request, report: Callable[[Progress], None]) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        report(Progress(step=COMPILING, done=3, total=10, seconds=9.0, current="net/x.o"))
        return outcome

    return pretend


def test_a_kernel_that_was_built_is_told_with_time_size_and_place(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = add(cache)
    monkeypatch.setattr(build, "build", building(build.Outcome(built, fresh=True)))
    result = invoke("build")
    assert result.return_value == 0
    assert result.stdout == f"{NAME}: built in 6 min 5 s, 11 MB, {built.directory}\n"
    assert result.stderr == "    9 s  compiling 30 %, 3 of about 10: net/x.o\n"


def test_a_kernel_that_is_there_is_told_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = add(cache)
    monkeypatch.setattr(build, "build", building(build.Outcome(built, fresh=False)))
    assert f"{NAME}: there already" in invoke("build").stdout


def test_the_options_reach_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[build.Request] = []

    def note(request: build.Request, _report: Any) -> Any:
        asked.append(request)
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "build", note)
    result = invoke("build", "--source", "6.1", "-j", "3", "--force")
    assert asked == [build.Request(source="6.1", jobs=3, force=True)]
    assert result.return_value == 130
    assert "the same command goes on" in result.stderr


def test_a_failure_is_told_with_the_lines_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = netns_errors.BuildFailed("make failed", remedy="look", output=("x.c:1: error",))
    monkeypatch.setattr(build, "build", building(failure))
    result = invoke("build")
    assert result.return_value == 1
    assert result.stderr == "kproxy: make failed (look)\n  log: x.c:1: error\n"


def test_a_source_that_is_not_there_is_bad_usage(tmp_path: Path) -> None:
    result = invoke("build", "--source", str(tmp_path / "absent"))
    assert isinstance(result.exception, errors.UsageError)
    assert "--source" in str(result.exception)


def test_the_list_tells_what_each_has_and_which_is_taken(cache: Path) -> None:
    built = add(cache)
    add(cache, "6.1.9-bbbbbbbb")
    (cache / "unfinished-cccccccc").mkdir()
    lines = invoke("list").stdout.splitlines()
    assert lines[1].split() == [
        *(NAME, "*", "6.12.9", "linux-source-6.12.tar.xz", "11", "MB", "2026-01-02T03:04")
    ]
    assert lines[2].split() == ["ipvs", "time-travel"]
    assert lines[3].strip() == str(built.directory / "linux")
    assert "*" not in lines[4]
    assert lines[7].startswith("unfinished-cccccccc: not finished")
    assert lines[-1] == "* the one that `--kernel auto` takes"


def test_the_list_as_json(cache: Path) -> None:
    add(cache)
    answer = json.loads(invoke("list", "--json").stdout)
    assert answer["auto"] == NAME
    assert answer["unfinished"] == []
    [row] = answer["kernels"]
    assert row["features"] == ["ipvs", "time-travel"]
    assert row["size"] == 11_000_000
    assert row["origin"] == "linux-source-6.12.tar.xz"


def test_without_any_kernel_the_list_says_what_to_do() -> None:
    assert "kproxy kernel build" in invoke("list").stdout
    assert json.loads(invoke("list", "--json").stdout)["auto"] is None


def test_the_list_tells_when_none_of_them_is_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cache)
    monkeypatch.setattr(choice, "choose", lambda _name: choice.Choice(native.Native()))
    output = invoke("list").stdout
    assert "*" not in output
    assert "own kernel, which has IPVS" in output


def test_remove_says_what_it_removed(cache: Path) -> None:
    add(cache)
    add(cache, "6.1.9-bbbbbbbb")
    assert invoke("remove", NAME).stdout == f"removed {NAME}\n"
    (cache / "unfinished-cccccccc").mkdir()
    assert invoke("remove", "--all").stdout.splitlines() == [
        *("removed 6.1.9-bbbbbbbb", "removed unfinished-cccccccc")
    ]
    assert invoke("remove", "--all").stdout == "nothing was built here\n"


@pytest.mark.parametrize("words", [["remove"], ["remove", NAME, "--all"], ["remove", "bsd"]])
def test_remove_refuses_what_is_not_clear(cache: Path, words: list[str]) -> None:
    add(cache)
    assert isinstance(invoke(*words).exception, errors.UsageError)
    assert registry.removable() == [NAME]


def test_lines_come_for_each_step_and_each_tenth() -> None:
    said: list[str] = []
    report = kernel_command.Lines(said.append)
    for done in (0, 1, 5, 11, 12, 25, 100):
        report(Progress(step=COMPILING, done=done, total=100))
    report(Progress(step="finishing"))
    assert [line.split()[3] for line in said[:-1]] == ["0", "11", "25", "100"]
    assert said[-1].endswith("finishing")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert kernel_command.duration(seconds) == text
