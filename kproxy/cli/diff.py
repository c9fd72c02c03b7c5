"""``kproxy diff``: in what the kernel differs from what should be there."""

import json

import click

from kproxy.cli.inspect_source import (
    Asked,
    failing_as_usage,
    gather,
    source_options,
    tell_problems,
    warn,
)
from kproxy.inspect import jsonable, kernel, text


@click.command()
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def diff(asked: Asked, as_json: bool) -> int:
    """Compare the kernel of this node with its wanted state. Writes nothing.

    Exit code 0: no differences; 1: differences; 2: bad usage, or something cannot be read.
    """
    kernel.require_root()
    with failing_as_usage():
        gathered = gather(asked, need_mode=True)
        settings = gathered.settings
        found = [
            kernel.compare(settings.mode, side.world.state, settings.options)
            for side in gathered.sides
        ]
    warn(gathered)
    tell_problems(gathered)
    if as_json:
        answer = {
            "node": settings.node,
            "mode": settings.mode,
            "source": gathered.objects.source,
            "families": [jsonable.comparison(one) for one in found],
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo("\n".join(text.comparisons(settings.mode, found)))
    return 1 if any(one.differences for one in found) else 0
