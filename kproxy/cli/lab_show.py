"""``kproxy lab status`` and ``graph``: a lab as tables, as a picture, as JSON."""

import json
import shutil
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from kproxy import errors
from kproxy.cli import lab_graph, lab_tables
from kproxy.cli.lab_commands import ask
from kproxy.cli.lab_option import find, place_options
from kproxy.lab.door.directory import LabDirectory
from kproxy.lab.whole.picture import Picture

_WIDTH_OF_FILES = 120


def look(directory: LabDirectory) -> tuple[bytes, Picture]:
    """Return a lab as it is now: as JSON, and as values."""
    data = ask(directory, "status")
    return data, msgspec.json.decode(data, type=Picture)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@place_options
def status(as_json: bool, name: str | None, place: Path) -> int:
    """Show a lab: hosts, control plane and its leaders, nodes, pods, services, versions.

    Exit code 0: everything that should run does, and all nodes are ready; 1: not; 2: no such lab.
    """
    directory = find(place, name)
    data, picture = look(directory)
    owner = directory.owner()
    if as_json:
        whole = json.loads(data)
        if owner is not None:
            whole["owner"] = msgspec.to_builtins(owner)
        click.echo(json.dumps(whole, indent=2))
    else:
        width = None if sys.stdout.isatty() else _WIDTH_OF_FILES
        console = Console(width=width, highlight=False)
        for part in lab_tables.parts(picture, owner):
            console.print(part)
    return 0 if lab_tables.is_well(picture) else 1


@click.command()
@click.option("--dot", "as_dot", is_flag=True, help="Print it in Graphviz's language.")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it as a picture into FILE; - is standard output.",
)
@place_options
def graph(as_dot: bool, svg: Path | None, name: str | None, place: Path) -> int:
    """Draw a lab: hosts, links, what runs there, leaders (*), pods."""
    _, picture = look(find(place, name))
    if svg is not None:
        text = lab_graph.svg(picture)
        if str(svg) == "-":
            click.echo(text)
            return 0
        try:
            svg.write_text(text)
        except OSError as error:
            raise errors.UsageError(f"cannot write {svg}: {error.strerror}") from None
        click.echo(f"kproxy: written: {svg}", err=True)
        return 0
    width = shutil.get_terminal_size((_WIDTH_OF_FILES, 24)).columns
    click.echo(lab_graph.dot(picture) if as_dot else lab_graph.text(picture, width))
    return 0
