"""How charts look: one palette, one layout, for Plotly. Pure; no library is imported.

A chart must be readable on white and on near black, for readers who do not see all colours, and
on paper: colours are of medium lightness (each contrasts at least 3:1 with both backgrounds, WCAG
2.2, 1.4.11), are those of Okabe and Ito's palette where that allows it, and never mean anything
alone: lines differ in their dashes, too, and markers in their shapes. Text and axes take their
colour from the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kproxy.reports.document import Figure

PALETTE = ("#1f7fc4", "#d55e00", "#009e73", "#c46a99", "#a6761d", "#7a7f87")
GOOD, LOST = (PALETTE[0], PALETTE[2], PALETTE[5]), (PALETTE[1], PALETTE[4], PALETTE[3])
"""For what arrived, and for what did not."""
HATCHES = ("", "/", "x")
DASHES = ("solid", "dot", "dash", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
BACKGROUNDS = ("#f5f6f8", "#1c2027")
"""Of charts in the page, light and dark."""
STROKES = {"solid": "none", "dot": "2 3", "dash": "7 4", "dashdot": "7 3 2 3"}
GLYPHS = {
    "circle": "●",
    "circle-open": "○",
    "cross": "✚",
    "diamond": "◆",
    "diamond-open": "◇",
    "hexagon": "⬢",
    "square": "■",
    "star": "★",
    "star-square": "✦",
    "triangle-down": "▼",
    "triangle-down-open": "▽",
    "triangle-up": "▲",
    "x": "✖",
}
NEUTRAL = "#7a7f87"
MARGIN = {"l": 56, "r": 24, "t": 32, "b": 44}

Trace = dict[str, Any]


def colour(number: int) -> str:
    """Return a colour of the palette; after the last comes the first again."""
    return PALETTE[number % len(PALETTE)]


def dash(number: int) -> str:
    """Return a kind of dashes, in the same way."""
    return DASHES[number % len(DASHES)]


def symbol(number: int) -> str:
    """Return a marker, in the same way."""
    return SYMBOLS[number % len(SYMBOLS)]


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis; its title says the unit."""
    found = {"zeroline": False, "ticks": "outside", "ticklen": 4, "automargin": True, **more}
    if title:
        found["title"] = {"text": title, "standoff": 6}
    return found


def figure(
    traces: Sequence[Trace],
    *,
    height: int,
    axes: dict[str, Any],
    shapes: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> Figure:
    """Return a chart of a height in pixels, as wide as its place is; its key is the page's."""
    layout = {
        "autosize": True,
        "height": height,
        "margin": MARGIN,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": NEUTRAL},
        "hoverlabel": {"bgcolor": "#22262d", "font": {"color": "#ffffff"}},
        "showlegend": False,
        "shapes": list(shapes),
        **axes,
        **more,
    }
    return {"data": list(traces), "layout": layout}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a chart's key: a piece of line in ``dashes`` (SVG's), or a ``glyph``."""

    name: str
    colour: str
    dashes: str = ""
    glyph: str = ""


def key(found: Figure) -> list[Entry]:
    """Return what the lines and markers of a chart mean, each name once."""
    entries: dict[str, Entry] = {}
    for trace in found["data"]:
        name = trace["name"]
        if name in entries:
            continue
        if trace.get("mode") == "lines":
            line = trace["line"]
            entries[name] = Entry(name, line["color"], dashes=STROKES[line["dash"]])
        elif trace["type"] == "bar":
            marker = trace["marker"]
            glyph = "▨" if marker["pattern"]["shape"] else "■"
            entries[name] = Entry(name, marker["color"], glyph=glyph)
        else:
            marker = trace["marker"]
            glyph = GLYPHS.get(marker.get("symbol", ""), GLYPHS["circle"])
            entries[name] = Entry(name, marker["color"], glyph=glyph)
    return list(entries.values())
