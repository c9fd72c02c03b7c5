"""Which alert is news: the same one comes again and again, late, and in any order.

Pure functions of what is known of an alert. Alertmanager repeats what fires, a cluster of them
sends it twice, and networks reorder. The rule: an action is for one *instance*, and an instance is
the fingerprint with ``startsAt``. ``groupKey`` says by which route it came; two routes must not
act twice, so it is written down but does not make another instance.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from kproxy.errors import InvalidObject

from .records import Episode, Known, Phase, Result, Said, Seen
from .targets import ACTION_LABEL, target_of
from .webhook import Alert

NOTHING = Known()


class Policy(NamedTuple):
    """What may be taken: actions by name with the labels they need, and how much."""

    needs: Mapping[str, frozenset[str]]
    max_age: float
    queue: int
    patience: float


class Judgement(NamedTuple):
    """What becomes of an alert, and why in words."""

    said: Said
    why: str = ""


def judge(known: Known, alert: Alert, at: float, policy: Policy, waiting: int) -> Judgement:
    """Return what becomes of an alert; ``waiting`` instances wait already."""
    episode = known.episode
    if alert.starts - at > policy.max_age:
        # Remembered it would shadow all that begins before it, for years.
        return Judgement(Said.FUTURE, f"it begins in {alert.starts - at:.0f} s: a clock is wrong")
    if not alert.firing:
        return _judge_resolved(known, alert, at)
    if alert.ends and alert.ends <= at:
        return Judgement(Said.STALE, "it says itself that it has ended")
    if alert.starts <= known.ended:
        return Judgement(Said.LATE, "what began then is known as resolved")
    if episode is not None:
        if alert.starts < episode.starts:
            return Judgement(Said.STALE, "a later instance is known")
        if alert.starts == episode.starts or episode.phase is not Phase.DONE:
            return _judge_known(episode, at, policy)
    return _judge_new(alert, at, policy, waiting)


def _judge_known(episode: Episode, at: float, policy: Policy) -> Judgement:
    if episode.why == Result.HELPED and at - episode.ended >= policy.patience:
        words = f"it fires still, {at - episode.ended:.0f} s after its repair was verified"
        return Judgement(Said.RELAPSED, words)
    return Judgement(Said.REPEATED, episode.why or episode.phase)


def _judge_resolved(known: Known, alert: Alert, at: float) -> Judgement:
    episode = known.episode
    if episode is not None and episode.starts > resolved_until(alert.starts, alert.ends, at):
        return Judgement(Said.STALE, "a later instance is known")
    if episode is None or episode.resolved:
        return Judgement(Said.RESOLVED_UNSEEN)
    return Judgement(Said.RESOLVED)


def _judge_new(alert: Alert, at: float, policy: Policy, waiting: int) -> Judgement:
    action = alert.labels.get(ACTION_LABEL, "")
    if not action:
        return Judgement(Said.UNCURED)
    if action not in policy.needs:
        return Judgement(Said.UNKNOWN_ACTION, f"no action {action[:80]!r} is configured")
    if missing := sorted(name for name in policy.needs[action] if not alert.labels.get(name)):
        return Judgement(Said.UNFIT, f"{action} needs the label {missing[0]}")
    try:
        target_of(alert.labels)
    except InvalidObject as error:
        return Judgement(Said.UNFIT, str(error))
    if at - alert.starts > policy.max_age:
        return Judgement(Said.TOO_OLD, f"it began {at - alert.starts:.0f} s ago")
    if waiting >= policy.queue:
        return Judgement(Said.QUEUE_FULL, f"{waiting} wait already")
    return Judgement(Said.TAKEN)


def resolved_until(starts: float, ends: float, at: float) -> float:
    """Return until when an alert's instances are over. A time to come counts as now."""
    return max(min(ends or at, at), starts)


def after(known: Known, seen: Seen, at: float) -> Known:
    """Return what is known after an alert of which ``seen.said`` was decided."""
    episode = known.episode
    if seen.said is Said.FUTURE:
        return known
    if not seen.firing:
        until = resolved_until(seen.starts, seen.ends, at)
        if seen.said is Said.RESOLVED and episode is not None:
            episode = _resolved(episode)
        return Known(ended=max(known.ended, until), episode=episode)
    if seen.said is Said.TAKEN:
        return msgspec.structs.replace(known, episode=_taken(seen, at))
    if seen.said in (Said.UNKNOWN_ACTION, Said.UNFIT, Said.TOO_OLD):
        refused = msgspec.structs.replace(_taken(seen, at), phase=Phase.DONE, why=seen.said)
        return msgspec.structs.replace(known, episode=refused)
    if episode is not None and seen.said in (Said.REPEATED, Said.RELAPSED):
        why = seen.said if seen.said is Said.RELAPSED else episode.why
        heard = msgspec.structs.replace(episode, seen=at, why=why)
        return msgspec.structs.replace(known, episode=heard)
    return known


def _resolved(episode: Episode) -> Episode:
    if episode.phase is Phase.WAITING:
        # It ended by itself. Whoever took it in hand meanwhile sees that under the same lock.
        return msgspec.structs.replace(episode, resolved=True, phase=Phase.DONE, why="resolved")
    return msgspec.structs.replace(episode, resolved=True)


def _taken(seen: Seen, at: float) -> Episode:
    try:
        target = target_of(seen.labels).key
    except InvalidObject:
        target = ""
    return Episode(
        starts=seen.starts,
        taken=at,
        seen=at,
        due=at,
        action=seen.labels.get(ACTION_LABEL, ""),
        target=target,
        labels=seen.labels,
    )
