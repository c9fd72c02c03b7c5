"""A pod runtime in memory: containers are records, so that many nodes fit into one process.

For ``kproxy bench controlplane``, and for tests. It refuses what the real one refuses (the
contract suite in ``tests/contract`` runs on both): no sandbox, no container; an address is given
to one pod only, and never twice.
"""

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from kproxy import errors

from .actions import Action, Done
from .probesockets import Outcome
from .runtime import (
    ContainerId,
    ContainerSpec,
    Execution,
    Exit,
    LogFiles,
    Sandbox,
    Streams,
)

Network = IPv4Network | IPv6Network


class FakeRuntime:
    """Sandboxes and containers of one node.

    ``pod_cidrs``: ranges of the pods' addresses, one of each family; ``node_addresses``: of
    host-network pods; ``ready_after``: seconds from a container's start until it listens.
    """

    def __init__(
        self,
        pod_cidrs: Sequence[str] = ("10.244.1.0/24",),
        node_addresses: Sequence[str] = ("192.0.2.1",),
        *,
        ready_after: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.calls: list[str] = []
        self.refuse: set[str] = set()
        self.stubborn = False
        """Whether containers ignore every signal but SIGKILL."""
        self.answering = True
        self.down = ""
        """What :meth:`trouble` says."""
        self.execute: Callable[[Sequence[str]], int | None] = lambda command: 0
        """What a program run beside a container ends with; None: it does not end."""
        self.logs: dict[tuple[str, str, int], LogFiles] = {}
        self._networks: list[Network] = [ip_network(one) for one in pod_cidrs]
        self._node_addresses = tuple(node_addresses)
        self._ready_after = ready_after
        self._now = now
        self._numbers = itertools.count(2)
        self._pids = itertools.count(1000)
        self._sandboxes: dict[str, Sandbox] = {}
        self._running: dict[int, ContainerId] = {}
        self._since: dict[int, float] = {}
        self._exits: list[Exit] = []
        self._lock = threading.RLock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def run_sandbox(self, *, uid: str, namespace: str, name: str, host_network: bool) -> Sandbox:
        """See :class:`.runtime.PodRuntime`."""
        self._call("run_sandbox", name)
        if uid not in self._sandboxes:
            addresses = self._node_addresses if host_network else self._addresses()
            self._sandboxes[uid] = Sandbox(uid=uid, addresses=addresses)
        return self._sandboxes[uid]

    def sandbox(self, uid: str) -> Sandbox | None:
        """See :class:`.runtime.PodRuntime`."""
        return self._sandboxes.get(uid)

    def start(self, sandbox: Sandbox, spec: ContainerSpec) -> ContainerId:
        """See :class:`.runtime.PodRuntime`."""
        self._call("start", spec.name)
        self._demand(sandbox)
        pid = next(self._pids)
        made = ContainerId(
            uid=sandbox.uid, name=spec.name, pid=pid, start_time=pid, attempt=spec.attempt
        )
        with self._lock:
            self._running[pid], self._since[pid] = made, self._now()
        return made

    def signal(self, container: ContainerId, number: int) -> None:
        """See :class:`.runtime.PodRuntime`."""
        self._call("signal", str(number))
        if number == 9 or not self.stubborn:
            self._end(container, -number)

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        """See :class:`.runtime.PodRuntime`."""
        return self.answering and any(
            self._now() >= self._since[one.pid] + self._ready_after
            for one in self.running(sandbox.uid)
            if one.name == spec.name
        )

    def exec(
        self, sandbox: Sandbox, spec: ContainerSpec, command: Sequence[str], streams: Streams
    ) -> Execution:
        """See :class:`.runtime.PodRuntime`."""
        self._call("exec", " ".join(command))
        self._demand(sandbox)
        return _Ended(self.execute(command))

    def remove(self, uid: str) -> None:
        """See :class:`.runtime.PodRuntime`."""
        self._call("remove", "")
        for container in self.running(uid):
            self._end(container, -9)
        self._sandboxes.pop(uid, None)

    def log(self, uid: str, container: str, attempt: int) -> LogFiles | None:
        """See :class:`.runtime.PodRuntime`."""
        return self.logs.get((uid, container, attempt))

    def forget(self, uid: str) -> None:
        """See :class:`.runtime.PodRuntime`."""
        self.logs = {key: files for key, files in self.logs.items() if key[0] != uid}

    def trouble(self) -> str:
        """See :class:`.runtime.PodRuntime`."""
        return self.down

    def machine(self) -> Mapping[str, str]:
        """See :class:`.runtime.PodRuntime`."""
        return {"containerRuntimeVersion": "fake://1"}

    def fileno(self) -> int:
        """See :class:`.runtime.PodRuntime`."""
        return self._wake

    def exits(self) -> list[Exit]:
        """See :class:`.runtime.PodRuntime`."""
        with self._lock:
            found, self._exits = self._exits, []
            if found:
                os.eventfd_read(self._wake)
        return found

    def list(self) -> Sequence[tuple[Sandbox, Sequence[ContainerId]]]:
        """See :class:`.runtime.PodRuntime`."""
        return [(box, self.running(uid)) for uid, box in self._sandboxes.items()]

    # What tests do and ask.

    def running(self, uid: str = "") -> Sequence[ContainerId]:
        """Return what runs, in one sandbox or in all."""
        with self._lock:
            return [one for one in self._running.values() if not uid or one.uid == uid]

    def kill(self, uid: str = "", code: int = -9, name: str = "") -> None:
        """End containers, of one pod or one name or all."""
        for container in self.running(uid):
            if not name or container.name == name:
                self._end(container, code)

    def destroy(self, uid: str) -> None:
        """Take a sandbox away from outside, with its processes."""
        del self._sandboxes[uid]
        self.kill(uid)

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._wake)

    def _addresses(self) -> tuple[str, ...]:
        number = next(self._numbers)
        if any(number >= network.num_addresses - 1 for network in self._networks):
            raise errors.KproxyError(f"all addresses of {self._networks[0]} were used")
        return tuple(str(network.network_address + number) for network in self._networks)

    def _demand(self, sandbox: Sandbox) -> None:
        if sandbox.uid not in self._sandboxes:
            raise errors.KproxyError(f"sandbox {sandbox.uid} does not exist")

    def _end(self, container: ContainerId, code: int) -> None:
        with self._lock:
            if self._running.pop(container.pid, None) is not None:
                self._since.pop(container.pid)
                self._exits.append(Exit(container=container, code=code))
                os.eventfd_write(self._wake, 1)

    def _call(self, name: str, detail: str) -> None:
        self.calls.append(f"{name} {detail}".strip())
        if name in self.refuse:
            raise errors.KproxyError(f"{name} refused")


