"""The process of a proxy is found by what it holds, from /proc alone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kproxy.monitoring.nodecare import kill, process
from kproxy.monitoring.nodecare.process import State

LOCK = "kproxy/writes"


class Proc:
    """A tree like /proc."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "net").mkdir()
        (root / "uptime").write_text("1000.00 900.00\n")
        self.unix: list[str] = ["Num RefCount Protocol Flags Type St Inode Path"]
        self.listen(1, "/run/other")
        self.add(1, "python -m pytest", link_self=True)

    def listen(self, inode: int, path: str, flags: str = "00010000") -> None:
        self.unix.append(f"0000: 00000002 00000000 {flags} 0005 01 {inode} {path}")
        (self.root / "net" / "unix").write_text("\n".join(self.unix) + "\n")

    def add(
        self,
        pid: int,
        command: str,
        *,
        state: str = "S",
        name: str = "python",
        inode: int = 0,
        net: int = 7,
        caught: int = 0,
        start: int = 5000,
        user: int | None = None,
        link_self: bool = False,
    ) -> None:
        here = self.root / str(pid)
        (here / "fd").mkdir(parents=True)
        (here / "ns").mkdir()
        (here / "ns" / "net").symlink_to(f"net:[{net}]")
        fields = [state, *["0"] * 18, str(start), *["0"] * 10]
        (here / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (here / "cmdline").write_bytes(b"".join(w.encode() + b"\0" for w in command.split()))
        uid = os.geteuid() if user is None else user
        uids = f"Uid:\t0\t{uid}\t0\t0"
        (here / "status").write_text(f"Name:\t{name}\n{uids}\nSigCgt:\t{caught:016x}\n")
        if inode:
            (here / "fd" / "5").symlink_to(f"socket:[{inode}]")
        if link_self:
            (self.root / "self").symlink_to(str(pid))


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.mark.parametrize(
    ("now", "lives"),
    [
        ({}, True),
        ({"state": "T"}, True),
        ({"state": "Z"}, False),
        ({"start": 9000}, False),  # Another one has its number.
        (None, False),
    ],
)
def test_whether_exactly_this_process_lives(
    proc: Proc, now: dict[str, Any] | None, lives: bool
) -> None:
    proc.listen(77, f"@{LOCK}")
    proc.add(30, "python -m kproxy proxy", inode=77)
    found = process.find(LOCK, proc.root)
    assert found is not None
    shutil.rmtree(proc.root / "30")
    if now is not None:
        proc.add(30, "python -m kproxy proxy", **now)
    assert process.lives(found, proc.root) is lives


def test_who_holds_the_lock_is_the_proxy(proc: Proc) -> None:
    proc.listen(77, f"@{LOCK}")
    proc.add(20, "python -m kproxy proxy --config=/c", start=9000)
    proc.add(30, "python -m kproxy proxy", inode=77, state="T", caught=1 << (10 - 1))
    found = process.find(LOCK, proc.root)
    assert found is not None
    assert (found.pid, found.state, found.holds_lock) == (30, State.STOPPED, True)
    assert found.catches == {signal.SIGUSR1}
    assert found.age_s == pytest.approx(1000 - 5000 / os.sysconf("SC_CLK_TCK"))


def test_a_socket_that_does_not_listen_is_no_lock(proc: Proc) -> None:
    proc.listen(77, f"@{LOCK}", flags="00000000")
    proc.add(30, "sleep 1", inode=77)
    assert process.find(LOCK, proc.root) is None


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/usr/local/bin/kube-proxy --config=/c", "kube-proxy"),
        ("kproxy proxy --config=/c", "kproxy"),
        ("/opt/python /opt/bin/kproxy proxy", "kproxy"),
        ("/opt/python -m kproxy proxy", "kproxy"),
        ("kproxy node look", ""),
        ("vi kproxy proxy.txt", ""),
        ("kproxy", ""),
    ],
)
def test_without_a_lock_it_is_known_by_its_words(proc: Proc, command: str, kind: str) -> None:
    proc.add(30, command)
    found = process.find(LOCK, proc.root)
    assert (found.kind if found else "") == kind


