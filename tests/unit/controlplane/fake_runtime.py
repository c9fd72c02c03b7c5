"""A pod runtime in memory, which refuses what the real one refuses."""

import itertools
import os

from kproxy import errors
from kproxy.controlplane.runtime import ContainerId, ContainerSpec, Exit, Sandbox


class FakeRuntime:
    """Sandboxes and containers of one node; tests :meth:`kill` and :meth:`destroy` them."""

    def __init__(self, prefix: str = "10.244.1", node_address: str = "192.0.2.1") -> None:
        self.calls: list[str] = []
        self.refuse: set[str] = set()
        self.stubborn = False
        self.answering = True
        self._prefix = prefix
        self._node = node_address
        self._numbers = itertools.count(1)
        self._pids = itertools.count(1000)
        self._sandboxes: dict[str, Sandbox] = {}
        self._running: dict[int, ContainerId] = {}
        self._exits: list[Exit] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)

    def run_sandbox(self, *, uid: str, namespace: str, name: str, host_network: bool) -> Sandbox:
        self._call("run_sandbox", name)
        if uid not in self._sandboxes:
            address = self._node if host_network else f"{self._prefix}.{next(self._numbers)}"
            self._sandboxes[uid] = Sandbox(uid=uid, addresses=(address,))
        return self._sandboxes[uid]

    def sandbox(self, uid: str) -> Sandbox | None:
        return self._sandboxes.get(uid)

    def start(self, sandbox: Sandbox, spec: ContainerSpec) -> ContainerId:
        self._call("start", spec.name)
        if sandbox.uid not in self._sandboxes:
            raise errors.KproxyError("no such sandbox")
        pid = next(self._pids)
        made = ContainerId(uid=sandbox.uid, name=spec.name, pid=pid, start_time=pid)
        self._running[pid] = made
        return made

    def signal(self, container: ContainerId, number: int) -> None:
        self._call("signal", str(number))
        if not self.stubborn:
            self._end(container, -number)

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        return self.answering

    def remove(self, uid: str) -> None:
        self._call("remove", "")
        for container in self.running(uid):
            self._end(container, -9)
        self._sandboxes.pop(uid, None)

    def fileno(self) -> int:
        return self._wake

    def exits(self) -> list[Exit]:
        found, self._exits = self._exits, []
        if found:
            os.eventfd_read(self._wake)
        return found

    def list(self):
        return [(box, self.running(uid)) for uid, box in self._sandboxes.items()]

    # What tests do and ask.

    def running(self, uid: str = ""):
        return [one for one in self._running.values() if not uid or one.uid == uid]

    def kill(self, uid: str = "", code: int = -9) -> None:
        for container in self.running(uid):
            self._end(container, code)

    def destroy(self, uid: str) -> None:
        """Take a sandbox away from outside, with its processes."""
        del self._sandboxes[uid]
        self.kill(uid)

    def close(self) -> None:
        os.close(self._wake)

    def _end(self, container: ContainerId, code: int) -> None:
        if self._running.pop(container.pid, None) is not None:
            self._exits.append(Exit(container=container, code=code))
            os.eventfd_write(self._wake, 1)

    def _call(self, name: str, detail: str) -> None:
        self.calls.append(f"{name} {detail}".strip())
        if name in self.refuse:
            raise errors.KproxyError(f"{name} refused")
