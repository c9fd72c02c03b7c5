"""What monitoring adds, as a table for a terminal: a row for each fault, a column for who watches.

A cell reads: when the alert's rule was first found true, when somebody was told, when an action
began, when the fault was over, when that was verified; who repaired it; what users lost up to
then, at all vantage points together. Where nobody repaired it the loss is that of the time waited.
"""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from kproxy.reports.chaintable import seconds, spread_text, units
from kproxy.traffic.chainset import ChainSet, LinkRow, WatchedRow
from kproxy.traffic.resultset import Spread

VARIANTS = {
    "alone": "nobody watches",
    "remediated": "our rules, 1 s; remediation",
    "mixin": "the mixin's rules, 30 s; a person",
}


def applies(results: ChainSet) -> bool:
    """Return whether there is anything to show."""
    return any(row.watched is not None for row in results.summary)


def table(results: ChainSet) -> Table:
    """Return the table."""
    found = Table(title="What monitoring adds", title_justify="left")
    found.add_column("what happens", ratio=7)
    for title in VARIANTS.values():
        # Names of alerts are long: they may be broken, but not cut off.
        found.add_column(title, ratio=11, overflow="fold")
    for title, rows in _by_fault(results.summary).items():
        found.add_row(Text(title, style="bold"), *(_cell(rows, variant) for variant in VARIANTS))
        found.add_section()
    return found


def _by_fault(summary: Iterable[LinkRow]) -> dict[str, list[LinkRow]]:
    found: dict[str, list[LinkRow]] = {}
    for row in summary:
        if row.watched is not None:
            found.setdefault(row.watched.title, []).append(row)
    return found


def _cell(rows: Sequence[LinkRow], variant: str) -> Text:
    for row in rows:
        if row.watched is not None and row.watched.variant == variant:
            return _told(row, row.watched)
    return Text("–")


def _told(row: LinkRow, watched: WatchedRow) -> Text:
    text = Text("\n".join([*_noticed(watched), *_repaired(row, watched)]))
    text.append(f"\n{_lost(row)}", style="yellow" if _any_lost(row) else "green")
    if not row.valid:
        text.append("\nnot valid", style="bold red")
    return text


def _noticed(watched: WatchedRow) -> Iterable[str]:
    if watched.variant == "alone":
        return
    if not watched.alert:
        yield "no alert"
        return
    yield watched.alert
    yield from _times(("seen", watched.seen_ms), ("told", watched.alert_ms))


def _repaired(row: LinkRow, watched: WatchedRow) -> Iterable[str]:
    if watched.action:
        yield watched.action
        yield from _times(
            ("begun", watched.action_ms),
            ("repaired", row.repair_ms),
            ("verified", watched.verified_ms),
        )
    elif watched.waited_ms is not None:
        yield f"not repaired in {seconds(watched.waited_ms)}"
    elif watched.hand_ms is not None:
        yield f"a person comes {seconds(watched.hand_ms)} later"
        yield from _times(("repaired", row.repair_ms))
    else:
        yield from _times(("repaired", row.repair_ms))
    if row.repair_ms is not None and watched.hand_ms is None and not _acted(row):
        yield f"by {row.repaired_by}"


def _acted(row: LinkRow) -> bool:
    """Return whether it was an action that repaired it: then that has been said."""
    assert row.watched is not None
    return bool(row.watched.action) and row.watched.action in row.repaired_by


def _times(*told: tuple[str, Spread | None]) -> Iterable[str]:
    words = [f"{word} {spread_text(value)}" for word, value in told if value is not None]
    if words:
        yield ", ".join(words)


def _lost(row: LinkRow) -> str:
    counts: dict[str, list[int]] = {}
    for one in row.traffic:
        count = counts.setdefault(units(one.traffic), [0, 0])
        count[0] += one.lost
        count[1] += one.sent
    told = [f"{lost} of {sent} {unit}" for unit, (lost, sent) in counts.items() if lost]
    return f"lost {', '.join(told)}" if told else "nothing lost"


def _any_lost(row: LinkRow) -> bool:
    return any(one.lost for one in row.traffic)
