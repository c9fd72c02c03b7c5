"""The init of a host: starts what belongs there, again and again, and survives its own end."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kproxy.lab.whole import init
from netns.process import Process, ProcessId
from netns.wait import wait_until

PATIENCE = 60.0


class Host:
    """An init in a directory, and all that it has started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "init.log"
        self._inits: list[subprocess.Popen[bytes]] = []

    def units(self, **commands: list[str]) -> None:
        log = str(self.directory / "units.txt")
        made = [init.Unit(name=name, command=words, log=log) for name, words in commands.items()]
        init.write(self.directory / init.UNITS, made)

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            command = init.command("host1", self.directory)
            self._inits.append(subprocess.Popen(command, stderr=log))
        return self._inits[-1]

    def running(self, name: str) -> ProcessId | None:
        """Return the process of a unit that runs now."""
        state = init.read_running(self.directory).get(name)
        if state is None:
            return None
        found = ProcessId(state.pid, state.start_time)
        return found if found.alive else None

    def until_running(self, name: str, other_than: ProcessId | None = None) -> ProcessId:
        def new() -> ProcessId | None:
            found = self.running(name)
            return found if found != other_than else None

        found = wait_until(new, PATIENCE, f"{name} to run")
        assert found is not None
        return found

    def lines(self, msg: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines of the log with that message, and return them."""

        def found() -> list[dict[str, Any]]:
            whole = self.log.read_bytes().rpartition(b"\n")[0].splitlines()
            every = [msgspec.json.decode(line) for line in whole if line[:1] == b"{"]
            those = [line for line in every if line["msg"] == msg]
            return those if len(those) >= count else []

        return wait_until(found, PATIENCE, f"{count} lines {msg!r}")

    def close(self) -> None:
        for process in self._inits:
            process.kill()
            process.wait()
        for state in init.read_running(self.directory).values():
            with contextlib.suppress(Exception):
                Process(ProcessId(state.pid, state.start_time)).kill(group=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_who_ends_is_started_again_at_once_and_then_after_ten_seconds(host: Host) -> None:
    host.units(short=["sh", "-c", "exit 3"], long=["sleep", "1000"])
    host.start()
    ends = host.lines("unit ended", 2)
    assert [end["again_s"] for end in ends[:2]] == [0.0, 10.0]
    assert {end["code"] for end in ends} == {3}
    assert {end["unit"] for end in ends} == {"short"}
    host.until_running("long")


def test_who_is_killed_comes_back_as_another_process(host: Host) -> None:
    host.units(long=["sleep", "1000"])
    host.start()
    before = host.until_running("long")
    os.kill(before.pid, signal.SIGKILL)
    host.until_running("long", other_than=before)
    (end,) = host.lines("unit ended")
    assert (end["pid"], end["code"]) == (before.pid, -signal.SIGKILL)
    assert [line["starts"] for line in host.lines("unit started", 2)] == [1, 2]


def test_a_new_init_goes_on_with_the_programs_of_one_that_was_killed(host: Host) -> None:
    host.units(long=["sleep", "1000"], other=["sleep", "1000"])
    first = host.start()
    before, other = host.until_running("long"), host.until_running("other")
    first.kill()
    first.wait()
    os.kill(other.pid, signal.SIGKILL)  # nobody sees it
    host.start()
    host.lines("init started", 2)
    host.until_running("other", other_than=other)
    assert host.running("long") == before
    own = init.read_own(host.directory)
    assert own is not None
    assert own.starts == 2


def test_what_is_to_be_down_stays_down_and_comes_up_without_waiting(host: Host) -> None:
    host.units(long=["sleep", "1000"])
    process = host.start()
    before = host.until_running("long")
    init.write(host.directory / init.DOWN, ["long"])
    process.send_signal(signal.SIGHUP)
    (end,) = host.lines("unit ended")
    assert end["again_s"] is None
    assert host.running("long") is None
    init.write(host.directory / init.DOWN, [])
    process.send_signal(signal.SIGHUP)
    host.until_running("long", other_than=before)


def test_a_program_that_is_not_there_is_told_and_the_others_run(host: Host) -> None:
    host.units(none=["/nowhere/at/all"], long=["sleep", "1000"])
    host.start()
    (line, *_) = host.lines("unit cannot start")
    assert line["unit"] == "none"
    host.until_running("long")


def test_a_program_gets_what_its_unit_says(host: Host, tmp_path: Path) -> None:
    log = tmp_path / "own.txt"
    unit = init.Unit(
        name="env", command=["sh", "-c", "echo $WORD; exec sleep 1000"], log=str(log),
        env={"WORD": "given"},
    )  # fmt: skip
    init.write(host.directory / init.UNITS, [unit])
    host.start()
    wait_until(lambda: log.exists() and log.read_text() == "given\n", PATIENCE, "its word")
    assert sys.executable == init.command("h", tmp_path)[0]
