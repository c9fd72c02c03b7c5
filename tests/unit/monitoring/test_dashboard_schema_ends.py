"""What is told of the compiler of dashboards, a script here, where it does not do its work."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from kproxy.monitoring.dashboards import __main__ as command
from kproxy.monitoring.dashboards import schema
from netns.wait import wait_until


@pytest.fixture
def tsc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the compiler is to be, in a cache that is there already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = schema.directory()
    path = place / "node_modules" / ".bin" / "tsc"
    path.parent.mkdir(parents=True)
    (place / "installed").touch()
    return path


def write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_one_that_takes_too_long_is_told_in_a_line_and_ended_with_its_children(
    tsc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "pid"
    write(tsc, f"sleep 1000 & echo $! > {told}; wait")

    class Begun(subprocess.Popen[str]):
        """Whose time begins when its child is there, on a slow machine, too."""

        def communicate(self, *given: Any, **named: Any) -> tuple[str, str]:
            wait_until(lambda: told.exists() and told.read_text(), 60.0, "its child to begin")
            return super().communicate(*given, **named)

    monkeypatch.setattr(subprocess, "Popen", Begun)
    monkeypatch.setattr(schema, "COMPILE_S", 0.2)
    assert command.main(["schema"]) == 1
    said = capsys.readouterr()
    assert said.out == "tsc has not ended within 0.2 s: the dashboards are not checked\n"
    child = int(told.read_text())
    wait_until(lambda: not lives(child), 60.0, "its child lives on")


def lives(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_it_says_is_told(tsc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tsc, "echo one; echo two >&2; exit 2")
    assert command.main(["schema"]) == 1
    assert capsys.readouterr().out == "one\ntwo\n"
    write(tsc, "exit 0")
    assert command.main(["schema"]) == 0
    assert capsys.readouterr().out == ""


def test_one_that_is_not_there_is_told_in_a_line(
    tsc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["schema"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"kproxy: cannot run {tsc}: No such file")
    assert f"remove {schema.directory()}" in line
