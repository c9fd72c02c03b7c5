"""Tells of what was decided: into the journal, the log, the metrics and events on the object."""

from collections.abc import Mapping

from kproxy.logs import Log

from .ledger import Ledger
from .metrics import UNKNOWN, Metrics
from .records import (
    Began,
    Ended,
    Episode,
    Held,
    Notified,
    Phase,
    Ran,
    Result,
    Said,
    fingerprint_of,
)
from .seams import ACTION_LABEL
from .state import State
from .telling import Events

TOO_MUCH_TO_SAY = 20
"""Alerts of one notification that get a log line each; the journal has all."""


class Reporter:
    """Knows where to tell what. Its methods may be called from any thread."""

    def __init__(self, ledger: Ledger, metrics: Metrics, events: Events, log: Log) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._events = events
        self._log = log

    def accepted(self, record: Notified) -> None:
        """Tell of a notification, which is in the journal already."""
        self._metrics.notifications.add("accepted")
        self._metrics.last.set(self._ledger.clock.time_of_day(record.at))
        self._metrics.truncated.add(by=record.truncated)
        if record.truncated:
            self._log.warning("alerts were left out of a notification", count=record.truncated)
        refused = [seen for seen in record.alerts if seen.said.needs_human]
        for seen in record.alerts:
            self._metrics.alerts.add(seen.said)
        for seen in refused:
            self._metrics.escalations.add(
                self._known(seen.labels.get(ACTION_LABEL, "")), seen.said
            )
        for seen in refused[:TOO_MUCH_TO_SAY]:
            about = _about(seen.fingerprint, seen.labels)
            self._log.error("left to a human", **about, reason=seen.said, why=seen.why)
        for seen in record.alerts[:TOO_MUCH_TO_SAY]:
            if seen.said is Said.TAKEN:
                self._log.info("alert taken", **_about(seen.fingerprint, seen.labels))

    def held(self, record: Held) -> None:
        """Tell that an instance must wait, which is in the journal already."""
        self._metrics.refusals.add(record.action, record.reason)
        self._log.info("held", action=record.action, target=record.target, why=record.why)

    def began(self, record: Began) -> None:
        """Tell that an action begins, which is in the journal already."""
        self._log.info("action begins", action=record.action, target=record.target, why=record.why)
        note = f"{record.action} begins: {record.why}"
        self._events.tell(record.target, "RemediationBegan", note)

    def ran(self, record: Ran) -> None:
        """Write down and tell that an action has run."""
        self._metrics.run_seconds.observe(record.seconds, record.action)
        self._log.info("action ran", action=record.action, done=record.done, detail=record.detail)
        self._note(record)

    def ended(self, record: Ended, episode: Episode) -> None:
        """Write down and tell how an instance ended that had begun."""
        self._note(record)
        self._told_ended(record, episode)

    def ended_waiting(self, name: str, record: Ended, episode: Episode) -> None:
        """Write down and tell how an instance ended that only waited, if it still does.

        Raises JournalFailed; then it still waits.
        """
        if self._ledger.write(record, only_if=lambda state: waits(state, name)):
            self._told_ended(record, episode)

    def _told_ended(self, record: Ended, episode: Episode) -> None:
        self._metrics.actions.add(record.action, record.result)
        if record.result is Result.HELPED:
            self._metrics.repair_seconds.observe(record.at - episode.starts, record.action)
        if record.escalated:
            self._metrics.escalations.add(self._known(record.action), record.result)
        say = self._log.error if record.escalated else self._log.info
        words = "left to a human" if record.escalated else "ended"
        say(
            words,
            **_about(fingerprint_of(record.instance), episode.labels),
            action=record.action,
            target=record.target,
            result=record.result,
            why=record.why,
        )
        reason = "RemediationFailed" if record.escalated else _REASONS[record.result]
        note = f"{record.action}: {record.result}: {record.why}"
        self._events.tell(record.target, reason, note, warning=record.escalated)

    def _note(self, record: Ran | Ended) -> None:
        if not self._ledger.note(record):
            self._log.error("not written down: the journal failed", instance=record.instance)

    def _known(self, action: str) -> str:
        return action if action in self._metrics.names else UNKNOWN


def _about(fingerprint: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return which alert a line is about, in the words of ``kproxy remediate audit``."""
    places = {name: labels[name] for name in ("node", "namespace", "service") if labels.get(name)}
    return {"alert": labels.get("alertname", ""), "fingerprint": fingerprint, **places}


_REASONS = {
    Result.HELPED: "RemediationHelped",
    Result.DRY_RUN: "RemediationDryRun",
    Result.RESOLVED: "RemediationNotNeeded",
}


def waits(state: State, name: str) -> bool:
    """Return whether an instance still waits: it may have been resolved meanwhile."""
    episode = state.episode(name)
    return episode is not None and episode.phase is Phase.WAITING
