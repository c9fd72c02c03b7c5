"""One pod on one node: the state machine that runs, restarts, stops and reports it.

::

    WAITING ──sandbox──▶ RUNNING ──deletion──▶ TERMINATING ──all ended, or grace over──▶ GONE
       │                    └──sandbox lost──▶ FAILED                                      ▲
       └──deletion, or force deletion of any──────────────────────────────────────────────┘

A pod whose containers have all ended and are not to be restarted becomes FAILED, too; its phase
tells success. No thread and no clock of its own: the worker is told the time, does what is due,
and returns when it wants to be asked again.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kproxy import errors, logs
from kproxy.api.pods import Container, Pod

from . import podstatus
from .backoff import CrashBackoff, RetryBackoff
from .outbox import Report
from .runtime import ContainerId, ContainerSpec, Exit, PodRuntime, Sandbox

GRACE_SECONDS = 30
CHECK_FIRST = 0.01
CHECK_MOST = 1.0


class Stage(StrEnum):
    """Where in its life a pod is."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATING = "terminating"
    FAILED = "failed"
    GONE = "gone"


@dataclass(slots=True)
class _Container:
    """What is known of one container; ``id`` is None while it does not run."""

    spec: ContainerSpec
    image: str
    id: ContainerId | None = None
    backoff: CrashBackoff = field(default_factory=CrashBackoff)
    due: float = 0.0
    started: float = 0.0
    starts: int = 0
    ready: bool = False
    checks: int = 0
    check_due: float = 0.0
    running_since: str | None = None
    exit_code: int | None = None
    finished_at: str | None = None
    done: bool = False
    """Whether it has ended and is not to be restarted."""

    def state(self) -> podstatus.ContainerState:
        """Return what is reported of it."""
        return podstatus.ContainerState(
            name=self.spec.name,
            image=self.image,
            running_since=self.running_since,
            ready=self.ready,
            restarts=max(self.starts - 1, 0),
            exit_code=self.exit_code,
            finished_at=self.finished_at,
            pid=self.id.pid if self.id else None,
        )


