"""The door: starts a lab's cluster, and then commands in its hosts, for whom its owner lets in.

    python -m kproxy.lab.door

Speaks :mod:`messages` on standard input and output, and ends, taking the lab away, when it gets
SIGTERM or when its owner is gone. One thread, one poll(2).
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from kproxy import errors
from kproxy.lab.door import messages
from kproxy.lab.door.session import Session
from kproxy.lab.site import Site
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.processes import Container
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import STATE, Lab, signals_unwind

STATE_VARIABLE = "KPROXY_LAB"
"""In the environment of every command: the lab's state directory."""
_LAST_READS = 3  # of each output: what a full pipe holds, and its end
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class Door:
    """See the module. ``reader`` and ``writer`` are descriptors that lead to the owner."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = messages.Decoder()
        self._sessions: dict[int, Session] = {}
        self._env: Mapping[str, str] = {}
        self._stopping = False
        self._containers: Callable[[], list[Container]] = list
        self._died, wakeup = os.pipe()
        for end in (self._died, wakeup):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> int:
        """Return the exit code."""
        job = self._job()
        if job is None:
            return 0
        began = time.monotonic()
        try:
            site = Site(job.file)
            with self._lab(job, site) as lab:
                cluster = self._cluster(lab, site)
                with contextlib.closing(cluster):
                    problems = self._start(cluster, job)
                    took = time.monotonic() - began
                    report = messages.Report(took_s=took, problems=problems)
                    self._send(0, messages.READY, msgspec.json.encode(report))
                    self._serve(lab, cluster)
        except (NetnsError, errors.KproxyError) as error:
            failure = messages.Failure(message=error.message, remedy=error.remedy)
            self._send(0, messages.FAILED, msgspec.json.encode(failure))
            return failure.code
        return 0

    def _job(self) -> messages.Job | None:
        while True:
            data = os.read(self._reader, messages.LARGEST)
            if not data:
                return None
            for kind, payload in self._decoder.feed(data):
                if kind == messages.JOB:
                    return msgspec.json.decode(messages.split(payload)[1], type=messages.Job)

    def _lab(self, job: messages.Job, site: Site) -> Lab:
        # In an embedded kernel only fresh directories can be written to, and they end with it.
        own = not base.inside_guest() and job.state_dir
        state_dir = Path(job.state_dir) if own else STATE / job.file.name
        return Lab(
            site.topology(),
            name=job.file.name,
            state_dir=state_dir,
            take_default_route=job.take_default_route,
        )

    def _cluster(self, lab: Lab, site: Site) -> WholeCluster:
        return WholeCluster(lab, site, progress=self._progress)

    def _start(self, cluster: WholeCluster, job: messages.Job) -> list[str]:
        """Start the cluster and apply what it is to begin with; return what was refused."""
        for warning in (text for card in cluster.lab.cards() for text in card.told):
            self._progress(f"warning: {warning}")
        cluster.start()
        problems = []
        for one in cluster.api.apply_all(job.objects):
            if one.error:
                problems.append(f"{one.label}: {one.error}")
        if job.wait_s:
            cluster.wait_ready(job.wait_s)
        return problems

    def _serve(self, lab: Lab, cluster: WholeCluster) -> None:
        path = os.environ.get("PATH", os.defpath)
        self._env = {
            **cluster.environment(),
            STATE_VARIABLE: str(lab.state_dir),
            "PATH": f"{path}:{_SBIN}",
        }
        self._containers = cluster.processes.containers
        try:
            while not self._stopping:
                self._step(lab)
        finally:
            for one in self._sessions.values():
                one.kill()

    def _step(self, lab: Lab) -> None:
        poller = select.poll()
        poller.register(self._reader, select.POLLIN)
        poller.register(self._died, select.POLLIN)
        outputs: dict[int, Session] = {}
        inputs: dict[int, Session] = {}
        for one in self._sessions.values():
            outputs |= dict.fromkeys(one.outputs, one)
            if one.wants_input is not None:
                inputs[one.wants_input] = one
        for descriptor in {*outputs, *inputs}:
            wanted = select.POLLIN * (descriptor in outputs)
            poller.register(descriptor, wanted | select.POLLOUT * (descriptor in inputs))
        ready = dict(poller.poll())
        if self._died in ready:
            os.read(self._died, 4096)
            self._reap()
        for descriptor, events in ready.items():
            if descriptor in inputs and events & ~select.POLLIN:
                self._write(inputs[descriptor].write())
            if descriptor in outputs and events & ~select.POLLOUT:
                self._read(outputs[descriptor], descriptor)
        if self._reader in ready:
            self._receive(lab)
        self._dismiss()

    def _read(self, one: Session, descriptor: int) -> None:
        if descriptor in one.outputs:  # not closed by what came just before
            self._write(one.read(descriptor))

    def _receive(self, lab: Lab) -> None:
        data = os.read(self._reader, messages.LARGEST)
        if not data:
            self._stopping = True
        for kind, payload in self._decoder.feed(data):
            number, rest = messages.split(payload)
            if kind == messages.OPEN:
                self._open(lab, number, rest)
            elif number in self._sessions:
                self._sessions[number].obey(kind, rest)

    def _open(self, lab: Lab, number: int, payload: bytes) -> None:
        start = msgspec.json.decode(payload, type=messages.Start)
        if not Path(start.cwd).is_dir():
            start = msgspec.structs.replace(start, cwd="/")
        try:
            with contextlib.ExitStack() as stack:
                start = self._within(start)
                if start.host:
                    stack.enter_context(lab.host(start.host).entered())
                self._sessions[number] = Session(number, start, self._env)
        except (NetnsError, OSError) as error:
            self._send(number, messages.REFUSED, str(error).encode())

    def _within(self, start: messages.Start) -> messages.Start:
        """Return the command that runs beside a pod's first container, if a pod is meant.

        There it sees what the container sees, its ``/etc/resolv.conf`` for one.
        """
        namespace, slash, pod = start.host.partition("/")
        if not slash:
            return start
        for one in self._containers():
            if (one.namespace, one.pod) == (namespace, pod):
                place = ["--mount", "--net", f"--wd={start.cwd}"]
                argv = ["nsenter", f"--target={one.pid}", *place, "--", *start.argv]
                return msgspec.structs.replace(start, host="", argv=argv)
        raise NetnsError(f"no container of pod {start.host} runs now")

    def _reap(self) -> None:
        """Take notice of commands that have ended."""
        for one in self._sessions.values():
            if one.code is None:
                pid, status = os.waitpid(one.pid, os.WNOHANG)
                if pid:
                    code = os.waitstatus_to_exitcode(status)
                    one.code = code if code >= 0 else 128 - code

    def _dismiss(self) -> None:
        """Tell the ends of commands, once what they printed before has been sent.

        Others that have inherited their output are not waited for.
        """
        for one in [one for one in self._sessions.values() if one.code is not None]:
            for _ in range(_LAST_READS):
                for descriptor in self._ready(one):
                    self._read(one, descriptor)
            if one.has_room:
                assert one.code is not None
                self._send(one.number, messages.EXITED, one.code.to_bytes(4, "big"))
                one.close()
                del self._sessions[one.number]

    @staticmethod
    def _ready(one: Session) -> list[int]:
        """Return the outputs that can be read without waiting."""
        poller = select.poll()
        for descriptor in one.outputs:
            poller.register(descriptor, select.POLLIN)
        return [descriptor for descriptor, _ in poller.poll(0)]

    def _progress(self, text: str) -> None:
        self._send(0, messages.PROGRESS, text.encode())

    def _send(self, session: int, kind: int, payload: bytes) -> None:
        self._write(messages.pack_for(session, kind, payload))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._writer, data) :]


def main() -> int:
    """Run on standard input and output; what else is written there goes to standard error."""
    writer = os.dup(1)
    os.dup2(2, 1)
    with signals_unwind():
        try:
            return Door(0, writer).run()
        except BrokenPipeError:  # the owner is gone
            return 1
