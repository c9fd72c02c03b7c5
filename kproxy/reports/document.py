"""What a report consists of, before it is HTML or Markdown: sections of tables, charts and paths.

Pure values. Whoever has something to show makes blocks of it; whoever writes a file knows blocks
and nothing of results.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Figure = dict[str, Any]
"""A chart as Plotly's JSON describes it: ``data`` and ``layout``."""


class Tone(StrEnum):
    """What a cell's text means; shown by colour, never by colour alone."""

    PLAIN = "plain"
    GOOD = "good"
    LOSS = "loss"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table. The text may have several lines."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table. The first ``headers`` cells of every row name it; ``note`` stands below."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    headers: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, what is to be seen in it, and the same as a table."""

    title: str
    description: str
    figure: Figure
    grid: Grid


@dataclass(frozen=True, slots=True)
class Hop:
    """A place on the way of packets, how many were lost there, and of what (in words)."""

    place: str
    lost: int
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The way of packets through places, with what was lost at each."""

    title: str
    sent: int
    received: int
    hops: tuple[Hop, ...]
    back: tuple[Hop, ...] = ()
    unexplained: int = 0


@dataclass(frozen=True, slots=True)
class Words:
    """Lines of text, each a point of its own."""

    lines: tuple[str, ...]
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Side:
    """Blocks that belong beside each other, where there is room."""

    blocks: "tuple[Block, ...]"


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks that are shown when asked for."""

    title: str
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True, slots=True)
class Part:
    """Blocks under a heading of their own."""

    title: str
    blocks: "tuple[Block, ...]"


Block = Grid | Chart | Path | Words | Side | Fold | Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A chapter; ``anchor`` is its address within the file."""

    anchor: str
    title: str
    intro: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole report.

    ``outcome``: what it came to, in a small table; ``warnings``: what must be known before all.
    """

    title: str
    subtitle: str
    outcome: Grid
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]


def plain(*texts: str) -> tuple[Cell, ...]:
    """Return a row of plain cells."""
    return tuple(Cell(text) for text in texts)
