"""A restore that outlives its proxy is waited for; real sockets, programs and namespaces."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kproxy.errors import KernelError
from kproxy.kernel.iptables import turn

PROXY = """
import os, sys
from kproxy.kernel.execer import Execer
from kproxy.kernel.iptables import turn
name, gate = sys.argv[1:]
with turn.held(name) as inherit:
    Execer().run(["sh", "-c", f"echo > {gate}; cat {gate}"], inherit=inherit)
"""


@pytest.fixture
def name() -> str:
    return f"kproxy-test-{os.getpid()}-restore"


@pytest.fixture
def orphan(name: str, tmp_path: Path) -> Iterator[Path]:
    """A restore whose proxy was killed; it ends when somebody writes into the file given."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    proxy = subprocess.Popen([sys.executable, "-c", PROXY, name, str(gate)])
    gate.read_text()  # It runs.
    proxy.send_signal(signal.SIGKILL)
    proxy.wait()
    yield gate
    # Also if the test failed: let it go.
    descriptor = os.open(gate, os.O_RDWR | os.O_NONBLOCK)
    os.close(descriptor)


def test_who_reads_waits_for_the_restore_of_a_killed_proxy(name: str, orphan: Path) -> None:
    with pytest.raises(KernelError, match="still runs"):
        turn.wait(name, 0.01)
    with pytest.raises(KernelError, match="still runs"), turn.held(name):
        raise AssertionError("held twice")
    waiting = threading.Thread(target=turn.wait, args=(name, 60))
    waiting.start()
    assert waiting.is_alive()
    orphan.write_text("")
    waiting.join(60)
    assert not waiting.is_alive()
    with turn.held(name) as inherit:
        assert len(inherit) == 1


def test_without_a_restore_nobody_waits(name: str) -> None:
    turn.wait(name, 0)
    with turn.held(name):
        pass
    turn.wait(name, 0)


def test_who_may_not_change_rules_holds_up_nobody(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with turn.held(name):
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        turn.wait(name, 0)
        with turn.held(name) as inherit:
            assert inherit == ()
