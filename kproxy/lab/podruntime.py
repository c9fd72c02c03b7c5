"""Pods as the lab runs them: a sandbox is a host of the lab, a container a process in it.

Implements :class:`kproxy.controlplane.runtime.PodRuntime` for the kubelet of one node, which runs
in a process of its own. What is needed to find sandboxes and containers again lies in files, so
that a kubelet that was killed finds its pods alive and goes on with them, as with a real runtime.
"""

import contextlib
import re
import select
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.controlplane.runtime import ContainerId, ContainerSpec, Exit, Sandbox
from kproxy.lab import layout, listening, plan
from netns.errors import NetnsError
from netns.lab import AttachedLab
from netns.process import Process, ProcessId
from netns.topology import Host

_EXPANSION = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What every echo server must be able to take: packets/s, and records in all."""

    rate: int = 5000
    records: int = 1 << 20


class _Pod(msgspec.Struct, kw_only=True):
    """What is written down of a sandbox."""

    uid: str
    namespace: str
    name: str
    host: str
    """The lab's host in which its processes run."""
    addresses: list[str]
    host_network: bool
    starts: int = 0
    containers: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """name → pid, start time"""


class NetnsRuntime:
    """The pods of one node.

    ``env`` is the environment of every container; ``NODE_NAME`` and ``POD_UID`` are added to it,
    and ``$(NAME)`` in a command is replaced as the kubelet does (Pod API reference, ``command``).
    """

    def __init__(
        self,
        lab: AttachedLab,
        node: plan.NodePlan,
        files: layout.Layout,
        env: dict[str, str],
        room: Room,
    ) -> None:
        self._room = room
        self._lab = lab
        self._node = node
        self._files = files
        self._env = {**env, "NODE_NAME": node.name}
        self._directory = files.pods(node.name)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Process, ContainerId]] = {}
        for container in [c for _, containers in self.list() for c in containers]:
            self._watch(Process(ProcessId(container.pid, container.start_time)), container)

    def run_sandbox(self, *, uid: str, namespace: str, name: str, host_network: bool) -> Sandbox:
        """Create a pod's sandbox; the same uid again returns the one that exists."""
        existing = self.sandbox(uid)
        if existing is not None:
            return existing
        address = str(self._node.address) if host_network else str(self._next_address())
        host = self._node.name if host_network else f"{namespace}-{name}"
        pod = _Pod(
            uid=uid,
            namespace=namespace,
            name=name,
            host=host,
            addresses=[address],
            host_network=host_network,
        )
        if not host_network:
            link = plan.pod_link(
                self._node.name, host, IPv4Address(address), node_end=f"veth{uid[:8]}"
            )
            self._write(pod)
            try:
                self._lab.add(Host(name=host, sysctls=plan.QUIET), links=[link])
            except NetnsError as error:
                raise errors.KproxyError(f"pod {namespace}/{name}: {error}") from error
        self._write(pod)
        return _sandbox(pod)

    def sandbox(self, uid: str) -> Sandbox | None:
        """Return the sandbox if it (still) exists; one destroyed from outside does not."""
        pod = self._read(uid)
        return _sandbox(pod) if pod is not None and self._lab.has_now(pod.host) else None

    def start(self, sandbox: Sandbox, spec: ContainerSpec) -> ContainerId:
        """Start a container in a sandbox."""
        pod = self._read(sandbox.uid)
        if pod is None:
            raise errors.KproxyError(f"sandbox {sandbox.uid} does not exist")
        log = self._files.container_log(pod.namespace, pod.name, spec.name)
        command = spec.command or self._echo_server(pod, spec)
        env = {**self._env, "POD_UID": pod.uid, **dict(spec.env)}
        expanded = [_EXPANSION.sub(lambda m: env.get(m[1], m[0]), word) for word in command]
        try:
            host = self._lab.host(pod.host)
            process = host.spawn(expanded, stdout=log, stderr=log, env=env)
        except NetnsError as error:
            raise errors.KproxyError(f"pod {pod.namespace}/{pod.name}: {error}") from error
        identity = process.identity
        container = ContainerId(
            uid=pod.uid, name=spec.name, pid=identity.pid, start_time=identity.start_time
        )
        pod.starts += 1
        pod.containers[spec.name] = (identity.pid, identity.start_time)
        self._write(pod)
        self._watch(process, container)
        return container

    def signal(self, container: ContainerId, number: int) -> None:
        """Send a signal; one that has ended already is no error."""
        with contextlib.suppress(NetnsError):
            Process(ProcessId(container.pid, container.start_time)).signal(number)

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        """Return whether the container runs and has a socket on each of its ports."""
        pod = self._read(sandbox.uid)
        if pod is None or spec.name not in pod.containers:
            return False
        pid, start_time = pod.containers[spec.name]
        if ProcessId.of(pid) != ProcessId(pid, start_time):
            return False
        return not spec.ports or set(spec.ports) <= listening.ports(pid)

    def remove(self, uid: str) -> None:
        """Kill what runs in a sandbox and remove it; absent is fine."""
        pod = self._read(uid)
        if pod is None:
            return
        for pid, start_time in pod.containers.values():
            with contextlib.suppress(NetnsError):
                Process(ProcessId(pid, start_time)).kill(group=True)
        if not pod.host_network:
            self._lab.remove(pod.host)
        self._path(uid).unlink(missing_ok=True)

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when :meth:`exits` has something."""
        return self._epoll.fileno()

    def exits(self) -> Sequence[Exit]:
        """Return the containers that ended since the last call, without waiting."""
        ended = []
        for fd, _ in self._epoll.poll(0):
            process, container = self._watched.pop(fd)
            self._epoll.unregister(fd)
            ended.append(Exit(container=container, code=process.wait(0)))
        return ended

    def list(self) -> Sequence[tuple[Sandbox, Sequence[ContainerId]]]:
        """Return the node's sandboxes with their running containers, a former kubelet's too."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            pod = self._read(path.stem)
            if pod is None or pod.host not in self._lab:
                continue
            running = [
                ContainerId(uid=pod.uid, name=name, pid=pid, start_time=start_time)
                for name, (pid, start_time) in pod.containers.items()
                if ProcessId.of(pid) == ProcessId(pid, start_time)
            ]
            found.append((_sandbox(pod), running))
        return found

    def _echo_server(self, pod: _Pod, spec: ContainerSpec) -> tuple[str, ...]:
        """Return the command that stands in for a container's image."""
        ports = [
            word
            for protocol, number in spec.ports
            for word in (f"--{protocol.lower()}", str(number))
            if protocol in ("TCP", "UDP")
        ]
        # A restarted server must not begin its predecessor's record anew.
        record = self._files.record(pod.namespace, pod.name, pod.starts)
        responder = (sys.executable, "-m", "kproxy.traffic.responder")
        name = f"{pod.namespace}/{pod.name}"
        room = ("--rate", str(self._room.rate), "--capacity", str(self._room.records))
        return (*responder, *ports, "--name", name, "--record", str(record), *room)

    def _watch(self, process: Process, container: ContainerId) -> None:
        self._watched[process.fileno()] = (process, container)
        self._epoll.register(process.fileno(), select.EPOLLIN)

    def _next_address(self) -> IPv4Address:
        """Return an address of the node's range that no pod has had before.

        A replacement never gets its predecessor's address: packets still on their way to the old
        one must not reach the new one, or a loss would go unseen.
        """
        counter = self._directory / "next-address"
        try:
            number = int(counter.read_text())
        except FileNotFoundError:
            number = 2
        if number >= plan.CLIENT_OFFSET:
            raise errors.KproxyError(
                f"{self._node.name}: all addresses of {self._node.pod_cidr} were used",
                remedy="run fewer trials or pods, or more nodes",
            )
        counter.write_text(str(number + 1))
        return self._node.pod_cidr.network_address + number

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}.json"

    def _write(self, pod: _Pod) -> None:
        path = self._path(pod.uid)
        partial = path.with_suffix(".new")
        partial.write_bytes(msgspec.json.encode(pod))
        partial.replace(path)

    def _read(self, uid: str) -> _Pod | None:
        try:
            return msgspec.json.decode(self._path(uid).read_bytes(), type=_Pod)
        except FileNotFoundError:
            return None


def _sandbox(pod: _Pod) -> Sandbox:
    return Sandbox(uid=pod.uid, addresses=tuple(pod.addresses))