class _Ended:
    """A program that has ended already, or never does."""

    def __init__(self, code: int | None) -> None:
        self._code = code
        self._fd = os.eventfd(0 if code is None else 1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def poll(self) -> int | None:
        return self._code

    def kill(self) -> None:
        """Let it be: nothing runs."""

    def close(self) -> None:
        os.close(self._fd)


class FakePerformer:
    """Does actions as ``answers`` says: an outcome, or None for one that goes on until its end.

    Nothing is connected or run, and no time passes: what is asked for by :meth:`begin` is told by
    the next :meth:`advance`.
    """

    def __init__(
        self, answers: Callable[[Action], Outcome | None] = lambda action: Outcome(success=True)
    ) -> None:
        self.answers = answers
        self.begun: list[Action] = []
        self._numbers = itertools.count(1)
        self._running: dict[int, tuple[Action, float, Done]] = {}
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def begin(self, action: Action, *, now: float, timeout: float, done: Done) -> int:
        """See :class:`.actions.Performer`."""
        self.begun.append(action)
        number = next(self._numbers)
        self._running[number] = (action, now + timeout, done)
        return number

    def cancel(self, number: int) -> None:
        """See :class:`.actions.Performer`."""
        self._running.pop(number, None)

    def advance(self, now: float) -> None:
        """See :class:`.actions.Performer`."""
        for number, (action, deadline, done) in list(self._running.items()):
            outcome = self.answers(action)
            if outcome is None and now >= deadline:
                outcome = Outcome(success=False, message="timed out")
            if outcome is not None and number in self._running:
                del self._running[number]
                done(outcome, now)

    def due(self) -> float | None:
        """See :class:`.actions.Performer`."""
        if any(self.answers(action) is not None for action, _, _ in self._running.values()):
            return -math.inf
        return min((deadline for _, deadline, _ in self._running.values()), default=None)

    def fileno(self) -> int:
        """See :class:`.actions.Performer`."""
        return self._fd

    def close(self) -> None:
        """See :class:`.actions.Performer`."""
        os.close(self._fd)
