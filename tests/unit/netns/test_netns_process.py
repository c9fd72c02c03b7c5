"""A process is its pid and its start time; waiting has a deadline and a reason."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from netns import wait
from netns.errors import NetnsError, WaitTimeout
from netns.process import Process, ProcessId, kill_all, start_time


@pytest.fixture
def sleeper() -> Iterator[Process]:
    popen = subprocess.Popen(["sleep", "600"], process_group=0)
    identity = ProcessId.of(popen.pid)
    assert identity is not None
    yield Process(identity, popen=popen)
    popen.kill()
    popen.wait()


def test_a_live_process(sleeper: Process) -> None:
    assert sleeper.alive
    assert sleeper.returncode is None
    assert sleeper.rss_bytes > 0
    assert sleeper.cpu_seconds >= 0


def test_wait_tells_how_it_ended(sleeper: Process) -> None:
    assert sleeper.terminate()
    assert sleeper.wait(60) == -signal.SIGTERM
    assert not sleeper.alive
    assert not sleeper.kill()


def test_a_zombie_has_ended(sleeper: Process) -> None:
    assert sleeper.identity.alive
    os.kill(sleeper.pid, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessId.of(sleeper.pid) == sleeper.identity, "a zombie keeps its number"
    assert not sleeper.identity.alive


def test_another_with_its_number_is_not_it(sleeper: Process) -> None:
    assert not ProcessId(sleeper.pid, sleeper.identity.start_time + 1).alive


def test_wait_gives_up(sleeper: Process) -> None:
    with pytest.raises(WaitTimeout, match=f"end of process {sleeper.pid}"):
        sleeper.wait(0.01)


def test_figures_of_an_ended_process_are_an_error(sleeper: Process) -> None:
    sleeper.kill()
    sleeper.wait(60)
    with pytest.raises(NetnsError, match="has ended"):
        _ = sleeper.cpu_seconds
    with pytest.raises(NetnsError, match="has ended"):
        _ = sleeper.rss_bytes


def test_another_process_with_the_same_pid_is_a_stranger(sleeper: Process) -> None:
    stranger = ProcessId(sleeper.pid, sleeper.identity.start_time - 1)
    with pytest.raises(NetnsError, match="there is no process"):
        Process(stranger)
    kill_all([stranger])
    assert sleeper.alive


def test_kill_all_waits_for_the_end(sleeper: Process) -> None:
    kill_all([sleeper.identity])
    assert sleeper.returncode == -signal.SIGKILL


def test_a_process_that_is_nobodys_child_here(sleeper: Process) -> None:
    seen = Process(sleeper.identity)
    assert seen.alive
    seen.signal(signal.SIGKILL, group=True)
    assert seen.wait(60) is None
    assert not seen.alive


def test_start_time_of_a_process_with_a_strange_name() -> None:
    code = "import sys; open('/proc/self/comm','w').write(') S 1 (('); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        mine = start_time(os.getpid())
        theirs = start_time(child.pid)
        assert mine is not None
        assert theirs is not None
        assert theirs >= mine
        child.kill()


def test_start_time_of_nobody() -> None:
    assert start_time(2**22 + 1) is None  # above the largest pid_max


def test_wait_until_returns_the_answer() -> None:
    answers = iter([None, 0, "yes"])
    assert wait.wait_until(lambda: next(answers), 60, "an answer", interval=0.001) == "yes"


def test_wait_until_asks_once_more_after_the_deadline() -> None:
    answers = iter([False, True])
    assert wait.wait_until(lambda: next(answers), 0.01, "an answer", interval=0.05)


def test_wait_until_says_what_did_not_come() -> None:
    with pytest.raises(WaitTimeout, match="first packet"):
        wait.wait_until(lambda: False, 0.01, "first packet", interval=0.001)


def test_wait_readable() -> None:
    reading, writing = os.pipe()
    with pytest.raises(WaitTimeout, match="a byte"):
        wait.wait_readable(reading, 0.01, "a byte")
    os.write(writing, b"x")
    wait.wait_readable(reading, 10, "a byte")
    os.close(reading)
    os.close(writing)


def test_the_number_of_a_group_whose_leader_has_ended_is_no_process() -> None:
    """Some kernels (6.12) know the number then, but not as a process: EINVAL of pidfd_open(2)."""
    script = ["sh", "-c", "sleep 1000 & echo"]
    leader = subprocess.Popen(script, process_group=0, stdout=subprocess.PIPE)
    assert leader.stdout
    assert leader.stdout.readline() == b"\n"
    identity = ProcessId.of(leader.pid) or ProcessId(leader.pid, 0)
    leader.wait()
    try:
        with pytest.raises(NetnsError, match="there is no process"):
            Process(identity)
    finally:
        os.killpg(leader.pid, signal.SIGKILL)  # its child still has the group
        leader.stdout.close()


PARENT = """
import os, signal
from netns.process import end_with_parent
if os.fork() == 0:
    signal.alarm(600)
    end_with_parent(signal.SIGKILL)
    os.write(1, b"ready")
signal.pause()
"""


def test_a_process_is_told_when_its_parent_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.read(5) == b"ready"
        finally:
            parent.kill()
        wait.wait_readable(parent.stdout.fileno(), 60, "end of the child, who has the pipe, too")
        assert parent.stdout.read() == b""