class PodWorker:
    """Runs one pod. ``today`` returns the wall clock as Kubernetes writes it."""

    def __init__(
        self,
        pod: Pod,
        runtime: PodRuntime,
        log: logs.Log,
        *,
        host_ip: str,
        today: Callable[[], str],
    ) -> None:
        self.pod = pod
        self.stage = Stage.WAITING
        self._runtime = runtime
        self._log = log
        self._host_ip = host_ip
        self._today = today
        self._sandbox: Sandbox | None = None
        self._containers = [_container(spec) for spec in pod.spec.containers]
        self._retry = RetryBackoff()
        self._due = self._kill_at = 0.0
        self._started: str | None = None
        self._was_ready = False
        self._ready_since: str | None = None
        self._reason = self._message = self._last_phase = ""
        self._reported: Report | None = None
        self._resume()

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return self.pod.metadata.uid

    def adopt(self, sandbox: Sandbox, running: Sequence[ContainerId], now: float) -> None:
        """Take over what a former kubelet started; what does not run any more has crashed.

        Of a pod that has failed there should be nothing: the rest is removed.
        """
        self._sandbox = sandbox
        if self.stage is Stage.FAILED:
            return
        self.stage = Stage.RUNNING
        self._started = self._started or self._today()
        by_name = {container.name: container for container in running}
        for container in self._containers:
            container.id = by_name.get(container.spec.name)
            container.started = now
            if container.id is None:
                continue
            container.starts = max(container.starts, 1)
            container.running_since = self._today()
            self._event("container adopted", container.id)

    def lost_before(self) -> bool:
        """Return whether the API says that this pod ran here, so it once had a sandbox."""
        status = self.pod.status
        return status is not None and status.phase == "Running"

    def exited(self, end: Exit, now: float) -> None:
        """Note the end of a container; whether it starts again is decided by :meth:`advance`."""
        for container in self._containers:
            if container.id == end.container:
                break
        else:
            return
        container.id, container.ready, container.running_since = None, False, None
        container.exit_code, container.finished_at = end.code, self._today()
        if self.stage is Stage.RUNNING and not self._check_sandbox():
            return
        policy = self.pod.spec.restart_policy
        container.done = policy == "Never" or (policy == "OnFailure" and end.code == 0)
        if self.stage is Stage.RUNNING and all(one.done for one in self._containers):
            well = all(one.exit_code == 0 for one in self._containers)
            self._end("Succeeded" if well else "Failed")
        container.due = container.backoff.exited(started=container.started, now=now)

    def advance(self, now: float) -> float | None:
        """Do what is due; return the time of the next thing to do, None: nothing but events."""
        try:
            return self._advance(now)
        except errors.KproxyError as error:
            self._message = str(error)
            self._due = now + self._retry.failed(self.uid)
            self._log.warning("pod not in order", **self._names(), error=str(error))
            return self._due

    def gone(self, now: float) -> float | None:
        """Remove at once what there is: the object is gone. Returns when to try again, if so."""
        try:
            self._remove()
        except errors.KproxyError as error:
            self._log.error("sandbox not removed", **self._names(), error=str(error))
            return now + self._retry.failed(self.uid)
        self.stage = Stage.GONE
        return None

    def fail(self, reason: str, message: str) -> None:
        """End the pod for good: its owner replaces it."""
        self._reason, self._message = reason, message
        for container in self._containers:
            container.id, container.ready, container.running_since = None, False, None
        self._end("Failed")
        self._log.warning("pod failed", **self._names(), reason=reason)

    def _end(self, phase: str) -> None:
        self.stage = Stage.FAILED
        self._last_phase = phase

    def report(self) -> Report | None:
        """Return what the API server should know and does not yet; None: nothing new."""
        status = None
        if self.stage is not Stage.GONE:
            status = self._status()
        meta = self.pod.metadata
        report = Report(namespace=meta.namespace, name=meta.name, uid=meta.uid, status=status)
        if report == self._reported:
            return None
        self._reported = report
        return report

    def _advance(self, now: float) -> float | None:
        if now < self._due:
            return self._due
        deleted = self.pod.metadata.deletion_timestamp is not None
        if self.stage in (Stage.WAITING, Stage.FAILED) and deleted:
            self._finish()
        if self.stage is Stage.WAITING:
            self._create_sandbox()
        if self.stage is Stage.RUNNING and deleted:
            self._terminate(now)
        if self.stage is Stage.RUNNING:
            return self._run(now)
        if self.stage is Stage.TERMINATING:
            if now < self._kill_at and any(container.id for container in self._containers):
                return self._kill_at
            self._finish()
        if self.stage is Stage.FAILED:
            self._remove()
        return None

    def _create_sandbox(self) -> None:
        meta = self.pod.metadata
        self._sandbox = self._runtime.run_sandbox(
            uid=self.uid,
            namespace=meta.namespace,
            name=meta.name,
            host_network=self.pod.spec.host_network,
        )
        self.stage = Stage.RUNNING
        self._started = self._today()
        self._message = ""
        self._retry.succeeded(self.uid)
        self._log.info("sandbox created", **self._names(), addresses=self._sandbox.addresses)

    def _run(self, now: float) -> float | None:
        """Start and probe containers; return when to look again."""
        times: list[float] = []
        for container in self._containers:
            if container.done:
                continue
            if container.id is None and now >= container.due:
                self._start(container, now)
            if container.id is None:
                times.append(container.due)
            elif not container.ready:
                times.extend(self._probe(container, now))
            if self.stage is not Stage.RUNNING:
                return now  # what it has become wants to be looked at, too
        return min(times, default=None)

    def _start(self, container: _Container, now: float) -> None:
        assert self._sandbox is not None
        container.started = now
        try:
            container.id = self._runtime.start(self._sandbox, container.spec)
        except errors.KproxyError as error:
            if self._check_sandbox():
                container.due = container.backoff.exited(started=now, now=now) + CHECK_FIRST
                self._message = str(error)
                self._log.warning(
                    "container not started",
                    **self._names(),
                    container=container.spec.name,
                    error=str(error),
                )
            return
        self._message = ""
        container.starts += 1
        container.running_since = self._today()
        container.checks, container.check_due = 0, now
        self._event("container started", container.id, restarts=container.starts - 1)

    def _probe(self, container: _Container, now: float) -> list[float]:
        """Look whether a started container answers; return when to look again, if not."""
        assert self._sandbox is not None
        if now < container.check_due:
            return [container.check_due]
        # A process started in a sandbox that is just being destroyed would never get ready.
        if container.checks and not self._check_sandbox():
            return []
        container.ready = self._runtime.ready(self._sandbox, container.spec)
        if container.ready and container.id:
            self._event("container ready", container.id)
            return []
        container.check_due = now + min(CHECK_FIRST * 1.5**container.checks, CHECK_MOST)
        container.checks += 1
        return [container.check_due]

    def _terminate(self, now: float) -> None:
        grace = self.pod.metadata.deletion_grace_period_seconds
        self._kill_at = now + (GRACE_SECONDS if grace is None else grace)
        self.stage = Stage.TERMINATING
        for container in self._containers:
            if container.id:
                self._runtime.signal(container.id, signal.SIGTERM)
        self._log.info("pod terminating", **self._names(), grace=grace)

    def shorten_grace(self, now: float) -> None:
        """Note that the pod was deleted again, with a shorter grace period."""
        grace = self.pod.metadata.deletion_grace_period_seconds
        if self.stage is Stage.TERMINATING and grace is not None:
            self._kill_at = min(self._kill_at, now + grace)

    def _finish(self) -> None:
        self._remove()
        self.stage = Stage.GONE

    def _remove(self) -> None:
        self._runtime.remove(self.uid)
        if self._sandbox is not None:
            self._sandbox = None
            self._log.info("sandbox removed", **self._names())

    def _check_sandbox(self) -> bool:
        """Return whether the sandbox is there; without it the pod has failed."""
        if self._runtime.sandbox(self.uid) is not None:
            return True
        self.fail("SandboxLost", "the pod's sandbox was destroyed from outside")
        return False

    def _resume(self) -> None:
        """Go on from the status that a former kubelet reported."""
        status = self.pod.status
        if status is None:
            return
        self._started = status.start_time
        if status.phase == "Running":
            counts = {one.name: one.restart_count for one in status.container_statuses or ()}
            for container in self._containers:
                container.starts = counts.get(container.spec.name, -1) + 1
        if status.phase in ("Failed", "Succeeded"):
            self._end(status.phase)
            self._reason, self._message = status.reason, status.message

    def _status(self) -> podstatus.Object:
        ready = self.stage in (Stage.RUNNING, Stage.TERMINATING) and all(
            container.ready for container in self._containers
        )
        if ready is not self._was_ready or self._ready_since is None:
            self._was_ready, self._ready_since = ready, self._today()
        phase = {Stage.WAITING: "Pending", Stage.FAILED: self._last_phase}.get(
            self.stage, "Running"
        )
        if phase == "Running" and not any(container.starts for container in self._containers):
            phase = "Pending"
        return podstatus.status(
            phase=phase,
            containers=[container.state() for container in self._containers],
            addresses=self._sandbox.addresses if self._sandbox else (),
            host_ip=self._host_ip,
            started=self._started,
            reason=self._reason,
            message=self._message,
            ready_since=self._ready_since,
        )

    def _names(self) -> dict[str, str]:
        meta = self.pod.metadata
        return {"pod": f"{meta.namespace}/{meta.name}", "uid": meta.uid}

    def _event(self, msg: str, container: ContainerId, **fields: object) -> None:
        self._log.info(
            msg,
            **self._names(),
            container=container.name,
            pid=container.pid,
            start_time=container.start_time,
            **fields,
        )


def _container(container: Container) -> _Container:
    spec = ContainerSpec(
        name=container.name,
        command=(*(container.command or ()), *(container.args or ())),
        env=tuple((variable.name, variable.value) for variable in container.env or ()),
        ports=tuple((port.protocol, port.container_port) for port in container.ports or ()),
    )
    return _Container(spec, container.image)
