"""Nothing of an embedded kernel stays on the host, whichever of its keepers is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from uml_runner import Runner, read_until, wait_until_clean, wait_until_dead

from netns.kernels import base, warden

pytestmark = [
    pytest.mark.uml,
    pytest.mark.needs_tool("linux.uml"),
    pytest.mark.skipif(base.inside_guest(), reason="needs the host: boots embedded kernels"),
]
WITHOUT_NAMESPACE = """
import sys
from netns.kernels import base, uml
command = base.Command(argv=("sh", "-c", "echo up; exec sleep 1000"))
sys.exit(uml.Uml(isolate=False).run(command, base.Limits(memory=256 * base.MIB, time=600)))
"""


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "state")


@pytest.fixture
def sleeper(runner: Runner) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that sleeps in a kernel."""
    process = runner.start("sh", "-c", "echo up; exec sleep 1000")
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    yield process
    process.kill()
    process.communicate(timeout=60)


def child(pid: int) -> psutil.Process:
    [one] = psutil.Process(pid).children()
    return one


def test_when_the_user_is_killed(runner: Runner, sleeper: "subprocess.Popen[bytes]") -> None:
    assert len(runner.processes()) >= 3, "a kernel is several processes"
    sleeper.kill()
    assert wait_until_clean(runner) == []


def test_when_the_warden_is_killed(runner: Runner, sleeper: "subprocess.Popen[bytes]") -> None:
    child(sleeper.pid).kill()
    _, said = sleeper.communicate(timeout=60)
    assert sleeper.returncode == base.EXIT_GUEST_FAILED
    assert said.count(b"\n") < 10
    assert wait_until_clean(runner) == []


def test_when_both_are_killed_the_next_start_repairs(
    runner: Runner, sleeper: "subprocess.Popen[bytes]"
) -> None:
    guard = child(sleeper.pid)
    guard.suspend()  # so that it cannot tidy up in between
    sleeper.kill()
    sleeper.wait()
    guard.kill()
    left = wait_until_dead(runner)
    assert [Path(one).parent.name for one in left] == ["guests"], "processes are gone all the same"
    assert warden.repair(runner.state) == [Path(left[0])]
    assert runner.leftovers() == []


@pytest.mark.parametrize("victims", ["user", "warden", "both"])
def test_without_a_pid_namespace(runner: Runner, victims: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_NAMESPACE],
        env=runner.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    read_until(process.stdout.fileno(), b"up\n")
    guard = child(process.pid)
    if victims == "both":
        guard.suspend()
    if victims in ("user", "both"):
        process.kill()
        process.wait()
    if victims in ("warden", "both"):
        os.kill(guard.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    if victims == "both":
        warden.repair(runner.state)
    assert wait_until_clean(runner) == []
