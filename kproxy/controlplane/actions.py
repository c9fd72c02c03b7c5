"""What probes and hooks do: connect, ask over HTTP, run a program, wait; all at the same time.

Everything is done by one thread without blocking: sockets and programs' ends are awaited in one
epoll, which a kubelet's loop awaits among other things. Requests come from the node's own address,
because the kubelet lives in the node's network namespace.
"""

import contextlib
import heapq
import itertools
import math
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kproxy import errors

from . import grpchealth, probesockets
from .probesockets import Outcome
from .runtime import ContainerSpec, Execution, PodRuntime, Sandbox, Streams

_OUTPUT_MOST = 1024
READ_BYTES = 64 * 1024
READS_MOST = 16
OUTPUT_ROOM = 16 * 1024 * 1024
"""A program that has written so much is not read any more, and so waits until its time is up:
where computing takes no time it would write for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """Open a TCP connection; success is that it opens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """Ask for a path; a status from 200 to 399 is success. A redirection is not followed."""

    host: str
    port: int
    path: str = "/"
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Ask for the health of a service by gRPC; SERVING is success."""

    host: str
    port: int
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run a program beside a container's; exit code 0 is success."""

    sandbox: Sandbox
    spec: ContainerSpec
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Wait; success."""

    seconds: float


Action = Connect | Get | Check | Run | Sleep


Done = Callable[[Outcome, float], None]
"""Called with the outcome and the time at which it was known."""


class Performer(Protocol):
    """Does actions. All methods belong to one thread; times are monotonic seconds."""

    def begin(self, action: Action, *, now: float, timeout: float, done: Done) -> int:
        """Begin an action, and return a number for it; ``done`` is called by :meth:`advance`.

        After ``timeout`` seconds (may be infinite) it has failed.
        """
        ...

    def cancel(self, number: int) -> None:
        """Forget an action; its ``done`` is not called. One that is over is no error."""
        ...

    def advance(self, now: float) -> None:
        """Tell what is over."""
        ...

    def due(self) -> float | None:
        """Return the time at which :meth:`advance` wants to be called at the latest, if any."""
        ...

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when there is something to tell."""
        ...

    def close(self) -> None:
        """Forget all of them."""
        ...


class _Running(Protocol):
    """An action under way."""

    def fileno(self) -> int:
        """Return the descriptor that is waited for."""
        ...

    def interest(self) -> int:
        """Return the epoll events that it waits for."""
        ...

    def ready(self) -> Outcome | None:
        """Go on; return the outcome if there is one."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Actions:
    """Does actions for real."""

    def __init__(self, runtime: PodRuntime) -> None:
        self._runtime = runtime
        self._epoll = select.epoll()
        self._numbers = itertools.count(1)
        self._running: dict[int, tuple[_Running | None, int, Done]] = {}
        self._by_fd: dict[int, int] = {}
        self._over: list[tuple[int, Outcome]] = []
        self._deadlines: list[tuple[float, int, Outcome]] = []

    def begin(self, action: Action, *, now: float, timeout: float, done: Done) -> int:
        """See :class:`Performer`."""
        number = next(self._numbers)
        late = Outcome(success=False, message=f"timed out after {timeout:g} s")
        running: _Running | None = None
        try:
            running = self._started(action)
        except (errors.KproxyError, OSError) as error:
            self._over.append((number, Outcome(success=False, message=str(error))))
        if isinstance(action, Sleep) and action.seconds <= timeout:
            timeout, late = action.seconds, Outcome(success=True)
        fd = -1 if running is None else running.fileno()
        self._running[number] = (running, fd, done)
        if running is not None:
            self._by_fd[fd] = number
            self._epoll.register(fd, running.interest())
        if timeout < math.inf:
            heapq.heappush(self._deadlines, (now + timeout, number, late))
        return number

    def cancel(self, number: int) -> None:
        """See :class:`Performer`."""
        self._drop(number)

    def advance(self, now: float) -> None:
        """See :class:`Performer`."""
        for fd, _ in self._epoll.poll(0):
            number = self._by_fd[fd]
            running, _, _ = self._running[number]
            assert running is not None
            outcome = running.ready()
            if outcome is not None:
                self._over.append((number, outcome))
            else:
                self._epoll.modify(fd, running.interest())
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number, outcome = heapq.heappop(self._deadlines)
            self._over.append((number, outcome))
        over, self._over = self._over, []
        for number, outcome in over:
            done = self._drop(number)
            if done is not None:
                done(outcome, now)

    def due(self) -> float | None:
        """See :class:`Performer`."""
        while self._deadlines and self._deadlines[0][1] not in self._running:
            heapq.heappop(self._deadlines)
        if self._over:
            return -math.inf
        return self._deadlines[0][0] if self._deadlines else None

    def fileno(self) -> int:
        """See :class:`Performer`."""
        return self._epoll.fileno()

    def close(self) -> None:
        """See :class:`Performer`."""
        for number in list(self._running):
            self._drop(number)
        self._epoll.close()

    def _started(self, action: Action) -> _Running | None:
        match action:
            case Connect():
                return probesockets.Exchange(action.host, action.port)
            case Get():
                request = probesockets.request(
                    action.host, action.port, action.path, action.headers
                )
                return probesockets.Exchange(action.host, action.port, request, tls=action.tls)
            case Check():
                request = grpchealth.request(action.host, action.port, action.service)
                return probesockets.Exchange(
                    action.host, action.port, request, read=probesockets.Health()
                )
            case Run():
                return _Program(self._runtime, action)
            case Sleep():
                return None

    def _drop(self, number: int) -> Done | None:
        if number not in self._running:
            return None
        running, fd, done = self._running.pop(number)
        if running is not None:
            with contextlib.suppress(OSError):  # a failed handshake may have closed it already
                self._epoll.unregister(fd)
            del self._by_fd[fd]
            running.close()
        return done


class _Program:
    """A program of a probe or hook, with the beginning of what it writes."""

    def __init__(self, runtime: PodRuntime, action: Run) -> None:
        self._text = b""
        self._room = OUTPUT_ROOM
        self._output, end = os.pipe2(os.O_CLOEXEC)
        try:
            streams = Streams(stdout=end, stderr=end)
            self._execution: Execution = runtime.exec(
                action.sandbox, action.spec, action.command, streams
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(end)
        os.set_blocking(self._output, False)
        self._epoll = select.epoll()
        for fd in (self._execution.fileno(), self._output):
            self._epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def interest(self) -> int:
        return select.EPOLLIN

    def ready(self) -> Outcome | None:
        code = self._execution.poll()
        self._read()
        if code is None:
            return None
        if code == 0:
            return Outcome(success=True)
        text = self._text.decode(errors="replace").strip()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return Outcome(success=False, message=f"{how}: {text}" if text else how)

    def close(self) -> None:
        self._epoll.close()
        self._execution.kill()
        self._execution.close()
        os.close(self._output)

    def _read(self) -> None:
        """Keep the beginning of what is there, and drop the rest."""
        for _ in range(READS_MOST):
            if not self._room:
                return
            try:
                data = os.read(self._output, min(READ_BYTES, self._room))
            except BlockingIOError:
                return
            self._text += data[: _OUTPUT_MOST - len(self._text)]
            self._room -= len(data)
            if not data or not self._room:
                self._room = 0
                self._epoll.unregister(self._output)
