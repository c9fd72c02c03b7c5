"""Everything the receiver knows, made of the journal's records alone: the same again at a restart.

Pure: what is decided is decided from the state, the settings and the time given, and changes
nothing until it comes back as a record.
"""

from collections.abc import Callable, Collection, Iterator

import msgspec

from . import book
from .guards import Guards
from .records import (
    AnyRecord,
    Began,
    Ended,
    Episode,
    Held,
    Known,
    Notified,
    Phase,
    Ran,
    Result,
    Said,
    Seen,
    Snapshot,
    fingerprint_of,
    instance,
)
from .settings import Guards as GuardSettings
from .targets import ACTION_LABEL, Limits
from .webhook import Notification

KNOWN_MOST = 20_000
"""Alerts that are remembered; beyond that new ones are not taken until old ones are forgotten."""

STRANGE = ""
"""Stands for all actions that are not configured: any name may come in an alert."""


class State:
    """The alerts that are known, and the guards. Not for several threads at once.

    ``actions`` are the names of those that are configured.
    """

    def __init__(
        self,
        settings: GuardSettings,
        limits: Callable[[str], Limits],
        actions: Collection[str] = (),
    ) -> None:
        self._settings = settings
        self._actions = actions
        self._known: dict[str, Known] = {}
        self.guards = Guards(settings, limits)
        self.escalated: dict[str, float] = {}
        """Configured actions, or STRANGE, and when they last left something to a human."""

    def decide(
        self, notified: Notification, at: float, peer: str, policy: book.Policy
    ) -> Notified:
        """Return what becomes of the alerts of a notification, in their order."""
        overlay: dict[str, Known] = {}
        waiting, seen = self.waiting_count(), []
        full = len(self._known) + len(notified.alerts) > KNOWN_MOST
        for alert in notified.alerts:
            known = overlay.get(alert.fingerprint) or self._known.get(alert.fingerprint)
            room = policy._replace(queue=0) if full and known is None else policy
            judged = book.judge(known or book.NOTHING, alert, at, room, waiting)
            one = Seen(
                fingerprint=alert.fingerprint,
                firing=alert.firing,
                starts=alert.starts,
                ends=alert.ends,
                labels=alert.labels,
                said=judged.said,
                why=judged.why,
            )
            waiting += judged.said is Said.TAKEN
            overlay[alert.fingerprint] = book.after(known or book.NOTHING, one, at)
            seen.append(one)
        return Notified(
            at=at,
            peer=peer,
            group_key=notified.group_key,
            receiver=notified.receiver,
            truncated=notified.truncated,
            alerts=seen,
        )

    def apply(self, record: AnyRecord) -> None:
        """Take over what a record says."""
        match record:
            case Notified():
                self._notified(record)
            case Held():
                self._change(record.instance, self._held, record)
            case Began():
                self.guards.began(record.instance, record.action, record.at)
                self._change(record.instance, self._began, record)
            case Ran():
                self._change(record.instance, self._ran, record)
            case Ended():
                self._ended(record)
            case Snapshot():
                self._known = dict(record.known)
                self.escalated = {}
                for action, at in record.escalated.items():
                    self._escalate(action, at)
                self.guards.restore(record.guards)

    def snapshot(self, at: float) -> Snapshot:
        """Return everything as a record, without what need not be remembered any more."""
        self._forget(at)
        guards, escalated = self.guards.state(), dict(self.escalated)
        return Snapshot(at=at, known=self._known, guards=guards, escalated=escalated)

    def episode(self, name: str) -> Episode | None:
        """Return what is known of an instance."""
        known = self._known.get(fingerprint_of(name))
        if known is None or known.episode is None:
            return None
        same = instance(fingerprint_of(name), known.episode.starts) == name
        return known.episode if same else None

    def waiting(self) -> list[tuple[str, Episode]]:
        """Return the instances that wait, those due first in front."""
        found = [(name, one) for name, one in self._episodes() if one.phase is Phase.WAITING]
        return sorted(found, key=lambda pair: (pair[1].due, pair[1].taken, pair[0]))

    def waiting_count(self) -> int:
        """Return how many instances wait."""
        return sum(one.phase is Phase.WAITING for _, one in self._episodes())

    def sick_nodes(self, now: float) -> frozenset[str]:
        """Return the nodes of alerts that fire and were not verified as cured."""
        recent = now - self._settings.max_age
        return frozenset(
            node
            for _, one in self._episodes()
            if (node := one.labels.get("node"))
            and not one.resolved
            and one.seen >= recent
            and one.why != Result.HELPED
        )

    def _episodes(self) -> Iterator[tuple[str, Episode]]:
        for fingerprint, known in self._known.items():
            if known.episode is not None:
                yield instance(fingerprint, known.episode.starts), known.episode

    def _notified(self, record: Notified) -> None:
        if len(self._known) + len(record.alerts) > KNOWN_MOST:
            self._forget(record.at)
        for seen in record.alerts:
            if seen.said.needs_human:
                self._escalate(seen.labels.get(ACTION_LABEL, ""), record.at)
            known = self._known.get(seen.fingerprint, book.NOTHING)
            changed = book.after(known, seen, record.at)
            room = len(self._known) < KNOWN_MOST
            if changed != book.NOTHING and (room or seen.fingerprint in self._known):
                self._known[seen.fingerprint] = changed

    def _escalate(self, action: str, at: float) -> None:
        name = action if action in self._actions else STRANGE
        self.escalated[name] = max(self.escalated.get(name, 0.0), at)

    def _forget(self, at: float) -> None:
        """Forget what is over and so old that it would not be taken again."""
        oldest = at - self._settings.max_age
        for fingerprint, known in list(self._known.items()):
            episode = known.episode
            gone = known.ended < oldest and (
                episode is None
                or (episode.phase is Phase.DONE and max(episode.seen, episode.starts) < oldest)
            )
            if gone:
                del self._known[fingerprint]

    def _change(
        self, name: str, change: Callable[[Episode, AnyRecord], Episode], record: AnyRecord
    ) -> None:
        fingerprint, episode = fingerprint_of(name), self.episode(name)
        if episode is not None:
            known = self._known[fingerprint]
            changed = msgspec.structs.replace(known, episode=change(episode, record))
            self._known[fingerprint] = changed

    @staticmethod
    def _held(episode: Episode, record: AnyRecord) -> Episode:
        assert isinstance(record, Held)
        if episode.phase is not Phase.WAITING:
            return episode
        tries = episode.tries + 1
        return msgspec.structs.replace(episode, due=record.until, tries=tries, why=record.why)

    @staticmethod
    def _began(episode: Episode, record: AnyRecord) -> Episode:
        why = f"{episode.action} runs"
        return msgspec.structs.replace(episode, phase=Phase.RUNNING, begun=record.at, why=why)

    @staticmethod
    def _ran(episode: Episode, record: AnyRecord) -> Episode:
        why = f"{episode.action} has run"
        return msgspec.structs.replace(episode, phase=Phase.VERIFYING, why=why)

    def _ended(self, record: Ended) -> None:
        if self.guards.lease == record.instance:
            helped = record.result is Result.HELPED
            self.guards.ended(record.action, record.target, record.at, helped=helped)
        if record.escalated:
            self._escalate(record.action, record.at)

        def done(episode: Episode, _: AnyRecord) -> Episode:
            replace = msgspec.structs.replace
            return replace(episode, phase=Phase.DONE, why=record.result, ended=record.at)

        self._change(record.instance, done, record)
