"""One repair: look whether the action would help, run it, and look until it did or is too late."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from kproxy.errors import KproxyError

from .attempt import Attempt
from .ledger import Ledger
from .records import Began, Ended, Episode, Ran, Result
from .reporter import Reporter, waits
from .seams import Action, Limits, Outcome, Rehearsing, Target, Verdict, target_of

T = TypeVar("T")

HANGING_MOST = 8
"""Checks and verifications that hang, each of which keeps a thread."""


class Blind(KproxyError):
    """An action could not tell: it raised, or took too long."""


class Repairs:
    """Carries out repairs. For one thread; ``ending`` set: no waiting any more."""

    def __init__(self, ledger: Ledger, reporter: Reporter, ending: threading.Event) -> None:
        self._ledger = ledger
        self._reporter = reporter
        self._ending = ending
        self._given_up: Attempt[Outcome] | None = None
        self._hanging: list[Attempt[Any]] = []

    @property
    def straggles(self) -> bool:
        """Return whether an action that was given up still runs: then nothing else may."""
        return self._given_up is not None and self._given_up.lives

    def would_help(self, episode: Episode, action: Action, limits: Limits) -> Verdict:
        """Return the action's own opinion. Raises Blind."""
        target = target_of(episode.labels)
        return self._bounded(lambda: action.check(target), "check", action, limits.check_within)

    def rehearse(self, name: str, episode: Episode, action: Action, limits: Limits) -> None:
        """End an instance by telling what would be done. Raises JournalFailed."""
        why = f"would run {action.name}"
        if isinstance(action, Rehearsing):
            target, told = target_of(episode.labels), action.rehearse
            try:
                rehearsed = self._bounded(
                    lambda: told(target), "rehearse", action, limits.run_within
                )
                why = rehearsed.detail
            except Blind as error:
                why = str(error)
        self.end_waiting(name, episode, Result.DRY_RUN, why)

    def repair(self, name: str, episode: Episode, action: Action, limits: Limits) -> None:
        """Run the action, unless the instance ended meanwhile. Raises JournalFailed: not begun."""
        began = Began(
            at=self._ledger.clock.now(),
            instance=name,
            action=action.name,
            target=episode.target,
            why=f"alert {episode.labels.get('alertname', '')}",
        )
        if not self._ledger.write(began, only_if=lambda state: waits(state, name)):
            return
        self._reporter.began(began)
        episode = msgspec.structs.replace(episode, begun=began.at)
        ran = self._run(name, episode, action, limits)
        verdict = self.verify(episode, action, limits, once=not ran.done)
        why = f"{ran.detail}; {verdict.reason}"
        if verdict.good:
            result = Result.HELPED
        elif ran.timed_out:
            result = Result.TIMED_OUT
        else:
            result = Result.INEFFECTIVE if ran.done else Result.FAILED
        if not self._ending.is_set() or verdict.good:
            self.end(name, episode, result, why)

    def verify(
        self, episode: Episode, action: Action, limits: Limits, *, once: bool = False
    ) -> Verdict:
        """Ask the action whether the trouble is gone, until it is or it is too late.

        What has not helped for long is asked for less often: a look may cost a node as much CPU
        time as what it looks for. The moment of success is known to a tenth of what it took.
        """
        target = target_of(episode.labels, episode.begun)
        begun = time.monotonic()
        until = begun + (0 if once else limits.verify_within)
        while True:
            try:
                verdict = self._verdict(target, action, limits)
            except Blind as error:
                verdict = Verdict(False, str(error))
            now = time.monotonic()
            pause = min(max(limits.verify_every, (now - begun) / 10), until - now)
            if verdict.good or pause <= 0 or self._ending.wait(pause):
                return verdict

    def end(self, name: str, episode: Episode, result: Result, why: str) -> None:
        """End an instance whose action had begun."""
        self._reporter.ended(self._ended(name, episode, result, why), episode)

    def end_waiting(self, name: str, episode: Episode, result: Result, why: str) -> None:
        """End an instance that waits, if it still does. Raises JournalFailed."""
        record = self._ended(name, episode, result, why)
        self._reporter.ended_waiting(name, record, episode)

    def _verdict(self, target: Target, action: Action, limits: Limits) -> Verdict:
        return self._bounded(lambda: action.verify(target), "verify", action, limits.check_within)

    def _bounded(self, call: Callable[[], T], what: str, action: Action, seconds: float) -> T:
        """Return what a call returns. Raises Blind if it raises, or takes longer."""
        self._hanging = [one for one in self._hanging if one.lives]
        if len(self._hanging) >= HANGING_MOST:
            raise Blind(f"{len(self._hanging)} looks have not ended, so there is no other")
        attempt = Attempt(call, f"{what} {action.name}")
        if not attempt.wait(seconds):
            self._hanging.append(attempt)
            raise Blind(f"{what} of {action.name} did not answer within {seconds:g} s")
        if attempt.result is None:
            raise Blind(f"{what} of {action.name} failed: {_words(attempt.error)}")
        return attempt.result

    def _run(self, name: str, episode: Episode, action: Action, limits: Limits) -> Ran:
        target = target_of(episode.labels, episode.begun)
        attempt = Attempt(lambda: action.run(target), f"run {action.name}")
        timed_out = not attempt.wait(limits.run_within)
        if timed_out:
            self._given_up = attempt
            outcome = Outcome(False, f"it did not end within {limits.run_within:g} s")
        else:
            outcome = attempt.result or Outcome(False, _words(attempt.error))
        ran = Ran(
            at=self._ledger.clock.now(),
            instance=name,
            action=action.name,
            target=episode.target,
            done=outcome.done,
            detail=outcome.detail,
            seconds=attempt.seconds,
            timed_out=timed_out,
        )
        self._reporter.ran(ran)
        return ran

    def _ended(self, name: str, episode: Episode, result: Result, why: str) -> Ended:
        now = self._ledger.clock.now()
        return Ended(
            at=now,
            instance=name,
            action=episode.action,
            target=episode.target,
            result=result,
            why=why,
            seconds=now - episode.begun if episode.begun else 0.0,
            escalated=result.needs_human,
        )


def _words(error: Exception | None) -> str:
    if isinstance(error, KproxyError):
        return str(error)
    # A bug: its kind helps whoever mends it.
    return f"{type(error).__name__}: {error}" if error is not None else "it said nothing"
