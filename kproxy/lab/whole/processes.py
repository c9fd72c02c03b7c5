"""The processes of a whole cluster: found, killed, stopped, brought down and up again.

What is found is what files say (inits and kubelets write down whom they started), checked against
the kernel; so nobody needs to be asked who may be dead.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from signal import SIGCONT, SIGHUP, SIGKILL, SIGSTOP

import msgspec

from kproxy import errors
from kproxy.lab.whole import init
from kproxy.lab.whole.addons import NAMESPACE
from kproxy.lab.whole.places import Places
from kproxy.lab.whole.roles import Role, Running
from kproxy.lab.whole.units import log_name
from netns.errors import NetnsError
from netns.lab import AttachedLab
from netns.process import Process, ProcessId, kill_all

END_SECONDS = 10.0
_SYSTEM = {"kube-proxy": Role.PROXY, "kube-dns": Role.DNS, "kproxy-prober": Role.PROBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that runs. ``host``: of its node; ``inside``: in whose network it is."""

    host: str
    inside: str
    namespace: str
    pod: str
    uid: str
    name: str
    pid: int
    start_time: int
    attempt: int


class _Pod(msgspec.Struct, frozen=True):
    """What a kubelet's runtime writes down of a pod, as far as it matters here."""

    uid: str
    namespace: str
    name: str
    host: str
    containers: dict[str, tuple[int, int, int]]


class Processes:
    """See the module. ``hosts``: those that have an init."""

    def __init__(self, lab: AttachedLab, places: Places, hosts: tuple[str, ...]) -> None:
        self._lab = lab
        self._places = places
        self._hosts = hosts

    # Who is there.

    def all(self) -> list[Running]:
        """Return every process of the cluster itself that runs now, pods of users left out."""
        found = [one for host in self._hosts for one in self._of_host(host)]
        return found + list(self._of_pods())

    def find(self, host: str, role: Role) -> Running | None:
        """Return the process of a role on a host; None: none runs now.

        Of a DaemonSet's pods during a hand-over it is the one started last.
        """
        found = [one for one in self.all() if (one.host, one.role) == (host, role)]
        return max(found, key=lambda one: (one.start_time, one.pid)) if found else None

    def get(self, host: str, role: Role) -> Running:
        """Return the process of a role on a host. Raises MeasurementError if none runs."""
        found = self.find(host, role)
        if found is None:
            raise errors.MeasurementError(f"no {role} runs on {host} now")
        return found

    def containers(self) -> list[Container]:
        """Return all containers that run now, of all pods."""
        found = []
        for node in self._places.site.nodes:
            for pod in self._pods(node.name):
                for name, (pid, start_time, attempt) in pod.containers.items():
                    if _lives(pid, start_time):
                        one = Container(
                            host=node.name,
                            inside=pod.host,
                            namespace=pod.namespace,
                            pod=pod.name,
                            uid=pod.uid,
                            name=name,
                            pid=pid,
                            start_time=start_time,
                            attempt=attempt,
                        )
                        found.append(one)
        return found

    # What may be done to them.

    def start_init(self, host: str) -> None:
        """Start a host's init, which starts its programs. It goes on with those that live."""
        log = self._places.files.log(log_name(host, Role.INIT))
        command = init.command(host, self._places.init(host))
        self._lab.host(host).spawn(command, stdout=log, stderr=log)

    def signal(self, one: Running | Container, number: int) -> int:
        """Send a signal; return the monotonic time in ns. One that has ended is no error."""
        with contextlib.suppress(NetnsError):
            Process(ProcessId(one.pid, one.start_time)).signal(number)
        return time.monotonic_ns()

    def kill(self, host: str, role: Role, number: int = SIGKILL) -> tuple[Running, int]:
        """Send a signal to the process of a role; return it, and when, in monotonic ns.

        After SIGKILL it is gone when this returns. Raises MeasurementError if none runs.
        """
        one = self.get(host, role)
        when = time.monotonic_ns()
        with contextlib.suppress(NetnsError):  # it has ended just now
            process = Process(ProcessId(one.pid, one.start_time))
            process.signal(number)
            if number == SIGKILL:
                process.wait(END_SECONDS)
        return one, when

    def pause(self, host: str, role: Role) -> Running:
        """Stop a process where it is (SIGSTOP): it hangs, and everybody waits for it."""
        return self.kill(host, role, SIGSTOP)[0]

    def resume(self, host: str, role: Role) -> Running:
        """Let a paused process go on."""
        return self.kill(host, role, SIGCONT)[0]

    def bring_down(self, host: str, *roles: Role) -> None:
        """End a host's programs (SIGTERM) and keep them down; without roles: all of them."""
        wanted = set(roles or [Role(name) for name in self._units(host)])
        self._set_down(host, self._down(host) | wanted)

    def bring_up(self, host: str, *roles: Role) -> None:
        """Let a host's programs run again, at once, also those that wait for a back-off."""
        wanted = set(roles or [Role(name) for name in self._units(host)])
        self._set_down(host, self._down(host) - wanted)

    def kill_everything(self, host: str) -> None:
        """SIGKILL whatever runs on a host: the init first, then the rest, its pods too."""
        own = self.find(host, Role.INIT)
        if own is not None:
            kill_all([ProcessId(own.pid, own.start_time)])
        inside = {one.inside for one in self.containers() if one.host == host} | {host}
        kill_all(one.identity for name in inside for one in self._lab.host(name).processes())

    # The files.

    def _of_host(self, host: str) -> Iterator[Running]:
        directory = self._places.init(host)
        states = init.read_running(directory)
        own = init.read_own(directory)
        if own is not None:
            states[Role.INIT] = own
        for name, state in states.items():
            if _lives(state.pid, state.start_time):
                yield Running(
                    host=host,
                    role=Role(name),
                    pid=state.pid,
                    start_time=state.start_time,
                    starts=state.starts,
                )

    def _of_pods(self) -> Iterator[Running]:
        for one in self.containers():
            role = _SYSTEM.get(one.name)
            if one.namespace == NAMESPACE and role is not None:
                yield Running(
                    host=one.host,
                    role=role,
                    pid=one.pid,
                    start_time=one.start_time,
                    starts=one.attempt + 1,
                    pod=f"{one.namespace}/{one.pod}",
                )

    def _pods(self, node: str) -> Iterator[_Pod]:
        for path in sorted(self._places.files.pods(node).glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # it has gone just now
                yield msgspec.json.decode(path.read_bytes(), type=_Pod)

    def _units(self, host: str) -> list[str]:
        return [unit.name for unit in init.read_units(self._places.init(host))]

    def _down(self, host: str) -> set[Role]:
        return {Role(name) for name in init.read_down(self._places.init(host))}

    def _set_down(self, host: str, roles: set[Role]) -> None:
        init.write(self._places.init(host) / init.DOWN, sorted(roles))
        one = self.find(host, Role.INIT)
        if one is not None:
            self.signal(one, SIGHUP)


def _lives(pid: int, start_time: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Process(ProcessId(pid, start_time)).alive
    except NetnsError:
        return False
