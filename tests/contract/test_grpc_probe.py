"""A probe by gRPC asks a real server: an etcd member, which speaks the health protocol."""

import shutil
import signal
import subprocess
import time

import pytest
from child_processes import DIES_WITH_US
from storage_processes import free_loopback

from kproxy.controlplane.actions import Actions, Check
from kproxy.controlplane.fakeruntime import FakeRuntime
from kproxy.controlplane.storage import etcdmember
from netns.wait import wait_until

PATIENCE_S = 60.0


@pytest.fixture
def member(tmp_path):
    """Run one member; return its address."""
    address = free_loopback(etcdmember.CLIENT_PORT)
    command = etcdmember.command("one", tmp_path / "data", {"one": address})
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*DIES_WITH_US, *command], stdout=log, stderr=log)
    yield address
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.fixture
def ask():
    """Return a function that does one probe and returns its outcome."""
    actions = Actions(FakeRuntime())

    def outcome(check):
        found = []
        actions.begin(
            check,
            now=time.monotonic(),
            timeout=PATIENCE_S,
            done=lambda outcome, now: found.append(outcome),
        )

        def advanced():
            actions.advance(time.monotonic())
            return found

        # The check's own time-out comes before the deadline.
        return wait_until(advanced, 2 * PATIENCE_S, f"an outcome of {check}", interval=0.01)[0]

    yield outcome
    actions.close()


@pytest.mark.needs_tool("etcd")
def test_a_server_that_serves_is_well_and_a_service_that_it_does_not_know_is_not(member, ask):
    place = {"host": member, "port": etcdmember.CLIENT_PORT}
    wait_until(lambda: ask(Check(**place)).success, PATIENCE_S, "a healthy member", interval=0.1)
    unknown = ask(Check(**place, service="shop"))
    assert not unknown.success
    assert "health rpc failed" in unknown.message
