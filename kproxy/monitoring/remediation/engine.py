"""Takes what is due, one at a time: check, run, verify, and a human where that did not help.

One worker, so there are never two repairs at once. Everything is written down before it is done;
what another process began and did not finish is looked at, not done again.
"""

import threading
from collections.abc import Mapping

from kproxy.logs import Log

from .guards import Hold, Reason, recheck, unwell
from .health import NodeHealth
from .journal import JournalFailed
from .ledger import Ledger
from .records import Episode, Held, Phase, Result
from .repair import Blind, Repairs
from .reporter import Reporter, waits
from .seams import Action, Limits
from .settings import Settings

JOURNAL_AGAIN_S = 5.0
"""So long nothing is begun after the journal could not be written."""


class Engine:
    """The worker. ``actions`` by name; only they run."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        actions: Mapping[str, Action],
        *,
        health: NodeHealth,
        reporter: Reporter,
        log: Log,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._actions = actions
        self._health = health
        self._reporter = reporter
        self._log = log
        self._ending = threading.Event()
        self._repairs = Repairs(ledger, reporter, self._ending)

    def run(self) -> None:
        """Work until :meth:`end`."""
        self.recover()
        while not self._ending.is_set():
            if name := self._await_due():
                self.step(name)

    def run_until_idle(self) -> None:
        """Work until nothing is due now."""
        self.recover()
        while (name := self._due()) and not self._ending.is_set():
            self.step(name)

    def end(self) -> None:
        """Make :meth:`run` return. What has begun is looked at by the next start."""
        self._ending.set()
        with self._ledger.changed:
            self._ledger.changed.notify_all()

    def recover(self) -> None:
        """Look whether an action helped that began before this start and did not end."""
        with self._ledger.changed:
            name = self._ledger.state.guards.lease
            episode = self._ledger.state.episode(name) if name else None
        if not name:
            return
        self._log.warning("an action was interrupted, and is verified", instance=name)
        if episode is None or episode.action not in self._actions:
            unknown = Episode(starts=0, taken=0, seen=0)
            words = "the action is not configured any more"
            self._repairs.end(name, episode or unknown, Result.INTERRUPTED, words)
            return
        action = self._actions[episode.action]
        verdict = self._repairs.verify(episode, action, self._limits(action))
        result = Result.HELPED if verdict.good else Result.INTERRUPTED
        if verdict.good or not self._ending.is_set():
            why = f"after a restart in the middle: {verdict.reason}"
            self._repairs.end(name, episode, result, why)

    def step(self, name: str) -> None:
        """Do for one waiting instance what may be done now."""
        with self._ledger.changed:
            episode, now = self._ledger.state.episode(name), self._ledger.clock.now()
        if episode is None or episode.phase is not Phase.WAITING:
            return
        try:
            self._decide(name, episode, now)
        except JournalFailed as error:
            self._log.error("nothing is begun", error=str(error))
            self._ending.wait(JOURNAL_AGAIN_S)

    def _decide(self, name: str, episode: Episode, now: float) -> None:
        action = self._actions.get(episode.action)
        if action is None:
            words = "the action is not configured any more"
            self._repairs.end_waiting(name, episode, Result.EXPIRED, words)
        elif now >= self._expires(episode):
            why = episode.why or "its turn did not come"
            self._repairs.end_waiting(name, episode, Result.EXPIRED, why)
        elif hold := self._hold(episode, action):
            self._held(name, episode, hold)
        elif self._settings.dry_run or self._settings.actions[action.name].dry_run:
            self._repairs.rehearse(name, episode, action, self._limits(action))
        else:
            self._repairs.repair(name, episode, action, self._limits(action))

    def _hold(self, episode: Episode, action: Action) -> Hold | None:
        """Return why the action may not run now: first what costs nothing to know."""
        if self._repairs.straggles:
            why = "an action that was given up has not ended"
            return Hold(Reason.BUSY, why, self._ledger.clock.now())
        not_ready = self._health.not_ready()
        with self._ledger.changed:
            state, now = self._ledger.state, self._ledger.clock.now()
            health = unwell(not_ready, state.sick_nodes(now))
            hold = state.guards.hold(episode.action, episode.target, now, health)
        if hold is not None:
            return hold
        try:
            verdict = self._repairs.would_help(episode, action, self._limits(action))
        except Blind as error:
            reason, why = Reason.BLIND, str(error)
        else:
            if verdict.good:
                return None
            reason, why = Reason.CHECK, verdict.reason
        return Hold(reason, why, self._ledger.clock.now())

    def _held(self, name: str, episode: Episode, hold: Hold) -> None:
        # Not beyond the time at which its patience ends: then a human must hear of it.
        now, guards = self._ledger.clock.now(), self._settings.guards
        until = hold.until if hold.until > now else now + recheck(guards, episode.tries)
        record = Held(
            at=now,
            instance=name,
            action=episode.action,
            target=episode.target,
            reason=hold.reason,
            why=hold.why,
            until=min(until, self._expires(episode)),
        )
        if self._ledger.write(record, only_if=lambda state: waits(state, name)):
            self._reporter.held(record)

    def _expires(self, episode: Episode) -> float:
        # One sum for both who wait for it and who compare: rounded twice, they could disagree, and
        # where time stands still while nobody waits that would be for ever.
        return episode.taken + self._settings.guards.patience

    def _limits(self, action: Action) -> Limits:
        return self._settings.limits(action.name, action.limits)

    def _due(self) -> str:
        """Return an instance that is due; empty: none is."""
        with self._ledger.changed:
            waiting = self._ledger.state.waiting()
            due = bool(waiting) and waiting[0][1].due <= self._ledger.clock.now()
            return waiting[0][0] if due else ""

    def _await_due(self) -> str:
        """Wait until something is due or has changed; return an instance that is due, or empty."""
        with self._ledger.changed:
            if (name := self._due()) or self._ending.is_set():
                return name
            waiting = self._ledger.state.waiting()
            left = waiting[0][1].due - self._ledger.clock.now() if waiting else None
            self._ledger.changed.wait(left)
            return ""
