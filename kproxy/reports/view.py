"""One look at results of several kinds: cases (what was done), columns (to what), trials.

Results side by side become columns side by side: a mode of one comparison, or a mode of one of
several. A case is a scenario, or a link of the chain. Pure.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from kproxy.reports.reading import Loaded
from kproxy.traffic.chainset import ChainSet
from kproxy.traffic.resultset import Measurement, ResultSet, Row, TimelineEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was done, and its title for readers."""

    name: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One trial, of whichever kind of result."""

    column: str
    case: str
    number: int
    timeline: tuple[TimelineEvent, ...]
    measurements: tuple[Measurement, ...]
    problems: tuple[str, ...]
    restart_ms: float | None = None

    @property
    def lost(self) -> int:
        """Return the packets, requests and connections that were lost."""
        return sum(m.tcp.failed if m.tcp else m.lost or 0 for m in self.measurements)

    @property
    def lost_in_words(self) -> str:
        """Return what was lost, kind by kind."""
        packets = sum(m.lost or 0 for m in self.measurements)
        failed = sum(m.tcp.failed for m in self.measurements if m.tcp)
        said = [f"{packets:,} packets lost"] if packets else []
        said += [f"{failed:,} TCP failed"] if failed else []
        return ", ".join(said) or "nothing lost"

    @property
    def failover_ms(self) -> float:
        """Return the longest failover time; infinite if something did not recover."""
        times = [
            m.failover_time_ms or 0.0 if m.recovered else float("inf") for m in self.measurements
        ]
        return max(times, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All of it. Columns and cases are in their order of appearance."""

    columns: tuple[str, ...]
    cases: tuple[Case, ...]
    shots: tuple[Shot, ...]

    def of(self, case: Case, column: str) -> list[Shot]:
        """Return the trials of one case in one column."""
        return [s for s in self.shots if (s.case, s.column) == (case.name, column)]


def column(loaded: Sequence[Loaded], one: Loaded, mode: str) -> str:
    """Return what a mode's column is called: the mode, and which result if there are several."""
    return mode if len(loaded) == 1 else f"{one.label}: {mode}"


def look(loaded: Sequence[Loaded]) -> View:
    """Return the view of results side by side."""
    cases: dict[str, Case] = {}
    shots: list[Shot] = []
    for one in loaded:
        if isinstance(one.results, ResultSet):
            found = _comparison(loaded, one, one.results)
            titles = {shot.case: shot.case for shot in found}
        else:
            found = _chain(loaded, one, one.results)
            titles = {row.link: row.title for row in one.results.summary}
        for shot in found:
            title = titles.get(shot.case, shot.case)
            cases.setdefault(shot.case, Case(name=shot.case, title=title))
        shots += found
    # Columns of one mode stand together, so that before and after are neighbours.
    names = dict.fromkeys(shot.column for shot in shots)
    modes = list(dict.fromkeys(name.rpartition(": ")[2] for name in names))
    ordered = sorted(names, key=lambda name: modes.index(name.rpartition(": ")[2]))
    return View(columns=tuple(ordered), cases=tuple(cases.values()), shots=tuple(shots))


def _comparison(loaded: Sequence[Loaded], one: Loaded, results: ResultSet) -> list[Shot]:
    return [
        Shot(
            column=column(loaded, one, trial.mode),
            case=trial.scenario,
            number=trial.number,
            timeline=trial.timeline,
            measurements=trial.measurements,
            problems=trial.problems,
            restart_ms=trial.restart_to_synced_ms,
        )
        for trial in results.trials
    ]


def _chain(loaded: Sequence[Loaded], one: Loaded, results: ChainSet) -> list[Shot]:
    mode = str(results.parameters.get("mode", "chain"))
    return [
        Shot(
            column=column(loaded, one, mode),
            case=trial.link,
            number=trial.number,
            timeline=trial.timeline,
            measurements=trial.measurements,
            problems=trial.problems,
        )
        for trial in results.trials
    ]


def comparison(loaded: Sequence[Loaded]) -> ResultSet | None:
    """Return all comparisons as one, whose modes are the view's columns; None without any."""
    found = [(one, one.results) for one in loaded if isinstance(one.results, ResultSet)]
    if not found:
        return None
    if len(loaded) == 1:
        return found[0][1]
    trials, rows = [], []
    for one, results in found:
        trials += [
            dataclasses.replace(t, mode=column(loaded, one, t.mode)) for t in results.trials
        ]
        rows += [_renamed(row, loaded, one) for row in results.summary]
    order = look(loaded).columns
    rows.sort(key=lambda row: order.index(row.mode) if row.mode in order else len(order))
    return dataclasses.replace(found[0][1], trials=tuple(trials), summary=tuple(rows))


def _renamed(row: Row, loaded: Sequence[Loaded], one: Loaded) -> Row:
    """Return a row whose modes, also those it is compared with, are columns."""
    differences = tuple(
        dataclasses.replace(d, mode=column(loaded, one, d.mode)) for d in row.differences
    )
    return dataclasses.replace(row, mode=column(loaded, one, row.mode), differences=differences)


def typical(shots: Sequence[Shot]) -> Shot | None:
    """Return the trial in the middle, by what it lost and for how long; valid ones if there are.

    None without trials.
    """
    counted = [shot for shot in shots if not shot.problems] or list(shots)
    if not counted:
        return None
    ordered = sorted(counted, key=lambda shot: (shot.lost, shot.failover_ms, shot.number))
    return ordered[(len(ordered) - 1) // 2]


def worst(shots: Sequence[Shot]) -> Shot | None:
    """Return the trial that lost most, whether it is valid or not; None without trials."""
    return max(shots, key=lambda shot: (shot.lost, shot.failover_ms), default=None)