def test_a_proxy_of_another_network_is_none_of_ours(proc: Proc) -> None:
    proc.add(30, "kube-proxy", net=8)
    assert process.find(LOCK, proc.root) is None


def test_who_has_taken_the_name_without_being_us_is_no_proxy(proc: Proc) -> None:
    proc.listen(77, f"@{LOCK}")
    proc.add(30, "kproxy proxy --config=/tmp/evil", inode=77, user=os.geteuid() + 1000)
    assert process.find(LOCK, proc.root) is None


def test_a_zombie_has_a_name_only_and_comes_last(proc: Proc) -> None:
    proc.add(30, "", state="Z", name="kube-proxy", net=0, start=9000)
    found = process.find(LOCK, proc.root)
    assert found is not None
    assert found.state is State.ZOMBIE
    proc.add(31, "kube-proxy")
    found = process.find(LOCK, proc.root)
    assert found is not None
    assert found.pid == 31


def test_names_with_brackets_and_blanks_mislead_nobody(proc: Proc) -> None:
    proc.add(30, "kube-proxy", name="a) T (b")
    found = process.find(LOCK, proc.root)
    assert found is not None
    assert (found.state, found.start_time) == (State.WAITS, 5000)


def test_the_real_proc_tells_of_a_real_holder() -> None:
    name = f"kproxy/test-care-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as held:
        held.bind(f"\0{name}")
        held.listen()
        found = process.find(name)
    assert found is not None
    assert (found.pid, found.holds_lock) == (os.getpid(), True)


@pytest.fixture
def victim() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])


def as_proxy(of: int, **fields: Any) -> process.Process:
    stat = Path(f"/proc/{of}/stat").read_text()
    made: dict[str, Any] = {
        "pid": of,
        "start_time": int(stat.rpartition(")")[2].split()[19]),
        "age_s": 1.0,
        "kind": "kproxy",
        "state": State.STOPPED,
        "command": (),
        "holds_lock": True,
        "catches": frozenset[int](),
        **fields,
    }
    return process.Process(**made)


def always(one: process.Process | None) -> Callable[[str], process.Process | None]:
    return lambda lock: one


def test_a_stopped_process_is_killed_and_none_that_has_its_number_now(
    victim: subprocess.Popen[bytes],
) -> None:
    try:
        victim.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, victim.pid, os.WSTOPPED | os.WNOWAIT)
        assert process.state_of(victim.pid) is State.STOPPED
        other = as_proxy(victim.pid, start_time=1)
        assert not process.send(other, signal.SIGKILL)
        assert victim.poll() is None
        one = as_proxy(victim.pid)
        done = kill.kill(LOCK, "n1", find=lambda lock: one)
        assert done.good
        assert victim.wait(60) == -signal.SIGKILL
        assert not process.send(one, signal.SIGKILL)
    finally:
        victim.kill()
        victim.wait()


def test_what_cannot_be_killed_is_refused_with_the_reason() -> None:
    sent: list[int] = []

    def send(one: process.Process, number: int) -> bool:
        sent.append(number)
        return True

    for one, reason in (
        (None, "no proxy runs"),
        (as_proxy(os.getpid(), pid=1), "process 1 of its pod's PID namespace"),
        (as_proxy(os.getpid(), state=State.ZOMBIE), "has ended already"),
    ):
        done = kill.kill(LOCK, "n1", find=always(one), send=send)
        assert not done.good
        assert reason in done.refused
    assert sent == []
    one = as_proxy(os.getpid())
    planned = kill.kill(LOCK, "n1", dry_run=True, find=lambda lock: one, send=send)
    assert planned.done
    assert sent == []
