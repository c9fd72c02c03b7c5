"""The comparison as tables of a report: the very tables of the terminal, for results side by side.

There is one place that says what a cell reads (:mod:`tables`, :mod:`chaintable`), so a report and
a terminal cannot disagree.
"""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from kproxy.reports import certainty, chaintable, switchtable, tables, watchedtable
from kproxy.reports.document import Block, Cell, Grid, Section, Tone, Words
from kproxy.reports.reading import Loaded
from kproxy.reports.view import comparison
from kproxy.traffic.chainset import ChainSet
from kproxy.traffic.resultset import ResultSet

TONES = {"green": Tone.GOOD, "yellow": Tone.LOSS, "bold red": Tone.BAD}
TWO_NAMES = 2
"""Scenario and node: the cells that name a row of a comparison."""


def section(loaded: Sequence[Loaded]) -> Section:
    """Return the section."""
    blocks: list[Block] = []
    whole = comparison(loaded)
    if whole is not None:
        blocks += _comparison(whole)
    for one in loaded:
        if isinstance(one.results, ChainSet):
            title = f"{one.label}: " if len(loaded) > 1 else ""
            for its in (chaintable, watchedtable):
                if its.applies(one.results):
                    blocks.append(grid(its.table(one.results), title=title))
    return Section(
        anchor="comparison",
        title="Comparison",
        intro="Medians over the trials, with the least and the greatest where they differ. "
        "“No loss” is said in words; “–” means that a figure does not apply.",
        blocks=tuple(blocks),
    )


def _comparison(whole: ResultSet) -> Iterable[Block]:
    """Return the tables that have rows."""
    plain = switchtable.without_switches(whole)
    for table, headers in (
        (tables.packets_table(plain), TWO_NAMES),
        (tables.tcp_table(plain), TWO_NAMES),
        (tables.restart_table(plain), 1),
        (switchtable.table(whole), TWO_NAMES),
    ):
        if table is not None and table.row_count:
            yield grid(table, headers=headers)
    left = tuple(switchtable.left_behind(whole))
    if left:
        yield Words(left)
    yield from certainty.blocks(whole)


def grid(table: Table, *, headers: int = 1, title: str = "") -> Grid:
    """Return a terminal's table as one of a report. Names that are not repeated are filled in."""
    columns = [list(column.cells) for column in table.columns]
    rows: list[tuple[Cell, ...]] = []
    for cells in zip(*columns, strict=True):
        row = [_cell(one) for one in cells]
        if rows and not row[0].text:
            row[0] = rows[-1][0]
        rows.append(tuple(row))
    return Grid(
        title=title + str(table.title or ""),
        head=tuple(_text(column.header) for column in table.columns),
        rows=tuple(rows),
        headers=headers,
    )


def _cell(found: object) -> Cell:
    if isinstance(found, Text):
        styles: Iterable[str] = [str(found.style), *(str(span.style) for span in found.spans)]
        tone = next((TONES[style] for style in styles if style in TONES), Tone.PLAIN)
        return Cell(found.plain, tone)
    return Cell(str(found))


def _text(header: object) -> str:
    return header.plain if isinstance(header, Text) else str(header)
