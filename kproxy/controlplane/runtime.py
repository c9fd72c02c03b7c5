"""What the kubelet asks of the machine below it.

The lab implements it with network namespaces and processes (``kproxy.lab.podruntime``);
:mod:`.fakeruntime` with records only. After the Container Runtime Interface: sandboxes (a pod's
network) and containers (processes).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A pod's place on the node."""

    uid: str
    """The pod's uid."""
    addresses: tuple[str, ...]
    """Addresses of the pod, at most one of each family; for host-network pods the node's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerId:
    """A started container. Pid and start time (clock ticks since boot) name one process."""

    uid: str
    name: str
    pid: int
    start_time: int
    attempt: int = 0
    """How many of this name were started before it in its sandbox."""

    def __str__(self) -> str:
        return f"process://{self.pid}-{self.start_time}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What to start."""

    name: str
    command: tuple[str, ...]
    """Empty: the runtime's own echo server on ``ports``."""
    env: tuple[tuple[str, str], ...] = ()
    """Added to the runtime's own environment."""
    ports: tuple[tuple[str, int], ...] = ()
    """(protocol, number), protocol as in Kubernetes: "TCP", "UDP"."""
    working_dir: str = ""
    """Empty: the runtime's own."""
    resolv_conf: str = ""
    """The content of its ``/etc/resolv.conf``; empty: the machine's own."""
    mounts: tuple[tuple[Path, Path], ...] = ()
    """Place and directory: what it finds at places of its own."""
    own_log: bool = False
    """Whether its lines carry their time (:mod:`kproxy.logs`): it gets the log file itself, and
    nobody stands between it and the file."""
    attempt: int = 0
    """How many of this name were started before; the runtime counts on where it knows of more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A container that has ended. ``code``: exit code, or minus the signal; None: unknown."""

    container: ContainerId
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Descriptors that a program started by :meth:`PodRuntime.exec` gets; -3: /dev/null."""

    stdin: int = -3
    stdout: int = -3
    stderr: int = -3
    terminal: bool = False
    """Whether they are a terminal, which the program shall control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFiles:
    """Where the log of one start of a container is."""

    paths: tuple[Path, ...]
    """The oldest first; the last one grows."""
    plain: bool = False
    """Lines as the program wrote them; otherwise each begins with time and stream (CRI)."""
    begin: int = 0
    """Byte of the first file at which this start of the container begins."""
    end: int | None = None
    """Byte of the last file at which the next one begins; None: to the end."""


class Execution(Protocol):
    """A program that runs beside a container's own."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the program has ended."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal; None while it runs."""
        ...

    def kill(self) -> None:
        """End it and what it started; one that has ended already is no error."""
        ...

    def close(self) -> None:
        """Forget it."""
        ...


class PodRuntime(Protocol):
    """Sandboxes and containers of one node. Every method may raise ``KproxyError``.

    ``fileno``, ``exits`` and what changes anything belong to one thread; ``exec`` and ``log`` may
    be called by others.
    """

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
        """Send a signal to the container's process, SIGKILL to all that it started as well.

        One that has ended already is no error.
        """
        ...

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        """Return whether the container itself listens on all its ports."""
        ...

    def exec(
        self, sandbox: Sandbox, spec: ContainerSpec, command: Sequence[str], streams: Streams
    ) -> Execution:
        """Start a program where a container runs, with its environment and directory."""
        ...

    def remove(self, uid: str) -> None:
        """Kill what runs in a sandbox and remove it; absent is fine. Logs stay."""
        ...

    def log(self, uid: str, container: str, attempt: int) -> LogFiles | None:
        """Return where the log of a start of a container is; None: there is none."""
        ...

    def forget(self, uid: str) -> None:
        """Remove the logs of a pod that is gone; absent is fine."""
        ...

    def trouble(self) -> str:
        """Return why pods could not run here now (the node's network is down); empty: they can."""
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

    def machine(self) -> Mapping[str, str]:
        """Return what is told of the machine in a Node's ``nodeInfo``."""
        ...
