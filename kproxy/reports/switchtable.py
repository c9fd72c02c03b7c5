"""What changing a node's mode costs, as a table for a terminal: a row for each pair and way.

Figures are medians over the trials, with the range where they differ. Clients behind another node
have a row where they noticed anything. What is left behind is that of the trial with most of it.
Where a trial is not valid there are no figures, as in the other tables.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from kproxy.traffic.resultset import ResultSet, Trial
from kproxy.traffic.summary import spread
from kproxy.traffic.switchset import Impact, LeftBehind, Switch

NAMES_MOST = 3
"""So many objects of a kind are named; of more their number is told."""

Group = Sequence[tuple[Trial, Switch]]


def without_switches(results: ResultSet) -> ResultSet:
    """Return the result without changes of mode, which the other tables are not made for."""
    switched = {trial.scenario for trial in results.trials if trial.switch is not None}
    kept = tuple(row for row in results.summary if row.scenario not in switched)
    return dataclasses.replace(results, summary=kept)


def table(results: ResultSet) -> Table | None:
    """Return the table; None if no node was switched."""
    found = Table(title="Changing the mode of a node under traffic", title_justify="left")
    found.add_column("mode", no_wrap=True)
    found.add_column("way", no_wrap=True)
    found.add_column("clients")
    for name in ("packets lost", "TCP broken", "UDP moved", "new failed", "stalled", "no proxy"):
        found.add_column(name, justify="right")
    found.add_column("left behind")
    spoiled = {(row.mode, row.scenario) for row in results.summary if not row.valid}
    for group in _groups(results.trials):
        last, _ = group[-1]
        valid = (last.mode, last.scenario) not in spoiled and all(one.valid for one, _ in group)
        for number, node in enumerate(_nodes(group)):
            _add_row(found, group, node, first=number == 0, valid=valid)
        found.add_section()
    return found if found.row_count else None


def left_behind(results: ResultSet) -> list[str]:
    """Return what has stayed of old modes, a line for each kind of object."""
    lines = []
    for group in _groups(results.trials):
        switch = _worst(group)
        for one in switch.left_behind:
            names = ", ".join(one.names[:NAMES_MOST])
            more = f" and {len(one.names) - NAMES_MOST} more" if one.names[NAMES_MOST:] else ""
            where = f"{switch.old}>{switch.new} {switch.way}"
            lines.append(f"Left behind, {where}: {_count(one)}: {names}{more}")
    return lines


def _groups(trials: Iterable[Trial]) -> list[Group]:
    groups: dict[tuple[str, str], list[tuple[Trial, Switch]]] = {}
    for trial in trials:
        if trial.switch is not None:
            groups.setdefault((trial.mode, trial.scenario), []).append((trial, trial.switch))
    return list(groups.values())


def _worst(group: Group) -> Switch:
    """Return the change that has left most behind: what stays now and then stays, too."""
    return max(
        (switch for _, switch in group),
        key=lambda switch: sum(len(one.names) for one in switch.left_behind),
    )


def _nodes(group: Group) -> list[str]:
    """Return the hit node, and others if clients behind them noticed anything."""
    names = dict.fromkeys(one.node for _, switch in group for one in switch.impact)
    return [
        name
        for number, name in enumerate(names)
        if number == 0 or any(_noticed(one) for one in _impacts(group, name))
    ]


def _impacts(group: Group, node: str) -> list[Impact]:
    return [one for _, switch in group for one in switch.impact if one.node == node]


def _noticed(one: Impact) -> bool:
    return bool(one.lost or one.flows_moved or one.connections_broken or one.failed or one.stalled)


def _add_row(found: Table, group: Group, node: str, *, first: bool, valid: bool) -> None:
    impacts = _impacts(group, node)
    trial, switch = group[-1]
    names = (trial.mode if first else "", switch.way if first else "", node)
    if not valid:
        found.add_row(*names, Text("not valid", style="bold red"))
        return
    restarts = [one.restart_to_synced_ms for one, _ in group]
    found.add_row(
        *names,
        _figure([(one.lost, one.sent) for one in impacts]),
        _figure([(one.connections_broken, one.connections) for one in impacts]),
        _figure([(one.flows_moved, one.flows) for one in impacts], bad=False),
        _figure([(one.failed, one.attempted) for one in impacts]),
        _figure([(one.stalled, one.attempted) for one in impacts]),
        _ms(restarts) if first else "",
        _kinds(_worst(group)) if first else "",
    )


def _figure(values: Sequence[tuple[int, int]], *, bad: bool = True) -> Text:
    """Return ``median (min–max) of total``."""
    found = spread([value for value, _ in values])
    total = spread([whole for _, whole in values])
    if found is None or total is None:
        return Text("–")
    text = f"{found.median:g}"
    if found.min != found.max:
        text += f" ({found.min:g}–{found.max:g})"
    style = "green" if not found.max else "yellow" if bad else ""
    return Text(f"{text} of {total.median:g}", style=style)


def _ms(values: Sequence[float | None]) -> str:
    found = spread([value for value in values if value is not None])
    return "–" if found is None or found.median is None else f"{found.median:.0f} ms"


def _kinds(switch: Switch) -> str:
    return ", ".join(map(_count, switch.left_behind)) or "nothing"


def _count(one: LeftBehind) -> str:
    count = len(one.names)
    plural = "es" if one.kind.endswith(("s", "ch")) else "s"
    return f"{count} {one.kind}{'' if count == 1 else plural}"
