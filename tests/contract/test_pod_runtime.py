"""What a pod runtime promises, kept by records in memory and by namespaces and processes."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from pod_machine import (
    NODE,
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
from kproxy.controlplane.fakeruntime import FakeRuntime
from kproxy.controlplane.runtime import Exit, Streams


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kernel)])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    if request.param == "real":
        yield from real_machine(tmp_path / "state")
        return
    ranges = [str(NODE.pod_cidr), str(NODE.pod_cidr6)]
    runtime = FakeRuntime(ranges, [str(NODE.address), str(NODE.address6)])
    yield Machine(runtime, None, tmp_path)
    runtime.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Machine]:
    yield from real_machine(tmp_path / "state")


def test_a_sandbox_has_an_address_of_each_family_in_the_nodes_ranges(machine):
    first, second = machine.sandbox("uid-1"), machine.sandbox("uid-2")
    for sandbox in (first, second):
        v4, v6 = map(ip_address, sandbox.addresses)
        assert v4 in NODE.pod_cidr
        assert v6 in NODE.pod_cidr6
    assert set(first.addresses).isdisjoint(second.addresses)


def test_the_same_uid_is_the_same_sandbox(machine):
    assert machine.sandbox() == machine.sandbox()
    assert machine.runtime.sandbox("uid-1") == machine.sandbox()
    assert len(machine.runtime.list()) == 1


def test_a_host_network_pod_has_the_nodes_addresses(machine):
    assert machine.sandbox(host_network=True).addresses == (
        str(NODE.address),
        str(NODE.address6),
    )


def test_no_address_is_given_out_twice(machine):
    first = machine.sandbox("uid-1")
    machine.runtime.remove("uid-1")
    assert set(machine.sandbox("uid-2").addresses).isdisjoint(first.addresses)


def test_without_a_sandbox_nothing_runs(machine):
    sandbox = machine.sandbox()
    machine.runtime.remove("uid-1")
    assert machine.runtime.sandbox("uid-1") is None
    with pytest.raises(errors.KproxyError):
        machine.runtime.start(sandbox, SLEEP)
    with pytest.raises(errors.KproxyError):
        machine.runtime.exec(sandbox, SLEEP, ["true"], Streams())


def test_a_started_container_is_listed_with_its_attempt(machine):
    sandbox = machine.sandbox()
    started = machine.runtime.start(sandbox, replace(SLEEP, attempt=3))
    assert (started.uid, started.name, started.attempt) == ("uid-1", "c", 3)
    assert machine.runtime.list() == [(sandbox, [started])]
    assert machine.runtime.exits() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_by_a_signal_is_told_once(machine, number):
    container = machine.runtime.start(machine.sandbox(), SLEEP)
    machine.runtime.signal(container, number)
    assert machine.exits() == [Exit(container=container, code=-number)]
    assert machine.runtime.exits() == []
    assert machine.runtime.list() == [(machine.sandbox(), [])]
    machine.runtime.signal(container, number)


@pytest.mark.parametrize("code", [0, 7])
def test_an_end_is_told_with_its_code(machine, code):
    container = machine.runtime.start(machine.sandbox(), shell(f"exit {code}"))
    machine.end(container, code)
    assert machine.exits() == [Exit(container=container, code=code)]


def test_removing_ends_what_runs_and_is_told(machine):
    container = machine.runtime.start(machine.sandbox(), SLEEP)
    machine.runtime.remove("uid-1")
    assert machine.exits() == [Exit(container=container, code=-9)]
    assert machine.runtime.list() == []
    machine.runtime.remove("uid-1")


def test_a_sandbox_destroyed_from_outside_is_gone_when_the_end_is_told(machine):
    container = machine.runtime.start(machine.sandbox(), SLEEP)
    machine.destroy("uid-1")
    (end,) = machine.exits()
    assert end.container == container
    assert machine.runtime.sandbox("uid-1") is None
    machine.runtime.remove("uid-1")
    assert machine.runtime.list() == []


def run(machine: Machine, command: Sequence[str], code: int | None = 0):
    if isinstance(machine.runtime, FakeRuntime):
        machine.runtime.execute = lambda words: code
    return machine.runtime.exec(machine.sandbox(), SLEEP, command, Streams())


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_beside_a_container(machine, code):
    machine.runtime.start(machine.sandbox(), SLEEP)
    beside = run(machine, ["sh", "-c", f"exit {code}"], code)
    assert select.select([beside], [], [], PATIENCE)[0]
    assert beside.poll() == code
    beside.kill()
    beside.close()


def test_a_program_that_does_not_end_can_be_killed(machine):
    machine.runtime.start(machine.sandbox(), SLEEP)
    beside = run(machine, ["sleep", "1000"], None)
    assert beside.poll() is None
    beside.kill()
    beside.close()


def test_it_says_what_the_machine_is_and_that_all_is_well(machine):
    assert machine.runtime.trouble() == ""
    assert "containerRuntimeVersion" in machine.runtime.machine()


# What only processes and namespaces can show.


@pytest.mark.kernel
def test_the_node_reaches_its_pods_in_both_families(real):
    port = 8080
    server = f"import socket,time\ns=socket.create_server(('::',{port}),family=socket.AF_INET6,"
    server += "dualstack_ipv6=True)\nwhile 1: s.accept()"
    spec = replace(SLEEP, command=(sys.executable, "-c", server), ports=(("TCP", port),))
    sandbox = real.sandbox()
    real.runtime.start(sandbox, spec)
    real.until(lambda: real.runtime.ready(sandbox, spec))
    for address in sandbox.addresses:
        with real.lab["node1"].entered():
            connection = socket.create_connection((address, port), timeout=PATIENCE)
        with connection:
            assert connection.getpeername()[0] == address


@pytest.mark.kernel
def test_a_container_has_its_environment_directory_and_log(real):
    spec = shell("echo $WHO $PWD; echo oh >&2", env=(("WHO", "me"),), working_dir="/usr")
    real.runtime.start(real.sandbox(), spec)
    real.exits()
    files = real.runtime.log("uid-1", "c", 0)
    assert not files.plain
    lines = files.paths[-1].read_text().splitlines()
    assert sorted(line.split(" ", 1)[1] for line in lines) == ["stderr F oh", "stdout F me /usr"]
    real.runtime.remove("uid-1")
    assert real.runtime.log("uid-1", "c", 0) == files
    real.runtime.forget("uid-1")
    assert real.runtime.log("uid-1", "c", 0) is None


@pytest.mark.kernel
@pytest.mark.parametrize(
    "spec",
    [replace(SLEEP, command=("/no/such/program",)), replace(SLEEP, working_dir="/no/such/place")],
)
def test_what_cannot_be_started_is_told_and_leaves_nothing(real, spec):
    sandbox = real.sandbox()
    with pytest.raises(errors.KproxyError, match=r"/no/such|cannot start"):
        real.runtime.start(sandbox, spec)
    assert real.runtime.list() == [(sandbox, [])]
    assert list(real.state.glob("scratch/pod-logs/**/0.std*")) == []


@pytest.mark.kernel
@pytest.mark.parametrize("host_network", [False, True])
def test_what_a_container_leaves_behind_ends_with_it(real, host_network):
    """As with a PID namespace: when the first process ends, so do the others."""
    sandbox = real.sandbox(host_network=host_network)
    real.runtime.start(sandbox, shell("sleep 1000 & echo $!; exit 0"))
    real.exits()
    files = real.runtime.log("uid-1", "c", 0)
    pid = int(files.paths[-1].read_text().split()[-1])
    real.until(lambda: ended(pid))


@pytest.mark.kernel
def test_sigkill_ends_children_too(real):
    container = real.runtime.start(real.sandbox(), shell("sleep 1000 & echo $!; wait"))
    real.until(lambda: bool(log_of(real)))
    pid = int(log_of(real).split()[-1])
    real.runtime.signal(container, signal.SIGKILL)
    real.exits()
    real.until(lambda: ended(pid))


@pytest.mark.kernel
def test_programs_beside_a_host_network_pod_end_with_it(real):
    sandbox = real.sandbox(host_network=True)
    beside = real.runtime.exec(sandbox, SLEEP, ["sleep", "1000"], Streams())
    real.runtime.remove("uid-1")
    assert select.select([beside], [], [], PATIENCE)[0]
    beside.close()


@pytest.mark.kernel
def test_a_network_that_is_down_is_told(real):
    subprocess.run(
        ["ip", "-n", real.lab["node1"].namespace, "link", "set", "eth0", "down"], check=True
    )
    assert "network is down" in real.runtime.trouble()


@pytest.mark.kernel
def test_a_successor_finds_pods_and_goes_on_with_their_logs(real):
    """The runtime of a kubelet that was killed is just forgotten."""
    sandbox = real.sandbox()
    trigger = real.state / "go"
    text = f"echo one; while ! test -e {trigger}; do sleep 0.05; done; echo two; exit 4"
    container = real.runtime.start(sandbox, shell(text, attempt=2))
    real.until(lambda: "one" in log_of(real, 2))
    before = real.runtime
    for tap in before._taps.values():
        os.close(tap.fileno())
    real.runtime = new_runtime(real.lab)
    assert real.runtime.list() == [(sandbox, [container])]
    trigger.touch()
    (end,) = real.exits()
    assert end.container == container
    lines = [line.rpartition(" ")[2] for line in log_of(real, 2).splitlines()]
    assert lines == ["one", "two"]
    trigger.unlink()
