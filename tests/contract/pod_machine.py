"""A pod runtime, real or of records, and what tests do to it from outside."""

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

from kproxy.controlplane.fakeruntime import FakeRuntime
from kproxy.controlplane.runtime import ContainerId, ContainerSpec, Exit, PodRuntime
from kproxy.lab import layout, plan
from kproxy.lab.podruntime import NetnsRuntime, Room
from netns.lab import Lab

PATIENCE = 60.0
RANGE6 = IPv6Network("fd00:10:244::/48")
NODE = replace(plan.Plan(nodes=2).node("node1"), cluster_cidr6=RANGE6)
SLEEP = ContainerSpec(name="c", command=("sleep", "1000"))


class Machine:
    """A runtime, and what a test does to it from outside."""

    def __init__(self, runtime: PodRuntime, lab: Lab | None, state: Path) -> None:
        self.runtime = runtime
        self.lab = lab
        self.state = state

    @property
    def real(self) -> bool:
        return self.lab is not None

    def sandbox(self, uid: str = "uid-1", name: str = "", *, host_network: bool = False):
        return self.runtime.run_sandbox(
            uid=uid, namespace="ns", name=name or uid, host_network=host_network
        )

    def destroy(self, uid: str) -> None:
        if isinstance(self.runtime, FakeRuntime):
            self.runtime.destroy(uid)
        else:
            assert self.lab
            self.lab.remove(f"ns-{uid}")

    def exits(self, count: int = 1) -> list[Exit]:
        """Wait for the ends of containers, as the kubelet does."""
        found: list[Exit] = []
        deadline = time.monotonic() + PATIENCE
        while len(found) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"only {found} ended"
            select.select([self.runtime], [], [], left)
            found += self.runtime.exits()
        return found

    def until(self, accept: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not accept():
            assert time.monotonic() < deadline
            select.select([self.runtime], [], [], 0.02)
            assert self.runtime.exits() == []

    def end(self, container: ContainerId, code: int) -> None:
        """End a container from inside: a fake one by the test, a real one has ended itself."""
        if isinstance(self.runtime, FakeRuntime):
            self.runtime.kill(container.uid, code)


def real_machine(state: Path) -> Iterator[Machine]:
    name = f"pr{os.getpid()}"
    with Lab(plan.topology(plan.Plan(nodes=2)), name=name, state_dir=state) as lab:
        yield Machine(new_runtime(lab), lab, state)


def new_runtime(lab: Lab) -> NetnsRuntime:
    files = layout.Layout(lab.scratch)
    files.logs.mkdir(exist_ok=True)
    files.records.mkdir(exist_ok=True)
    return NetnsRuntime(lab, NODE, files, dict(os.environ), Room())


def shell(text: str, **fields) -> ContainerSpec:
    return replace(SLEEP, command=("sh", "-c", text), **fields)


def log_of(machine: Machine, attempt: int = 0) -> str:
    files = machine.runtime.log("uid-1", "c", attempt)
    with contextlib.suppress(FileNotFoundError):
        return files.paths[-1].read_text() if files else ""
    return ""


def ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
