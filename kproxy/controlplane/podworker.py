"""One pod on one node: the state machine that runs, stops and reports it.

::

    WAITING ──sandbox──▶ RUNNING ──deletion──▶ TERMINATING ──all ended, or grace over──▶ GONE
       │                    └──sandbox lost──▶ FAILED                                      ▲
       └──deletion, or force deletion of any──────────────────────────────────────────────┘

A pod whose containers have all ended and are not to be restarted becomes FAILED, too; its phase
tells success. Init containers run one after the other before the others; each container is a
:class:`.containerworker.ContainerWorker`. No thread and no clock of its own: the worker is told
the time, does what is due, and returns when it wants to be asked again.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from kproxy import errors
from kproxy.api.pods import ContainerStatus, Pod

from . import podstatus
from .backoff import RetryBackoff
from .containerworker import ContainerWorker
from .defaults import GRACE_PERIOD
from .kubeletmetrics import Census
from .outbox import Report
from .podtools import Tools, names
from .runtime import ContainerId, Exit, Sandbox

Object = dict[str, Any]

TOLD_MOST = 8
"""So many of the reports made last are remembered, to tell own words from those of others."""


class Stage(StrEnum):
    """Where in its life a pod is."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATING = "terminating"
    FAILED = "failed"
    GONE = "gone"


