"""One container of a pod: started, asked how it is, stopped with grace, started again.

::

    waiting ──start──▶ starting ──postStart over──▶ running ──▶ stopping ──▶ ended
       ▲                                                                      │
       └────────── back-off, by the restart policy ◀──────────────────────────┴──▶ done

No thread and no clock of its own: it is told the time, does what is due, and returns when it wants
to be asked again. What it begins (hooks, probes) is done by the performer, who calls back.
"""

import contextlib
import math

from kproxy import errors
from kproxy.api.durations import Duration
from kproxy.api.pods import Container, ContainerStatus, Pod

from . import containerenv, podstatus
from .backoff import CRASH_FIRST, CrashBackoff
from .containerprobes import Where
from .containerrun import ContainerRun
from .envsources import NotYet
from .images import Program, UnknownImage
from .podstatus import Terminated
from .podtools import Tools, names
from .runtime import ContainerId, ContainerSpec, Exit, Sandbox

PULL_ERROR_SHOWN = 1.0
"""So long the reason is ErrImagePull; then, until the next attempt, ImagePullBackOff."""
START_ERROR = 128
"""Exit code that container runtimes report for a program that could not be started."""


class ContainerWorker:
    """Runs one container of a pod; ``init``: one that must end well before the others start."""

    def __init__(self, container: Container, pod: Pod, tools: Tools, *, init: bool) -> None:
        self.container = container
        self.init = init
        self.done = False
        """Whether it has ended and is not to be started again."""
        self.starts = 0
        self._pod = pod
        self._tools = tools
        self._run: ContainerRun | None = None
        self._crash, self._setup = CrashBackoff(), CrashBackoff(CRASH_FIRST)
        self._due = self._turn = 0.0
        self._ended: Terminated | None = None
        self._before: Terminated | None = None
        # Why it waits; an empty reason: it does not, it has ended.
        self._reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
        self._message = ""
        self._ever_ran = False
        self._half_known = False

    @property
    def id(self) -> ContainerId | None:
        """Return the process that runs, if one does."""
        return self._run.id if self._run else None

    @property
    def starting(self) -> bool:
        """Return whether the containers after it have to wait for its postStart hook."""
        return self._run is not None and self._run.starting

    @property
    def ready(self) -> bool:
        """Return whether it may get traffic."""
        return self._run is not None and self._run.ready

    @property
    def succeeded(self) -> bool:
        """Return whether it has ended well for good."""
        return self.done and self._ended is not None and self._ended.exit_code == 0

    @property
    def kill_at(self) -> float:
        """Return when it is killed; infinite: not known yet."""
        return self._run.kill_at if self._run else math.inf

    @property
    def spec(self) -> ContainerSpec | None:
        """Return what runs, if something does."""
        return self._run.where.spec if self._run else None

    def _spec(
        self, sandbox: Sandbox, program: Program, container: Container | None = None
    ) -> ContainerSpec:
        """Return what is started. Raises KproxyError for a wrong ``env``, NotYet."""
        tools = self._tools
        place = containerenv.Place(
            node_name=tools.node_name, host_ips=tools.host_ips, pod_ips=sandbox.addresses
        )
        given = {**tools.accounts.environment(self._pod), **program.env}
        env = containerenv.environment(
            self._pod, container or self.container, place, given, tools.sources.look_up
        )
        return ContainerSpec(
            name=self.container.name,
            command=containerenv.command(program.command, env),
            env=tuple(env.items()),
            ports=tuple((p.protocol, p.container_port) for p in self.container.ports or ()),
            working_dir=self.container.working_dir,
            resolv_conf=tools.resolving.file_of(self._pod),
            mounts=tuple(tools.accounts.mounts(self._pod).items()),
            own_log=program.own_log,
            attempt=self.starts,
        )

    def state(self) -> podstatus.ContainerState:
        """Return what is reported of it."""
        run, ended = self._run, self._ended
        over = run is None and not self._reason
        process = str(run.id) if run else ""
        return podstatus.ContainerState(
            name=self.container.name,
            image=self.container.image,
            id=process or (ended.id if ended else ""),
            running_since=run.today if run and run.shown else None,
            terminated=ended if over else None,
            waiting=self._reason,
            message=self._message,
            last=self._before if over else ended,
            ready=self.succeeded if self.init else self.ready,
            started=run is not None and run.started,
            restarts=max(self.starts - 1, 0),
        )

    def advance(self, now: float, sandbox: Sandbox) -> float | None:
        """Start, probe, stop what is due; return when to ask again, None: nothing but events.

        Raises KproxyError if the machine refuses something else than the start.
        """
        if self.done:
            return None
        if self._run is None and now >= self._due and not self._start(now, sandbox):
            return None  # it waits for an answer of the API server
        if self._run is not None:
            return self.go_on(now)
        if self.done:
            return None
        if self._reason == "ErrImagePull":
            if now < self._turn:
                return self._turn
            self._wait("ImagePullBackOff", f'Back-off pulling image "{self.container.image}"')
        return self._due

    def go_on(self, now: float) -> float | None:
        """Do what is due of a process that runs; start none."""
        if self._half_known and self._run:
            self._know_all(self._run)
        return self._run.go_on(now) if self._run else None

    def exited(self, end: Exit, now: float) -> bool:
        """Note the end of its process; return whether it was this container's.

        Whether it starts again is decided by :meth:`advance`.
        """
        run = self._run
        if run is None or run.id != end.container:
            return False
        self.lost()
        today = self._tools.today()
        self._over(
            Terminated(
                code=end.code, started_at=run.today, finished_at=today, id=str(end.container)
            ),
            started=run.since,
            now=now,
        )
        return True

    def ended_unseen(self, now: float) -> None:
        """Note that it does not run, whatever a former kubelet started; nobody knows how it ended.

        One that had not been started at all is still to be started.
        """
        if not self._ever_ran:
            return
        message = "The container ended while there was no kubelet"
        today = self._tools.today()
        self._over(Terminated(code=None, message=message, finished_at=today), started=now, now=now)

    def lost(self) -> None:
        """Note that its process is gone; forget hooks and probes under way."""
        run, self._run = self._run, None
        self._half_known = False
        if run is not None:
            run.close()

    def vanish(self) -> None:
        """Note that its process went with its sandbox: it is over, nobody knows how."""
        run = self._run
        self.lost()
        self.done = True
        if run is not None:
            self._before, self._ended = (
                self._ended,
                Terminated(
                    code=None,
                    started_at=run.today,
                    finished_at=self._tools.today(),
                    id=str(run.id),
                ),
            )
            self._wait("", "")

    def stop(self, now: float, grace: float, why: str) -> None:
        """Begin to stop it, or shorten a stop under way; ``grace``: seconds in all."""
        if self._run is not None:
            self._run.stop(now, grace, why)

    def adopt(
        self, found: ContainerId, sandbox: Sandbox, status: ContainerStatus | None, now: float
    ) -> None:
        """Take over a process that a former kubelet started."""
        known = status if status is not None and status.container_id == str(found) else None
        running = ((known.state if known else None) or {}).get("running") or {}
        today = running.get("startedAt") or self._tools.today()
        self.starts = max(self.starts, found.attempt + 1)
        self._half_known = True
        run = self._process(found, sandbox, self._known_program(sandbox), now, today)
        run.adopted(now, known)
        self._tools.log.info("container adopted", **run.words())

    def _known_program(self, sandbox: Sandbox) -> tuple[Program, ContainerSpec]:
        """Return what runs; as little as can be if the image is not known any more."""
        try:
            program = self._tools.images.program(self.container)
        except errors.KproxyError:
            program = Program(command=(), env={}, own_log=False, listens=False)
        for container in (self.container, containerenv.without_sources(self.container)):
            with contextlib.suppress(errors.KproxyError):
                return program, self._spec(sandbox, program, container)
        return program, ContainerSpec(name=self.container.name, command=())

    def _know_all(self, run: ContainerRun) -> None:
        """Take note of what an adopted container runs as, once the API server has said it."""
        try:
            program = self._tools.images.program(self.container)
            run.where.spec = self._spec(run.where.sandbox, program)
        except NotYet:
            return
        except errors.KproxyError:
            pass  # the image is known no more, or the source is gone: what is known has to do
        self._half_known = False

    def assume_done(self) -> None:
        """Note that it must have ended well, because what comes after it runs."""
        if not self.done:
            self.done, self._ended = True, Terminated(code=0)
            self._wait("", "")

    def resume(self, status: ContainerStatus) -> None:
        """Go on from what a former kubelet reported of it."""
        self._ended = podstatus.terminated(status.last_state)
        self._ever_ran = "running" in (status.state or {})
        ended = podstatus.terminated(status.state)
        if ended is not None:
            self._before, self._ended = self._ended, ended
            self.done = not self._again(ended)
            self._wait("", "")
        if self._ended is not None or self._ever_ran:
            self.starts = status.restart_count + 1

    def _start(self, now: float, sandbox: Sandbox) -> bool:
        """Start it, or say why not; False: nobody knows yet, look again when there is news."""
        tools = self._tools
        kind = "init_container" if self.init else "container"
        try:
            program = tools.images.program(self.container)
            spec = self._spec(sandbox, program)
        except NotYet as why:
            self._wait("ContainerCreating", why.message)
            return False
        except errors.KproxyError as error:
            tools.metrics.container_errors.add(kind, "CreateContainerConfigError")
            self._not_set_up(error, now)
            return True
        try:
            found = tools.runtime.start(sandbox, spec)
        except errors.KproxyError as error:
            if tools.runtime.sandbox(sandbox.uid) is None:
                raise
            tools.metrics.container_errors.add(kind, "RunContainerError")
            self._not_started(error, now)
            return True
        self.starts += 1
        run = self._process(found, sandbox, (program, spec), now, tools.today())
        tools.metrics.started_containers.add(kind)
        tools.log.info("container started", **run.words(), restarts=self.starts - 1)
        tools.events.note(self._pod, "Started", f"Started container {self.container.name}")
        run.begin(now)
        return True

    def _process(
        self,
        found: ContainerId,
        sandbox: Sandbox,
        what: tuple[Program, ContainerSpec],
        now: float,
        today: str,
    ) -> ContainerRun:
        program, spec = what
        where = Where(pod=self._pod, container=self.container, sandbox=sandbox, spec=spec)
        self._message = ""
        self._run = ContainerRun(found, where, program, self._tools, now=now, today=today)
        return self._run

    def _not_set_up(self, error: errors.KproxyError, now: float) -> None:
        """Wait until somebody maps the image, or for ever: the manifest cannot be changed."""
        unknown = isinstance(error, UnknownImage)
        self._wait("ErrImagePull" if unknown else "CreateContainerConfigError", str(error))
        self._turn = now + PULL_ERROR_SHOWN
        self._due = self._setup.exited(started=now, now=now)
        self._tools.events.note(self._pod, "Failed", str(error), warning=True)
        self._tools.log.warning("container not set up", **self._words(), error=str(error))

    def _not_started(self, error: errors.KproxyError, now: float) -> None:
        self.starts += 1
        self._tools.log.warning("container not started", **self._words(), error=str(error))
        self._tools.events.note(self._pod, "Failed", f"Error: {error}", warning=True)
        today = self._tools.today()
        ended = Terminated(
            code=START_ERROR,
            reason="StartError",
            message=str(error),
            started_at=today,
            finished_at=today,
        )
        self._over(ended, started=now, now=now)
        # Unlike a program that ran, it is not tried again at once: it would fail at once.
        if not self.done and self._due <= now:
            self._due = self._crash.exited(started=now, now=now)
            self._crash_looping(now)

    def _over(self, ended: Terminated, *, started: float, now: float) -> None:
        self._before, self._ended = self._ended, ended
        self.done = not self._again(ended)
        self._wait("", "")
        if self.done:
            return
        self._due = self._crash.exited(started=started, now=now)
        if self._due > now:
            self._crash_looping(now)

    def _crash_looping(self, now: float) -> None:
        meta = self._pod.metadata
        wait = Duration(round(self._due - now)).text
        message = f"back-off {wait} restarting failed container={self.container.name}"
        message += f" pod={meta.name}_{meta.namespace}({meta.uid})"
        self._wait("CrashLoopBackOff", message)
        self._tools.events.note(
            self._pod, "BackOff", message[0].upper() + message[1:], warning=True
        )

    def _again(self, ended: Terminated) -> bool:
        policy = self._pod.spec.restart_policy
        if self.init and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)

    def _wait(self, reason: str, message: str) -> None:
        self._reason, self._message = reason, message

    def _words(self) -> dict[str, object]:
        return {**names(self._pod), "container": self.container.name}
