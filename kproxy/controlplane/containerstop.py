"""How a container is stopped: preStop hook, SIGTERM, and SIGKILL when its grace is over.

The grace period counts from the beginning, the hook included; but from SIGTERM to SIGKILL there
are at least two seconds (Kubernetes docs, "Termination of Pods").
"""

import math
import signal

from kproxy import errors
from kproxy.api.pods import Handler

from .containerprobes import Where, action
from .podtools import Tools
from .probesockets import Outcome
from .runtime import ContainerId

LEAST_GRACE = 2.0


class Stop:
    """One stop of one process, under way from the beginning. Times are monotonic seconds.

    ``kill_at``: when it is killed; infinite while the hook may still move it.
    """

    def __init__(
        self, target: ContainerId, tools: Tools, *, now: float, grace: float, where: Where
    ) -> None:
        self.kill_at = math.inf
        self._target = target
        self._tools = tools
        self._where = where
        self._until = now + grace
        self._hook: int | None = None
        self._killed = False
        lifecycle = where.container.lifecycle
        if lifecycle is None or lifecycle.pre_stop is None or grace <= 0:
            self._terminate(now)
        else:
            self._begin_hook(lifecycle.pre_stop, now, grace)

    def advance(self, now: float) -> float | None:
        """Kill it if it is time; return when it is, None: nothing but events."""
        if self._hook is not None:
            if now < self._until:
                return self._until
            self.close()  # the time was shortened: the performer would let it go on
            self._hook_ended(Outcome(success=False, message="its time was shortened"), now)
        if self._killed or self.kill_at == math.inf:
            return None
        if now < self.kill_at:
            return self.kill_at
        self._killed = True
        self._tools.runtime.signal(self._target, signal.SIGKILL)
        return None

    def shorten(self, now: float, grace: float) -> None:
        """Let it have no more than ``grace`` seconds from now."""
        self._until = min(self._until, now + grace)
        if self._hook is None:
            self.kill_at = min(self.kill_at, self._until)

    def close(self) -> None:
        """Forget the hook: the process has ended."""
        if self._hook is not None:
            self._tools.performer.cancel(self._hook)
            self._hook = None

    def _begin_hook(self, hook: Handler, now: float, grace: float) -> None:
        try:
            what = action(hook, self._where)
        except errors.KproxyError as error:
            self._hook_ended(Outcome(success=False, message=str(error)), now)
            return
        self._hook = self._tools.performer.begin(
            what, now=now, timeout=grace, done=self._hook_ended
        )

    def _hook_ended(self, outcome: Outcome, now: float) -> None:
        self._hook = None
        if not outcome.success:
            message = f"PreStopHook failed: {outcome.message}"
            self._tools.events.note(self._where.pod, "FailedPreStopHook", message, warning=True)
        self._terminate(now)

    def _terminate(self, now: float) -> None:
        self.kill_at = max(self._until, now + LEAST_GRACE)
        self._tools.runtime.signal(self._target, signal.SIGTERM)