class PodWorker:
    """Runs one pod. ``mirror``: a static pod's image in the API, to which its reports go."""

    def __init__(
        self, pod: Pod, tools: Tools, *, now: float, mirror: Object | None = None
    ) -> None:
        self.pod = pod
        self.stage = Stage.WAITING
        self._mirror = mirror
        self._tools = tools
        self._sandbox: Sandbox | None = None
        self._removed = False
        self._addresses: tuple[str, ...] = ()
        spec = pod.spec
        self._init = [
            ContainerWorker(tools.images.container(one), pod, tools, init=True)
            for one in spec.init_containers or ()
        ]
        self._main = [
            ContainerWorker(tools.images.container(one), pod, tools, init=False)
            for one in spec.containers
        ]
        self._conditions = podstatus.Conditions(
            (pod.status.conditions if pod.status else None) or ()
        )
        self._retry = RetryBackoff()
        self._due = 0.0
        self._seen: float | None = now
        self._grace: int | None = None
        self._started: str | None = None
        self._reason = self._message = self._last_phase = ""
        self._reported: Report | None = None
        self._told_ready: deque[tuple[object, ...]] = deque(maxlen=TOLD_MOST)
        self._resume()

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return self.pod.metadata.uid

    @property
    def sandbox(self) -> Sandbox | None:
        """Return its sandbox."""
        return self._sandbox

    @property
    def containers(self) -> Sequence[ContainerWorker]:
        """Return all its containers, init containers first."""
        return (*self._init, *self._main)

    def adopt(self, sandbox: Sandbox, running: Sequence[ContainerId], now: float) -> None:
        """Take over what a former kubelet started; what does not run any more has ended.

        Of a pod that has failed there should be nothing: the rest is removed.
        """
        self._sandbox, self._addresses = sandbox, sandbox.addresses
        if self.stage is Stage.FAILED:
            return
        self.stage = Stage.RUNNING
        self._tools.accounts.obtain(self.pod)
        self._seen = None
        self._started = self._started or self._tools.today()
        by_name = {container.name: container for container in running}
        statuses = self._statuses()
        if any(one.container.name in by_name for one in self._main):
            for one in self._init:
                one.assume_done()
        for one in self.containers:
            name = one.container.name
            if name in by_name:
                one.adopt(by_name[name], sandbox, statuses.get(name), now)
            elif not one.done:
                one.ended_unseen(now)

    def lost_before(self) -> bool:
        """Return whether the API says that this pod ran here, so it once had a sandbox."""
        status = self.pod.status
        return status is not None and status.phase == "Running"

    def exited(self, end: Exit, now: float) -> None:
        """Note the end of a container; whether it starts again is decided by :meth:`advance`."""
        found = any(one.exited(end, now) for one in self.containers)
        if found and self.stage is Stage.RUNNING:
            self._check_sandbox()

    def advance(self, now: float) -> float | None:
        """Do what is due; return the time of the next thing to do, None: nothing but events."""
        try:
            return self._advance(now)
        except (errors.KproxyError, OSError) as error:  # OSError: the machine lacks something
            if self.stage is Stage.RUNNING and not self._check_sandbox():
                return now
            self._message = str(error)
            self._due = now + self._retry.failed(self.uid)
            self._tools.log.warning("pod not in order", **names(self.pod), error=str(error))
            return self._due

    def gone(self, now: float) -> float | None:
        """Remove at once what there is: the object is gone. Returns when to try again, if so."""
        try:
            self._remove()
            self._tools.runtime.forget(self.uid)
        except (errors.KproxyError, OSError) as error:
            self._tools.log.error("sandbox not removed", **names(self.pod), error=str(error))
            return now + self._retry.failed(self.uid)
        self.stage = Stage.GONE
        return None

    def fail(self, reason: str, message: str) -> None:
        """End the pod for good: its owner replaces it."""
        self._reason, self._message = reason, message
        for one in self.containers:
            one.vanish()
        self._end("Failed")
        self._tools.log.warning("pod failed", **names(self.pod), reason=reason)

    def report(self) -> Report | None:
        """Return what the API server should know and does not yet; None: nothing new."""
        status = None if self.stage is Stage.GONE else self.status()
        meta = self.pod.metadata
        report = Report(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            status=status,
            mirror=self._mirror,
        )
        if report == self._reported:
            return None
        self._reported = report
        self._told_ready.append(_readiness((status or {}).get("conditions") or ()))
        return report

    def heard(self, shown: Pod) -> None:
        """Note how the API shows the pod: if others have marked it as not ready, that ends.

        A controller marks the pods of a node that seems lost; the node knows better. What this
        worker has told itself, and hears of late, is nothing new.
        """
        conditions = (shown.status.conditions if shown.status else None) or ()
        ready = _readiness([msgspec.to_builtins(one) for one in conditions])
        if ready and self._reported is not None and ready not in self._told_ready:
            self._reported = None

    def report_again(self) -> None:
        """Have the next report made although nothing has changed: it was lost."""
        self._reported = None

    def shorten_grace(self, now: float) -> None:
        """Note that the pod may have been deleted again, with a shorter grace period."""
        grace = self.pod.metadata.deletion_grace_period_seconds
        if self.stage is Stage.TERMINATING and grace is not None and grace != self._grace:
            self._grace = grace
            for one in self.containers:
                one.stop(now, grace, "")

    def count(self, census: Census) -> None:
        """Count the pod and its containers."""
        states = []
        for one in self.containers:
            ended = one.done or one.starts
            states.append("running" if one.id else "exited" if ended else "created")
        census.count(self._sandbox is not None, states)

    def _advance(self, now: float) -> float | None:
        if now < self._due:
            return self._due
        deleted = self.pod.metadata.deletion_timestamp is not None
        if self.stage in (Stage.WAITING, Stage.FAILED) and deleted:
            self._finish()
        if self.stage is Stage.WAITING:
            if not self._has_account():
                return None
            self._create_sandbox()
        if self.stage is Stage.RUNNING and deleted:
            self._terminate(now)
        if self.stage is Stage.RUNNING:
            return self._run(now)
        if self.stage is Stage.TERMINATING:
            return self._end_all(now)
        if self.stage is Stage.FAILED and not self._removed:
            self._remove()
        return None

    def _has_account(self) -> bool:
        """Return whether it has its token, if it is to have one; a failure is an Event."""
        missing = self._tools.accounts.obtain(self.pod)
        if missing and missing != self._message:
            self._message = missing
            self._tools.events.note(self.pod, "FailedMount", missing, warning=True)
        return missing is None

    def _create_sandbox(self) -> None:
        meta = self.pod.metadata
        try:
            self._sandbox = self._tools.runtime.run_sandbox(
                uid=self.uid,
                namespace=meta.namespace,
                name=meta.name,
                host_network=self.pod.spec.host_network,
            )
        except errors.KproxyError as error:
            self._tools.metrics.pod_errors.add()
            self._tools.events.note(
                self.pod, "FailedCreatePodSandBox", f"no sandbox: {error}", warning=True
            )
            raise
        self.stage = Stage.RUNNING
        self._addresses = self._sandbox.addresses
        self._started = self._tools.today()
        self._message = ""
        self._retry.succeeded(self.uid)
        self._tools.metrics.started_pods.add()
        self._tools.log.info("sandbox created", **names(self.pod), addresses=self._addresses)

    def _run(self, now: float) -> float | None:
        """Start, restart and probe containers; return when to look again."""
        assert self._sandbox is not None
        for one in self._init:
            if one.succeeded:
                continue
            due = one.advance(now, self._sandbox)
            if one.done:  # and has not succeeded
                self._end("Failed")
                return now
            return due
        times, wait = [], False
        for one in self._main:
            times.append(one.go_on(now) if wait else one.advance(now, self._sandbox))
            wait = wait or one.starting
        if all(one.done for one in self._main):
            self._end(self._phase())
            return now  # what it has become wants to be looked at, too
        if self._seen is not None and all(one.starts for one in self._main):
            self._tools.metrics.pod_start.observe(now - self._seen)
            self._seen = None
        return min((time for time in times if time is not None), default=None)

    def _terminate(self, now: float) -> None:
        self._grace = grace = self.pod.metadata.deletion_grace_period_seconds
        self.stage = Stage.TERMINATING
        for one in self.containers:
            one.stop(now, GRACE_PERIOD if grace is None else grace, "")
        self._tools.log.info("pod terminating", **names(self.pod), grace=grace)

    def _end_all(self, now: float) -> float | None:
        """Go on stopping; when all have ended, or the grace is over, remove the rest."""
        running = [one for one in self.containers if one.id]
        if all(now >= one.kill_at for one in running):
            self._finish()
            return None
        times = [one.go_on(now) for one in running]
        return min((time for time in times if time is not None), default=None)

    def _end(self, phase: str) -> None:
        """Let it rest in a final phase."""
        for one in self.containers:
            one.lost()
        self.stage = Stage.FAILED
        self._last_phase = phase

    def _finish(self) -> None:
        self._remove()
        self._tools.runtime.forget(self.uid)
        self.stage = Stage.GONE

    def _remove(self) -> None:
        self._tools.runtime.remove(self.uid)
        self._tools.accounts.forget(self.uid)
        for one in self.containers:
            one.lost()
        if self._sandbox is not None:
            self._sandbox = None
            self._tools.log.info("sandbox removed", **names(self.pod))
        self._removed = True

    def _check_sandbox(self) -> bool:
        """Return whether the sandbox is there; without it the pod has failed."""
        if self._tools.runtime.sandbox(self.uid) is not None:
            return True
        self.fail("SandboxLost", "the pod's sandbox was destroyed from outside")
        return False

    def _resume(self) -> None:
        """Go on from the status that a former kubelet reported."""
        status = self.pod.status
        if status is None:
            return
        self._started = status.start_time
        self._addresses = tuple(one.ip for one in status.pod_ips or ())
        statuses = self._statuses()
        for one in self.containers:
            if one.container.name in statuses:
                one.resume(statuses[one.container.name])
        if status.phase in ("Failed", "Succeeded"):
            self._end(status.phase)
            self._reason, self._message = status.reason, status.message

    def _statuses(self) -> dict[str, ContainerStatus]:
        status = self.pod.status
        if status is None:
            return {}
        found = (*(status.init_container_statuses or ()), *(status.container_statuses or ()))
        return {one.name: one for one in found}

    def _phase(self) -> str:
        if self.stage in (Stage.WAITING, Stage.FAILED):
            return self._last_phase or "Pending"
        return podstatus.phase(
            self.pod.spec.restart_policy,
            [one.state() for one in self._init],
            [one.state() for one in self._main],
        )

    def status(self) -> Object:
        """Return what is reported of it."""
        facts = podstatus.Facts(
            phase=self._phase(),
            init=[one.state() for one in self._init],
            containers=[one.state() for one in self._main],
            addresses=self._addresses,
            sandbox=self._sandbox is not None,
            host_ips=self._tools.host_ips,
            started=self._started,
            reason=self._reason,
            message=self._message,
        )
        return podstatus.status(facts, self._conditions.told(facts, self._tools.today()))


def _readiness(conditions: Iterable[Object]) -> tuple[object, ...]:
    """Return whether a pod is ready and since when; empty: nobody has said."""
    for one in conditions:
        if one["type"] == "Ready":
            return one["status"], one.get("lastTransitionTime")
    return ()
