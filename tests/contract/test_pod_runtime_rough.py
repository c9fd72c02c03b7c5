"""What a pod runtime bears: words after the end, bad specs, kubelets killed halfway."""

import os
import select
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pod_machine import (
    PATIENCE,
    SLEEP,
    Machine,
    ended,
    log_of,
    new_runtime,
    real_machine,
    shell,
)

from kproxy import errors
from kproxy.controlplane.runtime import Streams

pytestmark = pytest.mark.kernel


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Machine]:
    yield from real_machine(tmp_path / "state")


def succeed(machine: Machine) -> None:
    """Have the kubelet killed, which takes its descriptors along, and start another one."""
    for tap in machine.runtime._taps.values():
        os.close(tap.fileno())
    machine.runtime = new_runtime(machine.lab)


@pytest.mark.parametrize("host_network", [False, True])
def test_last_words_of_a_pod_that_is_forgotten_trouble_nobody(real, host_network):
    real.runtime.start(real.sandbox(host_network=host_network), shell("echo oh; exec sleep 1000"))
    select.select([real.runtime], [], [], PATIENCE)  # something was said, and not read yet
    real.runtime.remove("uid-1")
    real.runtime.forget("uid-1")
    assert [one.container.name for one in real.exits()] == ["c"]
    assert list(real.state.glob("scratch/pod-logs/*/*")) == []


@pytest.mark.parametrize(
    "spec",
    [
        replace(SLEEP, command=("sleep", "1\0")),
        replace(SLEEP, env=(("A", "1\0"),)),
        replace(SLEEP, env=(("A=B", "1"),)),
        replace(SLEEP, working_dir="/usr\0"),
    ],
)
def test_what_no_program_can_be_given_is_refused_in_words(real, spec):
    sandbox = real.sandbox()
    with pytest.raises(errors.KproxyError, match="ns/uid-1"):
        real.runtime.start(sandbox, spec)
    with pytest.raises(errors.KproxyError, match="ns/uid-1"):
        real.runtime.exec(sandbox, spec, spec.command, Streams())


def test_programs_beside_a_container_end_when_their_kubelet_was_killed(real):
    sandbox = real.sandbox(host_network=True)
    container = real.runtime.start(sandbox, shell("setsid sleep 1000 & echo $!; wait"))
    real.until(lambda: bool(log_of(real)))
    child = int(log_of(real).split()[-1])
    beside = real.runtime.exec(sandbox, SLEEP, ["sleep", "1000"], Streams())
    succeed(real)
    assert select.select([beside], [], [], PATIENCE)[0]
    beside.close()
    assert real.runtime.list() == [(sandbox, [container])]
    assert not ended(child)
    real.runtime.remove("uid-1")
    assert [one.container for one in real.exits()] == [container]
    assert ended(child)


def test_a_container_that_was_started_but_not_written_down_ends(real, monkeypatch):
    """A kubelet may be killed between the two; its successor starts the container again."""

    class Killed(BaseException):
        pass

    def killed(pod: object) -> None:
        if pod.containers:
            raise Killed

    sandbox = real.sandbox(host_network=True)
    monkeypatch.setattr(real.runtime, "_write", killed)
    with pytest.raises(Killed):
        real.runtime.start(sandbox, SLEEP)
    (started,) = real.runtime._lab["node1"]._started
    succeed(real)
    assert real.runtime.list() == [(sandbox, [])]
    assert started.wait(PATIENCE) == -signal.SIGKILL


def test_what_a_container_left_while_there_was_no_kubelet_ends(real):
    sandbox = real.sandbox(host_network=True)
    container = real.runtime.start(sandbox, shell("sleep 1000 & echo $!; wait"))
    real.until(lambda: bool(log_of(real)))
    child = int(log_of(real).split()[-1])
    os.kill(container.pid, signal.SIGKILL)
    os.waitpid(container.pid, 0)
    assert not ended(child)
    succeed(real)
    assert real.runtime.list() == [(sandbox, [])]
    real.until(lambda: ended(child))


def test_a_new_pod_never_moves_into_a_host_of_its_name_that_is_still_there(real):
    """One that was deleted by force may take longer to go than its successor to come."""
    real.sandbox("uid-1", "web-0")
    for _ in range(2):
        with pytest.raises(errors.KproxyError, match="web-0"):
            real.sandbox("uid-2", "web-0")
    real.runtime.remove("uid-1")
    assert real.sandbox("uid-2", "web-0").uid == "uid-2"


def test_restarts_leave_no_descriptors(real):
    sandbox = real.sandbox()
    open_then = []
    for attempt in range(4):
        real.runtime.start(sandbox, shell("exit 1", attempt=attempt))
        real.exits()
        real.until(lambda: not real.runtime._taps)
        open_then.append(len(list(Path("/proc/self/fd").iterdir())))
    assert open_then[1] == open_then[-1]
