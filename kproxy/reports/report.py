"""The report: what several results say, in the order in which a reader asks. Pure.

First what happened (the time line), then the numbers, then where packets died, then how the
numbers are spread, then why one may believe them.
"""

from collections.abc import Sequence

from kproxy.reports import comparisons, distributions, losses, method, timeline
from kproxy.reports.document import Cell, Document, Grid, Tone
from kproxy.reports.reading import Loaded
from kproxy.reports.view import View, look
from kproxy.traffic.resultset import ResultSet


def document(loaded: Sequence[Loaded]) -> Document:
    """Return the report on results side by side; there must be one at least."""
    view = look(loaded)
    where = losses.section(view)
    sections = [
        timeline.section(view),
        comparisons.section(loaded),
        *([where] if where is not None else []),
        distributions.section(view),
        method.section(loaded, view),
    ]
    return Document(
        title=_title(loaded),
        subtitle=_subtitle(loaded, view),
        outcome=_outcome(view),
        warnings=tuple(_warnings(loaded)),
        sections=tuple(one for one in sections if one.blocks),
    )


def _title(loaded: Sequence[Loaded]) -> str:
    if all(isinstance(one.results, ResultSet) for one in loaded):
        return "What the restart of a proxy costs"
    return "What the loss of each link costs"


def _subtitle(loaded: Sequence[Loaded], view: View) -> str:
    bad = sum(bool(shot.problems) for shot in view.shots)
    valid = "all valid" if not bad else f"{bad} of them not valid"
    made = "; ".join(
        f"{one.label}: {str(one.results.parameters.get('started', ''))[:16].replace('T', ' ')}, "
        f"Linux {one.results.kernel.get('release')}, {one.results.kernel.get('clock')} clock"
        for one in loaded
    )
    counts = f"{_counted(len(view.cases), 'case')}, {_counted(len(view.shots), 'trial')}"
    return f"{counts}, {valid}. {made}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _outcome(view: View) -> Grid:
    """Return what was lost in each column, all cases and trials together."""
    return Grid(
        title="",
        head=("", "trials", "packets lost", "TCP failed", "of all these unexplained"),
        rows=tuple(_came_to(view, column) for column in view.columns),
    )


def _came_to(view: View, column: str) -> tuple[Cell, ...]:
    shots = [shot for shot in view.shots if shot.column == column]
    found = [one for shot in shots for one in shot.measurements]
    looked = [count for m in found if (count := losses.unexplained(m)) is not None]
    unknown = sum(looked)
    tcp = [m.tcp for m in found if m.tcp is not None]
    lost, failed = sum(m.lost or 0 for m in found), sum(one.failed for one in tcp)
    sent, tried = sum(m.sent or 0 for m in found), sum(one.attempted for one in tcp)
    return (
        Cell(column),
        Cell(str(len(shots))),
        Cell(f"{lost:,} of {sent:,}", Tone.LOSS if lost else Tone.GOOD),
        Cell(f"{failed:,} of {tried:,}", Tone.LOSS if failed else Tone.GOOD),
        Cell(f"{unknown:,}", Tone.BAD if unknown else Tone.GOOD) if looked else Cell("–"),
    )


def _warnings(loaded: Sequence[Loaded]) -> list[str]:
    several = len(loaded) > 1
    found = [
        f"{one.label}: {text}" if several else text for one in loaded for text in one.troubles
    ]
    for one in loaded:
        if not all(row.valid for row in one.results.summary):
            about = f"{one.label}: " if several else ""
            found.append(f"{about}not every row is valid: see the notes at the end")
    return found
