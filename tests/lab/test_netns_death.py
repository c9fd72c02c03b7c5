"""Whatever happens to a lab, nothing of it stays; several processes may work on one lab."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import netns_samples as samples
import pytest

from netns import lab, namespace, sysctl, wait
from netns.errors import LabBusy, LabGone
from netns.lab import Lab
from netns.process import ProcessId

pytestmark = pytest.mark.lab

NAME = f"nd{os.getpid()}"
MARKER = f"marker-{NAME}"
CHILD = Path(__file__).with_name("netns_child.py")
DEADLINE = 60.0


def child(*words: object) -> list[str]:
    return [sys.executable, str(CHILD), *map(str, words)]


def started(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(child(*words), stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=DEADLINE)
    return out


def all_steps(state: Path) -> int:
    process = started("build", state, NAME, MARKER, -1)
    out = ended(process)
    assert process.returncode == 0
    assert samples.remains(NAME, state, MARKER) == []
    return int(out.split()[-1])


def test_a_lab_killed_at_any_step_is_repaired(tmp_path: Path) -> None:
    state = tmp_path / "state"
    steps = all_steps(state)
    # The same points in every run; the first and the last ones always.
    points = {0, 1, 2, 3, steps - 2, *random.Random(1).sample(range(steps), 8)}
    left = 0
    for point in sorted(points):
        process = started("build", state, NAME, MARKER, point)
        ended(process)
        assert process.returncode == -signal.SIGKILL, f"step {point} of {steps}"
        left += bool(samples.remains(NAME, state, MARKER))
        lab.repair(state)
        assert samples.remains(NAME, state, MARKER) == [], f"after step {point} of {steps}"
    assert left >= len(points) // 2  # otherwise there was nothing to repair


def test_the_next_start_repairs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    owner = started("hold", state, NAME)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    with namespace.entered(f"{NAME}-left"):
        sysctl.write_all({"net.ipv4.ip_default_ttl": "33"}, "left")
    owner.kill()
    ended(owner)
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        assert running["left"].call(sysctl.path_of("net.ipv4.ip_default_ttl").read_text) != "33\n"
        samples.arrives(running["left"], running["right"], "198.51.100.2")
    assert samples.remains(NAME, state, MARKER) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_takes_the_lab_away(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    owner = started("hold", state, NAME)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    with pytest.raises(LabBusy, match=f"process {owner.pid} runs a lab"):
        lab.repair(state)
    owner.send_signal(number)
    ended(owner)
    assert owner.returncode not in (0, -signal.SIGKILL)
    assert samples.remains(NAME, state, MARKER) == []


def test_repair_spares_a_stranger_with_a_recorded_pid(tmp_path: Path) -> None:
    state = tmp_path / "state"
    owner = started("build", state, NAME, MARKER, 60)
    ended(owner)
    with subprocess.Popen(["tail", "-f", "/dev/null"]) as stranger:
        identity = ProcessId.of(stranger.pid)
        assert identity is not None
        with (state / "journal").open("a") as book:
            book.write(
                f'{{"op": "process", "host": "left", "pid": {identity.pid}, '
                f'"start_time": {identity.start_time - 1}}}\n'
            )
        assert lab.repair(state)
        assert stranger.poll() is None
        stranger.kill()
    assert samples.remains(NAME, state, MARKER) == []


def test_repair_of_nothing(tmp_path: Path) -> None:
    assert not lab.repair(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_files_of_others_in_the_state_directory_stay(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "mine").write_text("x")
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        (running.scratch / "theirs").write_text("x")
    assert [path.name for path in state.iterdir()] == ["mine"]


def test_another_process_adds_and_removes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        running["router"].run(child("pods", state, "router", 1, 4), timeout=DEADLINE)
        assert sorted(running.hosts) == ["left", "p1", "p3", "right", "router"]
        samples.arrives(running["left"], running["p3"], "10.0.0.3")
        running.remove("p3")
        assert not namespace.exists(f"{NAME}-p3")
    assert samples.remains(NAME, state, MARKER) == []


def test_several_processes_add_at_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        nodes = [("router", 1), ("left", 11), ("right", 21)]
        working = [
            running[node].spawn(child("pods", state, node, first, 4)) for node, first in nodes
        ]
        assert [process.wait(DEADLINE) for process in working] == [0, 0, 0]
        expected = {f"p{number}" for number in (1, 3, 11, 13, 21, 23)}
        assert expected == set(running.hosts) - {"left", "right", "router"}
        samples.arrives(running["left"], running["p1"], "10.0.0.1")
    assert samples.remains(NAME, state, MARKER) == []


def test_pods_outlive_the_process_that_added_them_and_are_adopted(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        worker = running["router"].spawn(child("pods", state, "router", 1, 200))
        wait.wait_until(lambda: "p2" in running, DEADLINE, "second pod")
        worker.kill()
        worker.wait(DEADLINE)
        with Lab.attach(state) as attached:
            samples.arrives(attached["left"], attached["p1"], "10.0.0.1")
            attached.remove("p1")
        assert "p1" not in running
        host, cable = samples.pod("p1", "router", "10.0.0.201/32")
        running.add(host, links=[cable])
        samples.arrives(running["left"], running["p1"], "10.0.0.201")
    assert samples.remains(NAME, state, MARKER) == []


def test_a_lab_is_taken_away_while_another_process_adds(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Lab(samples.line(), name=NAME, state_dir=state) as running:
        outside = started("pods", state, "router", 1, 200)
        wait.wait_until(lambda: "p2" in running, DEADLINE, "second pod")
    assert samples.remains(NAME, state, MARKER) == []
    ended(outside)
    assert outside.returncode == 1
    assert samples.remains(NAME, state, MARKER) == []


def test_attaching_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(LabGone, match="there is no lab"):
        Lab.attach(tmp_path)


def test_attaching_to_the_dead(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ended(started("build", state, NAME, MARKER, 60))
    with pytest.raises(LabGone, match="is dead"):
        Lab.attach(state)
    lab.repair(state)


def test_a_handle_outlives_its_lab(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Lab(samples.line(), name=NAME, state_dir=state):
        attached = Lab.attach(state)
    with attached, pytest.raises(LabGone, match="being torn down"):
        attached.remove("left")


def test_without_the_right_to_mount_nothing_stays(tmp_path: Path) -> None:
    jail = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*jail, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs user namespaces")
    state = tmp_path / "state"
    command = [*jail, *child("build", state, NAME, MARKER, -1)]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert "cannot mount network namespace" in failed.stderr
    assert samples.remains(NAME, state, MARKER) == []
