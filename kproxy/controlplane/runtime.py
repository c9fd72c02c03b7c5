"""What the kubelet asks of the machine below it.

The lab implements it with network namespaces and processes (``kproxy.lab.podruntime``); tests with
a fake. After the Container Runtime Interface: sandboxes (a pod's network) and containers
(processes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A pod's place on the node."""

    uid: str
    """The pod's uid."""
    addresses: tuple[str, ...]
    """Addresses of the pod; for host-network pods those of the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerId:
    """A started container. Pid and start time (clock ticks since boot) name one process."""

    uid: str
    name: str
    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to start."""

    name: str
    command: tuple[str, ...]
    """Empty: the runtime's default program, an echo server on ``ports``."""
    env: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[str, int], ...] = ()
    """(protocol, number), protocol as in Kubernetes: "TCP", "UDP"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A container that has ended. ``code``: exit code, or minus the signal; None: unknown."""

    container: ContainerId
    code: int | None


class PodRuntime(Protocol):
    """Sandboxes and containers of one node. Every method may raise ``KproxyError``."""

    def run_sandbox(self, *, uid: str, namespace: str, name: str, host_network: bool) -> Sandbox:
        """Create a pod's sandbox; the same uid again returns the one that exists."""
        ...

    def sandbox(self, uid: str) -> Sandbox | None:
        """Return the sandbox if it (still) exists; one destroyed from outside does not."""
        ...

    def start(self, sandbox: Sandbox, spec: ContainerSpec) -> ContainerId:
        """Start a container in a sandbox."""
        ...

    def signal(self, container: ContainerId, number: int) -> None:
        """Send a signal; one that has ended already is no error."""
        ...

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        """Return whether the container answers (listens on all its TCP ports)."""
        ...

    def remove(self, uid: str) -> None:
        """Kill what runs in a sandbox and remove it; absent is fine."""
        ...

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when :meth:`exits` has something."""
        ...

    def exits(self) -> Sequence[Exit]:
        """Return the containers that ended since the last call, without waiting."""
        ...

    def list(self) -> Sequence[tuple[Sandbox, Sequence[ContainerId]]]:
        """Return the node's sandboxes with their running containers, a former kubelet's too."""
        ...
