"""From the trials of ``kproxy chain`` to the rows of its summary. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kproxy.traffic import chainset
from kproxy.traffic.chainset import (
    LinkPause,
    LinkRow,
    LinkTraffic,
    LinkTrial,
    NodePause,
    Pause,
    Watched,
    WatchedRow,
)
from kproxy.traffic.resultset import Measurement, Spread
from kproxy.traffic.summary import spread

NOTICED, REPAIRED = "noticed", "repaired"
"""Events of the time line whose detail says by whom."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a link is called, and who is to keep it."""

    title: str
    guarantor: str


def summarise(trials: Iterable[LinkTrial], words: Mapping[str, Words]) -> tuple[LinkRow, ...]:
    """Return a row for every link, in the order of ``words``. A row is valid if all trials are."""
    by_link: dict[str, list[LinkTrial]] = {name: [] for name in words}
    for trial in trials:
        by_link[trial.link].append(trial)
    return tuple(_row(words[name], members) for name, members in by_link.items() if members)


def _row(words: Words, trials: Sequence[LinkTrial]) -> LinkRow:
    first = trials[0]
    return LinkRow(
        link=first.link,
        title=words.title,
        guarantor=words.guarantor,
        trials=len(trials),
        noticed_by=_by(first, NOTICED),
        repaired_by=_by(first, REPAIRED),
        detect_ms=spread([one.detect_ms for one in trials if one.detect_ms is not None]),
        repair_ms=spread([one.repair_ms for one in trials if one.repair_ms is not None]),
        traffic=tuple(_traffic(trials)),
        frozen=_on_nodes(one.changes for one in trials),
        no_writes_ms=_over([one.writes for one in trials if one.writes is not None]),
        no_pods=_on_nodes(one.pods for one in trials),
        notes=tuple(dict.fromkeys(note for one in trials for note in one.notes)),
        valid=all(one.valid for one in trials),
        watched=_watched([one.watched for one in trials if one.watched is not None]),
    )


def _watched(found: Sequence[Watched]) -> WatchedRow | None:
    if not found:
        return None
    first = found[0]
    return WatchedRow(
        fault=first.fault,
        title=first.title,
        variant=first.variant,
        alert=next((one.alert for one in found if one.alert), ""),
        action=next((one.action for one in found if one.action), ""),
        seen_ms=_known(one.seen_ms for one in found),
        alert_ms=_known(one.alert_ms for one in found),
        action_ms=_known(one.action_ms for one in found),
        verified_ms=_known(one.verified_ms for one in found),
        hand_ms=first.hand_ms,
        waited_ms=first.waited_ms,
    )


def _known(values: Iterable[float | None]) -> Spread | None:
    return spread([one for one in values if one is not None])


def _by(trial: LinkTrial, name: str) -> str:
    return next((event.detail for event in trial.timeline if event.name == name), "")


def _traffic(trials: Sequence[LinkTrial]) -> Iterable[LinkTraffic]:
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for trial in trials:
        for one in trial.measurements:
            groups.setdefault((one.node, one.traffic), []).append(one)
    for (vantage, traffic), found in groups.items():
        timed = [one for one in found if one.failover_time_ms is not None or not one.recovered]
        accuracies = [one.accuracy_ms for one in found if one.accuracy_ms is not None]
        yield LinkTraffic(
            vantage=vantage,
            traffic=traffic,
            sent=sum(one.tcp.attempted if one.tcp else one.sent or 0 for one in found),
            lost=sum(one.tcp.failed if one.tcp else one.lost or 0 for one in found),
            failover_time_ms=spread([one.failover_time_ms for one in timed]),
            accuracy_ms=max(accuracies, default=None),
        )


def _on_nodes(trials: Iterable[Sequence[NodePause]]) -> tuple[LinkPause, ...]:
    nodes: dict[str, list[Pause]] = {}
    for found in trials:
        for one in found:
            nodes.setdefault(one.node, []).append(one.pause)
    return tuple(
        LinkPause(node=node, over_ms=over)
        for node, pauses in nodes.items()
        if (over := _over(pauses)) is not None
    )


def _over(pauses: Sequence[chainset.Pause]) -> Spread | None:
    return spread([one.over_ms for one in pauses])
