"""One process of a container, from its start to its end: postStart hook, probes, stop.

What it begins is done by the performer, who calls back; when the process has ended, :meth:`close`
forgets it all. Times are monotonic seconds.
"""

import math

from kproxy import errors
from kproxy.api.pods import ContainerStatus

from .containerprobes import Probes, Where, action
from .containerstop import Stop
from .defaults import GRACE_PERIOD
from .images import Program
from .podtools import Tools, names
from .probesockets import Outcome
from .runtime import ContainerId


class ContainerRun:
    """One process. ``today``: the wall clock at its start, ``since``: the monotonic one."""

    def __init__(
        self,
        process: ContainerId,
        where: Where,
        program: Program,
        tools: Tools,
        *,
        now: float,
        today: str,
    ) -> None:
        self.id = process
        self.since = now
        self.today = today
        self._where = where
        self._program = program
        self._tools = tools
        self._hook: int | None = None
        self._probes: Probes | None = None
        self._stop: Stop | None = None
        self._told_ready = False

    @property
    def where(self) -> Where:
        """Return where it runs, and as what."""
        return self._where

    @property
    def starting(self) -> bool:
        """Return whether its postStart hook is under way."""
        return self._hook is not None

    @property
    def shown(self) -> bool:
        """Return whether it is reported as running: its postStart hook is over."""
        return self._probes is not None

    @property
    def started(self) -> bool:
        """Return whether it has started, as its startup probe says."""
        return self._probes is not None and self._probes.started

    @property
    def ready(self) -> bool:
        """Return whether it may get traffic."""
        return self._probes is not None and self._probes.ready

    @property
    def kill_at(self) -> float:
        """Return when it is killed; infinite: not known yet."""
        return self._stop.kill_at if self._stop else math.inf

    def begin(self, now: float) -> None:
        """Run the postStart hook, if there is one; probes begin when it is over."""
        lifecycle = self._where.container.lifecycle
        if lifecycle is None or lifecycle.post_start is None:
            self._probe(now)
            return
        try:
            what = action(lifecycle.post_start, self._where)
        except errors.KproxyError as error:
            self._hook_ended(Outcome(success=False, message=str(error)), now)
            return
        self._hook = self._tools.performer.begin(
            what, now=now, timeout=math.inf, done=self._hook_ended
        )

    def adopted(self, now: float, known: ContainerStatus | None) -> None:
        """Go on with a process that a former kubelet started and reported as ``known``."""
        self._told_ready = bool(known and known.ready)
        self._probe(now, adopted=True, known=known)

    def go_on(self, now: float) -> float | None:
        """Do what is due; return when to ask again, None: nothing but events."""
        times = []
        if self._probes is not None:
            times.append(self._probes.advance(now))
            self._tell_ready()
            failed = self._probes.failed
            if failed is not None and self._stop is None:
                self._tools.log.warning("container unhealthy", **self.words(), probe=failed)
                grace = self._probes.probe(failed).termination_grace_period_seconds
                why = f"failed {failed.lower()} probe, will be restarted"
                self.stop(now, self._grace() if grace is None else grace, why)
        if self._stop is not None:
            times.append(self._stop.advance(now))
        return min((time for time in times if time is not None), default=None)

    def stop(self, now: float, grace: float, why: str) -> None:
        """Begin to stop it, or shorten a stop under way; ``grace``: seconds in all."""
        if self._stop is not None:
            self._stop.shorten(now, grace)
            return
        self._forget_hook()
        if self._probes is not None:
            self._probes.stopping()
        name = self.id.name
        message = f"Container {name} {why}" if why else f"Stopping container {name}"
        self._tools.events.note(self._where.pod, "Killing", message)
        self._stop = Stop(self.id, self._tools, now=now, grace=grace, where=self._where)

    def close(self) -> None:
        """Forget what is under way: the process has ended."""
        self._forget_hook()
        if self._probes is not None:
            self._probes.close()
        if self._stop is not None:
            self._stop.close()

    def words(self) -> dict[str, object]:
        """Return by which fields log lines name it."""
        process = self.id
        return {
            **names(self._where.pod),
            "container": process.name,
            "pid": process.pid,
            "start_time": process.start_time,
        }

    def _hook_ended(self, outcome: Outcome, now: float) -> None:
        self._hook = None
        if outcome.success:
            self._probe(now)
            return
        message = f"PostStartHook failed: {outcome.message}"
        self._tools.events.note(self._where.pod, "FailedPostStartHook", message, warning=True)
        self.stop(now, self._grace(), "failed postStart hook")

    def _probe(
        self, now: float, *, adopted: bool = False, known: ContainerStatus | None = None
    ) -> None:
        self._probes = Probes(
            self._where,
            self._tools,
            now,
            listens=self._program.listens,
            adopted=adopted,
            known=known,
        )

    def _forget_hook(self) -> None:
        if self._hook is not None:
            self._tools.performer.cancel(self._hook)
            self._hook = None

    def _tell_ready(self) -> None:
        if self.ready is not self._told_ready:
            self._told_ready = self.ready
            words = "container ready" if self.ready else "container not ready"
            self._tools.log.info(words, **self.words())

    def _grace(self) -> float:
        grace = self._where.pod.spec.termination_grace_period_seconds
        return GRACE_PERIOD if grace is None else grace
