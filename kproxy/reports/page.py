"""The report as one HTML file that needs nothing else: no network, no other file.

Plotly's JavaScript comes out of the installed ``plotly`` package, and goes into the file
compressed (a browser can inflate it), as the charts do: less than half the size. The page forbids
itself every request (a Content Security Policy). Without scripts all tables are there, and only
charts are not.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from importlib import resources

import jinja2
from markupsafe import Markup

from kproxy.reports import charts as drawing
from kproxy.reports.document import Block, Chart, Document, Fold, Part, Side

_HERE, _FILES = "kproxy.reports", "page"
JAVASCRIPT = ("package_data", "plotly.min.js")
"""Where the ``plotly`` package has it."""

LEVEL = 5
"""Of compression: more would take twice the time for a hundredth of the size."""


def html(document: Document) -> str:
    """Return the file's text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_HERE, _FILES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    charts = [chart for one in document.sections for chart in _charts(one.blocks)]
    places = {id(chart): number for number, chart in enumerate(charts)}
    return environment.get_template("report.html.j2").render(
        document=document,
        key=lambda chart: drawing.key(chart.figure),
        number=lambda chart: places[id(chart)],
        style=_ours("kproxy", "palette.css") + _ours(_HERE, _FILES, "style.css"),
        script=_ours(_HERE, _FILES, "report.js"),
        figures=packed(json.dumps([chart.figure for chart in charts], separators=(",", ":"))),
        library=packed(plotly()) if charts else "",
    )


def plotly() -> str:
    """Return Plotly's JavaScript."""
    return resources.files("plotly").joinpath(*JAVASCRIPT).read_text(encoding="utf-8")


def packed(text: str) -> str:
    """Return a text as base64 of gzip; always the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), LEVEL, mtime=0)).decode()


def _ours(package: str, *path: str) -> Markup:
    text = resources.files(package).joinpath(*path).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704  a file of this project, with nothing of anybody else's in it


def _charts(blocks: Iterable[Block]) -> list[Chart]:
    """Return all charts, in the order in which they are in the page."""
    found: list[Chart] = []
    for block in blocks:
        if isinstance(block, Chart):
            found.append(block)
        elif isinstance(block, Side | Fold | Part):
            found += _charts(block.blocks)
    return found
