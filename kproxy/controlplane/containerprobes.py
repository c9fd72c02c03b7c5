"""All probes of one started container: run when due, and what they say of the container.

Startup probes come first; the others wait until the container has *started*. Without a readiness
probe a container is ready when it has started; a built-in server when it listens (an image's own
readiness, as a HEALTHCHECK is one).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kproxy import errors
from kproxy.api.pods import Container, ContainerStatus, Handler, Pod, Probe

from .actions import Action, Check, Connect, Get, Run, Sleep
from .podtools import Tools
from .probes import Kind, ProbeState, draw
from .probesockets import Outcome
from .runtime import ContainerSpec, Sandbox

CHECK_FIRST = 0.01
CHECK_MOST = 1.0


@dataclass(slots=True, kw_only=True)
class Where:
    """Where a container runs.

    ``spec`` is what was started. Of a container that a former kubelet has started it is replaced
    when all of it is known; everything else stays.
    """

    pod: Pod
    container: Container
    sandbox: Sandbox
    spec: ContainerSpec


def action(handler: Probe | Handler, where: Where) -> Action:
    """Return what a probe or a hook does. Raises KproxyError if it names an unknown port."""
    address = where.sandbox.addresses[0] if where.sandbox.addresses else ""
    if handler.exec is not None:
        command = tuple(handler.exec.command or ())
        return Run(sandbox=where.sandbox, spec=where.spec, command=command)
    if handler.http_get is not None:
        get = handler.http_get
        return Get(
            host=get.host or address,
            port=_port(get.port, where.container),
            path=get.path,
            tls=get.scheme.upper() == "HTTPS",
            headers=tuple((one.name, one.value) for one in get.http_headers or ()),
        )
    if handler.tcp_socket is not None:
        tcp = handler.tcp_socket
        return Connect(host=tcp.host or address, port=_port(tcp.port, where.container))
    if isinstance(handler, Probe) and handler.grpc is not None:
        return Check(host=address, port=handler.grpc.port, service=handler.grpc.service)
    if isinstance(handler, Handler) and handler.sleep is not None:
        return Sleep(seconds=handler.sleep.seconds)
    raise errors.KproxyError("no handler is given", remedy="give exec, httpGet or tcpSocket")


def _port(port: int | str, container: Container) -> int:
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    for one in container.ports or ():
        if one.name == port:
            return one.container_port
    raise errors.KproxyError(
        f"container {container.name} has no port named {port!r}", remedy="name one of its ports"
    )


class Probes:
    """The probes of one start of a container.

    ``started`` and ``ready`` are what is reported; ``failed`` names the probe for whose sake the
    container is to be stopped. ``known`` is what a former kubelet reported of the same process: it
    holds until a probe says otherwise.
    """

    def __init__(
        self,
        where: Where,
        tools: Tools,
        now: float,
        *,
        listens: bool,
        adopted: bool = False,
        known: ContainerStatus | None = None,
    ) -> None:
        self.failed: Kind | None = None
        self._where = where
        self._tools = tools
        self._pending: dict[Kind, int] = {}
        self._stopping = False
        self._states = dict(self._begin(now, adopted, known))
        self.started = bool(known and known.started) or Kind.STARTUP not in self._states
        self._listening = not listens or Kind.READINESS in self._states
        self._checks, self._check_due = 0, now

    @property
    def ready(self) -> bool:
        """Return whether the container may get traffic."""
        readiness = self._states.get(Kind.READINESS)
        answers = readiness.verdict is True if readiness else self._listening
        return self.started and answers

    def advance(self, now: float) -> float | None:
        """Begin what is due; return when to ask again, None: nothing but events.

        Raises KproxyError if the sandbox is gone.
        """
        times = []
        for kind, state in self._states.items():
            if not self._wanted(kind):
                continue
            if state.due <= now and not state.pending:
                self._probe(state, now)
            if not state.pending:
                times.append(state.due)
        if not self._listening and not self._stopping:
            times.extend(self._listen(now))
        return min(times, default=None)

    def probe(self, kind: Kind) -> Probe:
        """Return the manifest's words for a probe."""
        return self._states[kind].probe

    def stopping(self) -> None:
        """Note that the container is being stopped: only readiness is still of interest."""
        self._stopping = True
        for kind in (Kind.STARTUP, Kind.LIVENESS):
            self._cancel(kind)

    def close(self) -> None:
        """Forget what is under way."""
        for kind in list(self._pending):
            self._cancel(kind)

    def _begin(
        self, now: float, adopted: bool, known: ContainerStatus | None
    ) -> Iterator[tuple[Kind, ProbeState]]:
        container, uid = self._where.container, self._where.pod.metadata.uid
        for kind, probe in (
            (Kind.STARTUP, container.startup_probe),
            (Kind.LIVENESS, container.liveness_probe),
            (Kind.READINESS, container.readiness_probe),
        ):
            if probe is None:
                continue
            readiness = kind is Kind.READINESS
            at_once = readiness and not adopted
            phase = 0.0 if at_once else draw(uid, container.name, kind)
            ready = readiness and bool(known and known.ready)
            yield kind, ProbeState(probe, kind, now, phase, ready=ready)

    def _wanted(self, kind: Kind) -> bool:
        if kind is Kind.READINESS:
            return self.started
        in_turn = self.started is (kind is not Kind.STARTUP)
        return in_turn and not self._stopping and self.failed is None

    def _probe(self, state: ProbeState, now: float) -> None:
        kind, timeout = state.kind, float(state.probe.timeout_seconds)
        state.begin(now)

        def done(outcome: Outcome, then: float) -> None:
            self._pending.pop(kind, None)
            self._ended(state, outcome, then)

        try:
            what = action(state.probe, self._where)
        except errors.KproxyError as error:
            self._ended(state, Outcome(success=False, message=str(error)), now)
            return
        self._pending[kind] = self._tools.performer.begin(
            what, now=now, timeout=timeout, done=done
        )

    def _ended(self, state: ProbeState, outcome: Outcome, now: float) -> None:
        where, kind = self._where, state.kind
        meta = where.pod.metadata
        result = "successful" if outcome.success else "failed"
        self._tools.metrics.probes.add(
            kind, result, where.container.name, meta.name, meta.namespace, meta.uid
        )
        if not outcome.success:
            message = f"{kind} probe failed: {outcome.message}"
            self._tools.events.note(where.pod, "Unhealthy", message, warning=True)
        changes = state.ended(outcome.success, now)
        if kind is Kind.READINESS:
            return
        if changes and state.verdict is False:
            self.failed = kind
        elif kind is Kind.STARTUP and changes:
            self.started = True
            readiness = self._states.get(Kind.READINESS)
            if readiness is not None:
                readiness.trigger(now)

    def _listen(self, now: float) -> list[float]:
        """Look whether a built-in server listens; return when to look again, if not."""
        if now < self._check_due:
            return [self._check_due]
        where, runtime = self._where, self._tools.runtime
        # A process started in a sandbox that is just being destroyed would never get ready.
        if self._checks and runtime.sandbox(where.sandbox.uid) is None:
            raise errors.KproxyError("the sandbox is gone")
        self._listening = runtime.ready(where.sandbox, where.spec)
        if self._listening:
            return []
        self._check_due = now + min(CHECK_FIRST * 1.5**self._checks, CHECK_MOST)
        self._checks += 1
        return [self._check_due]

    def _cancel(self, kind: Kind) -> None:
        number = self._pending.pop(kind, None)
        if number is not None:
            self._tools.performer.cancel(number)
            self._states[kind].pending = False
