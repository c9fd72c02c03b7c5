"""Whatever is killed, whenever: the same command works again, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netns.wait import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.needs_module("ip_vs")]
COMPARE = (
    *(sys.executable, "-m", "kproxy", "compare", "--kernel", "native", "--modes", "iptables"),
    *("--scenario", "baseline", "--trials", "1", "--out"),
)


def left_behind() -> dict[str, list[str]]:
    """Return what a lab could leave: namespaces, mounts, processes, links, files."""
    namespaces = [path.name for path in Path("/run/netns").glob("*")]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "netns" in line]
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    state = [str(path) for path in Path("/run/kproxy").rglob("*") if path.is_file()]
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(b"kproxy") for word in words):
            processes.append(b" ".join(words).decode())
    return {
        "namespaces": namespaces,
        "mounts": mounts,
        "links": links,
        "state": state,
        "processes": processes,
    }


class Run:
    """A command whose progress can be waited for; its standard error goes to a file."""

    def __init__(self, command: list[str], stderr: Path) -> None:
        self._stderr = stderr
        with stderr.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)

    def until(self, line: str) -> "Run":
        """Return when the progress says ``line``."""

        def said() -> bool:
            assert self.process.poll() is None, self.said()
            return line in self.said()

        wait_until(said, 120, line, interval=0.02)
        return self

    def said(self) -> str:
        return self._stderr.read_text()

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.mark.parametrize(
    "moment",
    ["starting the control plane", "waiting for pods and proxies", "baseline, trial 1"],
)
def test_after_sigkill_the_same_command_works_and_nothing_is_left(
    moment: str, tmp_path: Path
) -> None:
    before = left_behind()
    command = [*COMPARE, str(tmp_path / "out")]
    Run(command, tmp_path / "err").until(moment).end(signal.SIGKILL)
    assert left_behind() != before  # the test would prove nothing if there were nothing to repair
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert left_behind() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_takes_everything_away(number: int, tmp_path: Path) -> None:
    before = left_behind()
    run = Run([*COMPARE, str(tmp_path / "out")], tmp_path / "err").until("baseline, trial 1")
    assert run.end(number) == 128 + number, run.said()
    assert "Traceback" not in run.said()
    assert left_behind() == before


@pytest.mark.parametrize(
    "victim", ["kproxy.controlplane.apiserver", "kproxy.lab.node", "kproxy.traffic.udp_send"]
)
def test_killing_a_part_ends_in_a_result_or_a_clear_error(victim: str, tmp_path: Path) -> None:
    before = left_behind()
    run = Run([*COMPARE, str(tmp_path / "out")], tmp_path / "err").until("baseline, trial 1")
    killed = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if victim.encode() in words:
            os.kill(int(entry.name), signal.SIGKILL)
            killed += 1
            break
    assert killed == 1
    assert run.process.wait(120) in (0, 1), run.said()
    assert "Traceback" not in run.said()
    assert left_behind() == before
    again = subprocess.run([*COMPARE, str(tmp_path / "out")], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
