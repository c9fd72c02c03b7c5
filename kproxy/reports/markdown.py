"""The report as Markdown, for a pull request or an issue: its tables, and its charts as tables."""

from collections.abc import Iterable

from kproxy.reports.document import (
    Block,
    Chart,
    Document,
    Fold,
    Grid,
    Hop,
    Part,
    Path,
    Side,
    Tone,
    Words,
)


def markdown(document: Document) -> str:
    """Return the file's text (GitHub's kind of Markdown)."""
    lines = [f"# {document.title}", "", _text(document.subtitle), ""]
    lines += _grid(document.outcome)
    for warning in document.warnings:
        lines += [f"> **Note:** {_text(warning)}", ""]
    for one in document.sections:
        lines += [f"## {one.title}", "", _text(one.intro), ""]
        for block in one.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> Iterable[str]:
    match block:
        case Grid():
            yield from _grid(block)
        case Chart():
            yield from (f"**{_text(block.title)}**", "")
            yield from _grid(block.grid)
        case Path():
            yield from _path(block)
        case Words():
            mark = "**" if block.tone is Tone.BAD else ""
            yield from (f"- {mark}{_text(line)}{mark}" for line in block.lines)
            yield ""
        case Part():
            yield from (f"### {_text(block.title)}", "", *_all(block.blocks))
        case Fold():
            yield from (f"**{_text(block.title)}**", "", *_all(block.blocks))
        case Side():
            yield from _all(block.blocks)


def _all(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        yield from _block(block)


def _grid(grid: Grid) -> Iterable[str]:
    if grid.title:
        yield from (f"**{_text(grid.title)}**", "")
    yield _line(name or " " for name in grid.head)
    yield _line("---" for _ in grid.head)
    for row in grid.rows:
        yield _line(
            f"**{_text(cell.text)}**" if cell.tone is Tone.BAD and cell.text else _text(cell.text)
            for cell in row
        )
    yield ""
    if grid.note:
        yield from (_text(grid.note), "")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _path(path: Path) -> Iterable[str]:
    yield from (f"**{_text(path.title)}**", "")
    stops = [f"sent {path.sent:,}", *map(_hop, path.hops)]
    if path.back:
        stops += ["answered", *map(_hop, path.back)]
    stops.append(f"received {path.received:,}")
    yield from (" → ".join(stops), "", f"Unexplained: {path.unexplained:,}.", "")


def _hop(hop: Hop) -> str:
    return f"**{_text(hop.place)}: {', '.join(hop.causes)}**"


def _text(text: str) -> str:
    """Return a text that Markdown and HTML take for nothing else, on one line."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    for mark in ("*", "_", "`"):
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped.replace("\n", "<br>")
