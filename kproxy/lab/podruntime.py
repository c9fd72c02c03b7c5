"""Pods as the lab runs them: a sandbox is a host of the lab, a container a process in it.

Implements :class:`kproxy.controlplane.runtime.PodRuntime` for the kubelet of one node, which runs
in a process of its own. What is needed to find sandboxes and containers again lies in files, so
that a kubelet that was killed finds its pods alive and goes on with them, as with a real runtime.
"""

import contextlib
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.controlplane.runtime import (
    ContainerId,
    ContainerSpec,
    Exit,
    LogFiles,
    Sandbox,
    Streams,
)
from kproxy.lab import (
    carrier,
    layout,
    leftovers,
    listening,
    machine,
    plan,
    podaddresses,
    podlogs,
    privatemounts,
)
from kproxy.lab.podexec import Beside
from netns.errors import NetnsError
from netns.lab import AttachedLab
from netns.process import Process, ProcessId
from netns.topology import Host

UPLINK = "eth0"
RESOLV_CONF = Path("/etc/resolv.conf")


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
    containers: dict[str, tuple[int, int, int]] = msgspec.field(default_factory=dict)
    """name → pid, start time, attempt"""


class NetnsRuntime:
    """The pods of one node.

    ``env`` is the environment of every container, to which its own is added.
    """

    def __init__(
        self,
        lab: AttachedLab,
        node: podaddresses.Place,
        files: layout.Layout,
        env: dict[str, str],
        room: Room,
    ) -> None:
        self._room = room
        self._lab = lab
        self._node = node
        self._files = files
        self._env = env
        self._directory = files.pods(node.name)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[Process, ContainerId]] = {}
        self._taps: dict[int, podlogs.Tap] = {}
        self._lock = threading.Lock()  # for programs, which several threads start
        self._beside: dict[str, list[Beside]] = {}
        self._logs = podlogs.PodLogs(files.pod_logs(node.name))
        living = [c for _, containers in self.list() for c in containers]
        leftovers.end(
            {path.stem for path in self._directory.glob("*.json")},
            {leftovers.container(one.uid, one.name, one.attempt) for one in living},
        )
        for container in living:
            with contextlib.suppress(NetnsError):  # it has ended just now
                process = Process(ProcessId(container.pid, container.start_time))
                self._watch(process, container)
        for tap in self._logs.left():
            self._tap(tap)
            self._drain(tap.fileno())  # there may be nobody any more who writes

    def run_sandbox(self, *, uid: str, namespace: str, name: str, host_network: bool) -> Sandbox:
        """Create a pod's sandbox; the same uid again returns the one that exists."""
        existing = self.sandbox(uid)
        if existing is not None:
            return existing
        counter = self._directory / "next-address"
        number = 0 if host_network else podaddresses.next_number(self._node, counter)
        address, address6 = podaddresses.addresses(self._node, number)
        host = self._node.name if host_network else f"{namespace}-{name}"
        pod = _Pod(
            uid=uid,
            namespace=namespace,
            name=name,
            host=host,
            addresses=[str(one) for one in (address, address6) if one],
            host_network=host_network,
        )
        if not host_network:
            link = plan.pod_link(
                self._node.name, host, address, node_end=f"veth{uid[:8]}", address6=address6
            )
            self._write(pod)
            try:
                with _told_of(pod):
                    self._lab.add(Host(name=host, sysctls=plan.QUIET), links=[link])
            except errors.KproxyError:
                # There may be such a host, of another pod of that name: it is not this one's.
                self._path(uid).unlink()
                raise
        self._write(pod)
        return _sandbox(pod)

    def sandbox(self, uid: str) -> Sandbox | None:
        """Return the sandbox if it (still) exists; one destroyed from outside does not."""
        pod = self._read(uid)
        return _sandbox(pod) if pod is not None and self._lab.has_now(pod.host) else None

    def start(self, sandbox: Sandbox, spec: ContainerSpec) -> ContainerId:
        """Start a container in a sandbox."""
        pod = self._known(sandbox)
        command = spec.command or self._echo_server(pod, spec)
        place = self._logs.place(pod.namespace, pod.name, pod.uid, spec.name, spec.attempt)
        with _told_of(pod):
            if spec.own_log or not spec.command:
                log = self._files.container_log(pod.namespace, pod.name, spec.name)
                self._logs.note_own(place, log)
                process = self._spawn(pod, spec, command, log, log)
            else:
                with self._logs.open(place) as (taps, (stdout, stderr)):
                    process = self._spawn(pod, spec, command, stdout, stderr)
                for tap in taps:
                    self._tap(tap)
        identity = process.identity
        container = ContainerId(
            uid=pod.uid,
            name=spec.name,
            pid=identity.pid,
            start_time=identity.start_time,
            attempt=spec.attempt,
        )
        pod.starts += 1
        pod.containers[spec.name] = (identity.pid, identity.start_time, spec.attempt)
        self._write(pod)
        self._watch(process, container)
        return container

    def signal(self, container: ContainerId, number: int) -> None:
        """Send a signal, SIGKILL to the whole process group; one that has ended is no error."""
        with contextlib.suppress(NetnsError):
            process = Process(ProcessId(container.pid, container.start_time))
            process.signal(number, group=number == signal.SIGKILL)

    def exec(
        self, sandbox: Sandbox, spec: ContainerSpec, command: Sequence[str], streams: Streams
    ) -> Beside:
        """Start a program where a container runs, with its environment and directory."""
        pod = self._known(sandbox)
        env = {**self._env, **dict(spec.env), leftovers.MARK: leftovers.beside(pod.uid)}
        with _told_of(pod):
            host = self._lab.host(pod.host)
            made = privatemounts.start_with(
                self._mounts(pod, spec),
                lambda: Beside(host, command, streams, env=env, cwd=spec.working_dir),
            )
        with self._lock:
            others = [one for one in self._beside.get(pod.uid, ()) if one.poll() is None]
            self._beside[pod.uid] = [*others, made]
        return made

    def ready(self, sandbox: Sandbox, spec: ContainerSpec) -> bool:
        """Return whether the container runs and has a socket on each of its ports."""
        pod = self._read(sandbox.uid)
        if pod is None or spec.name not in pod.containers:
            return False
        pid, start_time, _ = pod.containers[spec.name]
        if not ProcessId(pid, start_time).alive:
            return False
        return not spec.ports or set(spec.ports) <= listening.ports(pid)

    def remove(self, uid: str) -> None:
        """Kill what runs in a sandbox and remove it; absent is fine."""
        pod = self._read(uid)
        if pod is None:
            return
        for pid, start_time, _ in pod.containers.values():
            with contextlib.suppress(NetnsError):
                Process(ProcessId(pid, start_time)).kill(group=True)
        with self._lock:
            beside = self._beside.pop(uid, [])
        for one in beside:
            one.kill()
        if pod.host_network:
            leftovers.end([uid])
        else:
            with _told_of(pod):
                self._lab.remove(pod.host)
        self._resolv_conf(uid).unlink(missing_ok=True)
        self._path(uid).unlink(missing_ok=True)

    def log(self, uid: str, container: str, attempt: int) -> LogFiles | None:
        """Return where the log of a start of a container is; None: there is none."""
        return self._logs.find(uid, container, attempt)

    def forget(self, uid: str) -> None:
        """Remove the logs of a pod that is gone; absent is fine."""
        self._logs.forget(uid)

    def trouble(self) -> str:
        """Return why pods could not run here now; empty: they can."""
        try:
            up = self._lab.host(self._node.name).call(carrier.is_up, UPLINK)
        except (NetnsError, OSError) as error:
            return f"the node's network cannot be read: {error}"
        return "" if up else f"the node's network is down: {UPLINK} has no carrier"

    def machine(self) -> Mapping[str, str]:
        """Return what is told of the machine in a Node's ``nodeInfo``."""
        return machine.facts()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when :meth:`exits` has something."""
        return self._epoll.fileno()

    def exits(self) -> Sequence[Exit]:
        """Return the containers that ended since the last call, without waiting."""
        ready = [fd for fd, _ in self._epoll.poll(0)]
        # First what was written, then who has ended: an end must not overtake last words.
        for fd in ready:
            if fd in self._taps:
                self._drain(fd)
        ended = []
        for fd in ready:
            if fd in self._watched:
                process, container = self._watched.pop(fd)
                self._epoll.unregister(fd)
                leftovers.end_group(process.pid)
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
                ContainerId(
                    uid=pod.uid, name=name, pid=pid, start_time=start_time, attempt=attempt
                )
                for name, (pid, start_time, attempt) in pod.containers.items()
                if ProcessId(pid, start_time).alive
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

    def _tap(self, tap: podlogs.Tap) -> None:
        self._taps[tap.fileno()] = tap
        self._epoll.register(tap.fileno(), select.EPOLLIN)

    def _drain(self, fd: int) -> None:
        tap = self._taps[fd]
        if not tap.read():
            self._epoll.unregister(fd)
            del self._taps[fd]
            tap.close(ended=True)

    def _spawn(
        self,
        pod: _Pod,
        spec: ContainerSpec,
        command: Sequence[str],
        stdout: int | Path,
        stderr: int | Path,
    ) -> Process:
        mark = {leftovers.MARK: leftovers.container(pod.uid, spec.name, spec.attempt)}
        return privatemounts.start_with(
            self._mounts(pod, spec),
            lambda: self._lab.host(pod.host).spawn(
                command,
                stdout=stdout,
                stderr=stderr,
                env={**self._env, **dict(spec.env), **mark},
                cwd=Path(spec.working_dir) if spec.working_dir else None,
            ),
        )

    def _mounts(self, pod: _Pod, spec: ContainerSpec) -> Mapping[Path, Path]:
        """Return what a container sees otherwise than the machine does."""
        found = dict(spec.mounts)
        if spec.resolv_conf and RESOLV_CONF.exists():
            place = self._resolv_conf(pod.uid)
            found[RESOLV_CONF] = privatemounts.write(place, spec.resolv_conf)
        return found

    def _known(self, sandbox: Sandbox) -> _Pod:
        pod = self._read(sandbox.uid)
        if pod is None:
            raise errors.KproxyError(f"sandbox {sandbox.uid} does not exist")
        return pod

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}.json"

    def _resolv_conf(self, uid: str) -> Path:
        return self._directory / f"{uid}.resolv.conf"

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


@contextlib.contextmanager
def _told_of(pod: _Pod) -> Iterator[None]:
    """Tell of a pod what the lab raises, and ValueError: text that no program can be given."""
    try:
        yield
    except (NetnsError, ValueError) as error:
        raise errors.KproxyError(f"pod {pod.namespace}/{pod.name}: {error}") from error
