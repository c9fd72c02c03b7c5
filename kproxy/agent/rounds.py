"""When to sync, and what follows: the loop of the daemon's main thread.

Other threads ask for a sync (:meth:`Rounds.request`); the main thread waits until one is due,
reads the kernel anew when it is time for that, syncs all families, and tells.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from kproxy.agent.health import ProxyHealth
from kproxy.agent.settings import Settings
from kproxy.agent.telling import Teller
from kproxy.desired.schedule import Schedule
from kproxy.errors import KernelError, Unsupported
from kproxy.logs import Log
from kproxy.proxier import DualStack, SyncReport

RETRY_S = 1.0
RETRY_MAX_S = 30.0
BURST = 2

FULL_LATE_S = 1.0
"""So long the kernel is not read anew, although it is time for that, while something waits."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What one round came to. Times are seconds on the monotonic clock."""

    reports: Sequence[SyncReport]
    """One for each family in use."""
    disabled: Sequence[str]
    """Which families turned out to be impossible, and why."""
    full: bool
    """Whether the kernel was read anew for it."""
    asked_at: float | None
    """When the oldest change came that it answers; None: nobody asked."""
    ended_at: float

    @property
    def succeeded(self) -> bool:
        """Return whether everything is in the kernel, in all families."""
        return not any(report.failed for report in self.reports)


class Rounds:
    """Syncs when asked for, not too often, and now and then without being asked.

    :meth:`request`, :meth:`request_full`, :meth:`ready` and :meth:`interrupt` may be called from
    any thread; all else from one.
    ``look_at_node`` is called whenever the kernel is read; ``versions`` says which versions of
    objects are noted; ``after_first`` is called when the first sync has ended, however;
    ``observe`` is told of every round; ``after_success`` is called last, whenever everything is in
    the kernel.
    """

    def __init__(
        self,
        settings: Settings,
        proxier: DualStack,
        health: ProxyHealth,
        log: Log,
        *,
        look_at_node: Callable[[], None],
        versions: Callable[[], Mapping[str, str]],
        after_first: Callable[[], None],
        observe: Callable[[Round], None] = lambda _: None,
        after_success: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._proxier = proxier
        self._health = health
        self._log = log
        self._teller = Teller(log, settings.mode)
        self._look_at_node = look_at_node
        self._versions = versions
        self._after_first = after_first
        self._observe = observe
        self._after_success_too = after_success
        self.asked_wall = 0.0
        """When a sync was asked for last, in seconds since 1970; 0: never."""
        self._changed = threading.Condition()
        self._schedule = Schedule(
            now=time.monotonic(),
            min_interval=settings.min_sync_period,
            retry_interval=RETRY_S,
            retry_max=RETRY_MAX_S,
            burst=BURST,
        )
        self._ready = False
        self._interrupted = False
        self._full_asked = False
        self._tried_once = False
        self._synced_once = False
        self._again_at = float("inf")
        self._read_at = float("-inf")

    @property
    def pending_since(self) -> float | None:
        """Return when the oldest request came that no sync has answered, or None."""
        return self._schedule.pending_since

    @property
    def next_due(self) -> float:
        """Return when the next round begins if nobody asks for one."""
        return min(self._schedule.next_deadline(), self._again_at, self._full_at)

    @property
    def _full_at(self) -> float:
        """When the kernel is read anew: later if changes wait, or the last round has failed."""
        late = 0.0 if self.pending_since is None else FULL_LATE_S
        return self._read_at + self._settings.sync_period + late

    def request(self) -> None:
        """Ask for a sync."""
        now = time.monotonic()
        self.asked_wall = time.time()
        with self._changed:
            self._health.queued(now)
            self._schedule.request(now)
            self._changed.notify()

    def request_full(self) -> None:
        """Ask for a sync that reads the kernel anew: somebody knows better than our memory."""
        with self._changed:
            self._full_asked = True
        self.request()

    def ready(self) -> None:
        """Let :meth:`serve` begin."""
        with self._changed:
            self._ready = True
            self._changed.notify()

    def interrupt(self) -> None:
        """Let :meth:`serve` return as soon as no sync is under way."""
        with self._changed:
            self._interrupted = True
            self._changed.notify()

    def read_kernel(self) -> None:
        """Read what the kernel holds; at the start while the API server is still being asked."""
        self._look_at_node()
        try:
            self._proxier.reread()
        except KernelError as error:
            # The sync that follows reads, too, and has more to say if that fails again.
            self._log.warning("reading the kernel failed", error=str(error))
        self._read_at = time.monotonic()

    def await_ready(self) -> None:
        """Wait until all is known, or an interruption."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._interrupted)

    def serve(self) -> None:
        """Wait until all is known, then sync whenever it is due, until interrupted.

        Raises Unsupported.
        """
        self.await_ready()
        if self._tried_once:
            self._wait_due()
        while not self._take_interruption():
            self.once()
            self._wait_due()

    def _take_full_request(self) -> bool:
        with self._changed:
            asked, self._full_asked = self._full_asked, False
        return asked

    def _take_interruption(self) -> bool:
        with self._changed:
            interrupted, self._interrupted = self._interrupted, False
        return interrupted

    def once(self) -> None:
        """Sync all families once, and tell. Raises Unsupported if trying again is of no use.

        When somebody waits for a change, the kernel is not read anew first, although it may be
        time for that: a round for that alone follows at once, if they do not keep coming.
        """
        full = self._take_full_request() or time.monotonic() >= self._full_at
        if full:
            # Before the round is said to begin: what is noted until then is part of it.
            self.read_kernel()
        full = full or not self._tried_once
        with self._changed:
            asked_at = self._schedule.pending_since
            self._schedule.started(time.monotonic())
            self._health.sync_started()
        versions = self._versions()
        reports = self._proxier.sync()
        ended_at = time.monotonic()
        failed = any(report.failed for report in reports)
        if failed:
            self._after_failure(reports)
        else:
            self._after_success(reports, versions)
        if not self._tried_once:
            self._tried_once = True
            self._after_first()
        results = [report.result for report in reports]
        asked = (at for one in results for at in (one.again_in, one.flows_again_in))
        again = [seconds for seconds in asked if seconds is not None]
        self._again_at = time.monotonic() + min(again) if again else float("inf")
        disabled = self._proxier.take_disabled()
        self._teller.refused(reports)
        self._teller.problems(self._proxier.take_problems(), disabled)
        self._observe(
            Round(
                reports=reports, disabled=disabled, full=full, asked_at=asked_at, ended_at=ended_at
            )
        )
        if not failed:
            self._after_success_too()

    def _wait_due(self) -> None:
        with self._changed:
            while not self._interrupted and (left := self.next_due - time.monotonic()) > 0:
                self._changed.wait(left)

    def _after_success(self, reports: list[SyncReport], versions: Mapping[str, str]) -> None:
        with self._changed:
            self._schedule.succeeded(time.monotonic())
            self._health.sync_succeeded(time.time())
        self._teller.synced(reports, versions, first=not self._synced_once)
        self._synced_once = True

    def _after_failure(self, reports: list[SyncReport]) -> None:
        if not self._synced_once:
            self._end_if_unsupported()
        with self._changed:
            later = self._schedule.failed(time.monotonic())
        self._teller.failed(reports, later)

    def _end_if_unsupported(self) -> None:
        reason = self._proxier.proxiers[0].backend.supported()
        if reason is not None:
            raise Unsupported(f"mode {self._settings.mode}: {reason}")
