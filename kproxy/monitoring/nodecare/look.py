"""All that can be seen of a node's proxy and its kernel, and what of it is wrong. Writes nothing.

Each part is looked at by itself: where the API server is away, the process is seen nevertheless.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kproxy.backends.base import Deviation
from kproxy.errors import KproxyError
from kproxy.kernel.conntrack.types import ConntrackClient
from kproxy.kernel.counters.conntrack import ConntrackCounters

from . import asking, drift, flows, process, seen, weights
from .process import Process, State
from .seen import Ask, Differ, Look, Place, Trouble, Wanted

NEARLY_FULL = 0.9

Numbers = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What is looked through."""

    place: Place
    ask: Ask
    differ: Differ
    conntrack: ConntrackClient
    table: Callable[[], ConntrackCounters]
    opened: weights.Open = weights.open_tables
    find: Callable[[str], Process | None] = process.find


def look(doors: Doors, node: str, mode: str, *, resync: int) -> Look:
    """Look at everything.

    ``node`` and ``mode``: as far as they are known without asking anybody. ``resync``: the signal
    by which a proxy is asked for a full sync.
    """
    eyes = _Eyes(doors)
    one = doors.find(doors.place.lock)
    answers = _ask(doors.place, one)
    eyes.process(one)
    eyes.answers(one, answers)
    facts = eyes.sync(answers["livez"])
    wanted = eyes.wanted()
    differs = eyes.drift(wanted)
    return Look(
        node=node,
        mode=mode,
        proxy=_of_process(one, resync),
        answers={path: str(answer) for path, answer in answers.items()},
        sync=facts,
        drift=differs,
        watch_stale=eyes.watch(wanted, answers["livez"]),
        weights=eyes.weights(wanted),
        conntrack=eyes.conntrack(wanted),
        troubles=tuple(eyes.troubles),
        unknown=eyes.unknown,
    )


def _ask(place: Place, one: Process | None) -> dict[str, asking.Answer]:
    """Ask for health, as long as there are answers: each that does not come is waited for."""
    if one is not None and one.state in (State.STOPPED, State.ZOMBIE):
        return dict.fromkeys(
            ("livez", "healthz"), asking.Answer(0, f"not asked: it is {one.state}")
        )
    live = asking.ask(place.healthz, "/livez")
    if not live.code:
        return {"livez": live, "healthz": live}
    return {"livez": live, "healthz": asking.ask(place.healthz, "/healthz")}


def _of_process(one: Process | None, resync: int) -> dict[str, object]:
    if one is None:
        return {"found": False}
    return {
        "found": True,
        "kind": one.kind,
        "pid": one.pid,
        "state": one.state,
        "age_s": one.age_s,
        "writes": one.holds_lock,
        "catches_resync": resync in one.catches,
        "command": list(one.command),
    }


class _Eyes:
    """Looks at one thing after the other, and notes what is wrong or cannot be seen."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self.troubles: list[Trouble] = []
        self.unknown: dict[str, str] = {}

    def _tell(self, what: str, evidence: str, cure: str = "") -> None:
        self.troubles.append(Trouble(what=what, evidence=evidence, cure=cure))

    def process(self, one: Process | None) -> None:
        if one is None:
            self._tell("proxy-absent", "no process of a proxy is in this network", seen.RESTART)
        elif one.state in (State.STOPPED, State.ZOMBIE):
            why = f"process {one.pid} is {one.state}"
            self._tell(f"proxy-{one.state}", why, seen.RESTART)

    def answers(self, one: Process | None, answers: Mapping[str, asking.Answer]) -> None:
        live, health = answers["livez"], answers["healthz"]
        if one is None or live.text == asking.NOT_SERVED:
            return
        if one.state in (State.STOPPED, State.ZOMBIE):
            return  # that is told
        if not live.code:
            self._tell("proxy-silent", f"/livez: {live}", seen.RESTART)
        elif live.code == 503:
            self._tell("proxy-behind", f"/livez 503: {live.text}", seen.RESTART)
        elif health.code == 503:
            self._tell("node-leaving", f"/healthz 503: {health.text}")

    def sync(self, live: asking.Answer) -> dict[str, float | None]:
        read, why = asking.Metrics(), ""
        if _may_answer(live):
            read, why = asking.metrics(self._doors.place.metrics)
        if why and not why.endswith(asking.NOT_SERVED):
            self.unknown["sync"] = why
        return asking.sync_facts(read)

    def wanted(self) -> Wanted | None:
        try:
            return self._doors.ask()
        except KproxyError as error:
            self.unknown["wanted"] = str(error)
            return None

    def drift(self, wanted: Wanted | None) -> Numbers:
        if wanted is None:
            return {}
        try:
            found = drift.lasting(self._doors.ask, self._doors.differ, wanted)
        except KproxyError as error:
            self.unknown["drift"] = str(error)
            return {}
        if found:
            self._tell("drift", _first(drift.texts(found)), seen.RESYNC)
        counts = dict.fromkeys(map(str, Deviation), 0)
        for one in found:
            counts[str(one.deviation)] += 1
        return counts

    def watch(self, wanted: Wanted | None, live: asking.Answer) -> bool | None:
        """Compare up to which versions the proxy follows with what was there before we asked it.

        What it has not heard of a moment later it will not hear of.
        """
        if wanted is None or not _may_answer(live):
            return None
        behind = self._behind(wanted)
        if behind:
            time.sleep(drift.PAUSE_S)
            behind = self._behind(wanted)
        if behind:
            self._tell("watch-stale", behind, seen.RESTART)
        return None if behind is None else bool(behind)

    def _behind(self, wanted: Wanted) -> str | None:
        """Return of what the proxy has not heard; empty: of all; None: it does not say."""
        read, _ = asking.metrics(self._doors.place.metrics)
        known = False
        for kind, newest in sorted(wanted.newest.items()):
            followed = read.of(asking.FOLLOWED, f'resource="{kind}"')
            known = known or followed is not None
            if followed is not None and 0 < followed < newest:
                return f"{kind} are followed up to version {followed:.0f}, there is {newest}"
        return "" if known else None

    def weights(self, wanted: Wanted | None) -> Numbers:
        if wanted is None or wanted.mode != weights.IPVS:
            return {}
        try:
            stuck, draining = weights.resting(wanted, self._doors.opened)
        except KproxyError as error:
            self.unknown["weights"] = str(error)
            return {}
        if stuck:
            self._tell("weights-stuck", _first(stuck), seen.HEAL)
        return {"stuck": len(stuck), "draining": len(draining)}

    def conntrack(self, wanted: Wanted | None) -> Numbers:
        found: Numbers = {}
        try:
            table = self._doors.table()
            found = {"entries": table.entries, "limit": table.limit}
            if table.limit and table.entries >= NEARLY_FULL * table.limit:
                self._tell("conntrack-full", f"{table.entries} of {table.limit} entries")
            if wanted is not None:
                stale = flows.stale(self._doors.conntrack, wanted)
                found["stale"] = len(stale)
                if stale:
                    self._tell("flows-stale", _first(stale), seen.CLEAN)
        except KproxyError as error:
            self.unknown["conntrack"] = str(error)
        return found


def _may_answer(live: asking.Answer) -> bool:
    """Return whether there is any use in asking for metrics."""
    return bool(live.code) or live.text == asking.NOT_SERVED


def _first(found: Sequence[object]) -> str:
    return f"{found[0]}" + (f" and {len(found) - 1} more" if found[1:] else "")
