"""A lab's picture drawn: as text, in Graphviz's language, as SVG. Pure.

All three show the same: hosts and their addresses, what their links do, what runs there and who
leads (*), pods below their nodes, and clients outside.
"""

import textwrap
from collections.abc import Iterator
from xml.sax.saxutils import escape

from kproxy.cli.lab_tables import process_text
from kproxy.lab.whole.picture import HostPicture, Picture

_COLOURS = {
    "edge": "#fde9c8",
    "admin": "#eeeeee",
    "control": "#d7e5fb",
    "etcd": "#e5dbf5",
    "monitor": "#fbd9e3",
    "node": "#d9f2dc",
    "outside": "#f3f3f3",
}
_OUTSIDE = "outside"
_BOX_WIDTH, _LINE_HEIGHT, _GAP, _COLUMNS = 250, 16, 24, 4
_LONGEST = 36


def lines_of(picture: Picture, host: HostPicture) -> list[str]:
    """Return what is told of a host, a line each; the first is its name."""
    found = [host.name if host.plugged else f"{host.name} (unplugged)"]
    found += host.addresses
    if host.link:
        found.append(f"link: {host.link}")
    found += [process_text(one) for one in picture.control_plane if one.host == host.name]
    if host.kind == "edge":
        found.append(f"API {picture.api_url.partition('//')[2]}")
    for pod in picture.pods:
        if pod.node == host.name:
            ready = "" if pod.ready == pod.containers else f" {pod.phase}"
            found.append(f"pod {pod.namespace}/{pod.name}{ready}")
    return found


def text(picture: Picture, width: int) -> str:
    """Return the picture as text, at most so many columns wide."""
    result = [f"lab {picture.name}, mode {picture.mode}"]
    for segment, hosts in _segments(picture):
        result += ["", f"══╤══ {segment} ".ljust(width, "═")]
        for host in hosts:
            result += _branch(lines_of(picture, host), last=host is hosts[-1], width=width)
    return "\n".join(result)


def _branch(lines: list[str], *, last: bool, width: int) -> Iterator[str]:
    """Yield a host below its segment: its name and addresses, what runs there, its pods."""
    name, rest = lines[0], lines[1:]
    pods = [line for line in rest if line.startswith("pod ")]
    plain = [line for line in rest if not line.startswith("pod ")]
    stem = "  └── " if last else "  ├── "
    below = "      " if last else "  │   "
    head = f"{name}  {'  '.join(plain)}"
    first, *more = textwrap.wrap(head, max(20, width - len(stem))) or [name]
    yield stem + first
    for line in more:
        yield f"{below}    {line}"
    for pod in pods:
        branch = "└─" if pod is pods[-1] else "├─"
        yield f"{below}{branch} {pod.removeprefix('pod ')}"


def dot(picture: Picture) -> str:
    """Return the picture in Graphviz's language: `dot -Tpdf` draws it."""
    result = ["graph lab {", '  node [shape=box, style=filled, fontname="sans-serif"];']
    for segment, hosts in _segments(picture):
        result.append(f"  {_quoted(segment)} [shape=ellipse, fillcolor=white];")
        for host in hosts:
            label = "\\n".join(line.replace('"', "'") for line in lines_of(picture, host))
            colour = _COLOURS[host.kind]
            result.append(f'  {_quoted(host.name)} [label="{label}", fillcolor="{colour}"];')
            style = "" if host.plugged else " [style=dashed]"
            result.append(f"  {_quoted(segment)} -- {_quoted(host.name)}{style};")
    return "\n".join([*result, "}"])


def svg(picture: Picture) -> str:
    """Return the picture as SVG: a line for each segment, its hosts as boxes below it."""
    body: list[str] = []
    top = _GAP + _LINE_HEIGHT
    width = _GAP + _COLUMNS * (_BOX_WIDTH + _GAP)
    body.append(_text(_GAP, _GAP, f"lab {picture.name}, mode {picture.mode}", bold=True))
    for segment, hosts in _segments(picture):
        top += _LINE_HEIGHT
        body.append(_text(_GAP, top - 4, segment))
        for start in range(0, len(hosts), _COLUMNS):
            row = hosts[start : start + _COLUMNS]
            body.append(_line(_GAP, top, width - _GAP, top, 3))
            height = max(len(lines_of(picture, host)) for host in row)
            for column, host in enumerate(row):
                left = _GAP + column * (_BOX_WIDTH + _GAP)
                body += _box(left, top + _GAP, host, lines_of(picture, host))
            top += _GAP + (height + 1) * _LINE_HEIGHT + _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}"'
    style = 'font-family="sans-serif" font-size="12"'
    return "\n".join([f"{head} {style}>", *body, "</svg>"]) + "\n"


def _box(left: int, top: int, host: HostPicture, lines: list[str]) -> Iterator[str]:
    height = (len(lines) + 1) * _LINE_HEIGHT - 4
    middle = left + _BOX_WIDTH // 2
    if host.plugged:
        yield _line(middle, top - _GAP, middle, top, 1)
    yield (
        f'<rect x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{height}" rx="4" '
        f'fill="{_COLOURS[host.kind]}" stroke="#555"/>'
    )
    for number, line in enumerate(lines, start=1):
        short = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
        yield _text(left + 8, top + number * _LINE_HEIGHT, short, bold=number == 1 or "*" in line)


def _text(x: int, y: int, content: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(content)}</text>'


def _line(x1: int, y1: int, x2: int, y2: int, width: int) -> str:
    return f'<path d="M{x1} {y1} L{x2} {y2}" stroke="#555" stroke-width="{width}"/>'


def _segments(picture: Picture) -> Iterator[tuple[str, list[HostPicture]]]:
    """Yield the segments with their hosts; the edge is on both, and shown on the inner one."""
    yield "lan", [host for host in picture.hosts if host.kind != _OUTSIDE]
    outside = [host for host in picture.hosts if host.kind == _OUTSIDE]
    if outside:
        yield _OUTSIDE, outside


def _quoted(name: str) -> str:
    return f'"{name}"'
