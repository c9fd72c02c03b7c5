"""``kproxy state``: what should be in this node's kernel, and why."""

import json
import sys
from typing import Any

import click

from kproxy.cli.inspect_source import (
    Asked,
    Gathered,
    failing_as_usage,
    gather,
    source_options,
    warn,
)
from kproxy.inspect import jsonable, kernel, objects, views
from kproxy.inspect.kernel import Holdings

TABLE_WIDTH = 160
"""Where the output is no terminal: wide, so that nothing is cut."""


@click.command()
@source_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--kernel", "with_kernel", is_flag=True, help="Show what the kernel holds, too.")
def state(asked: Asked, as_json: bool, with_kernel: bool) -> int:
    """Show the wanted state of this node: every service port, its endpoints, and why these.

    Objects come from an API server (--kubeconfig, --master, or as in a pod) or from files
    (--objects). Flags of the node proxy, such as --cluster-cidr, may follow after --.
    """
    if with_kernel:
        kernel.require_root()
    gathered = gather(asked)
    held = _held(gathered.settings.mode) if with_kernel else None
    warn(gathered)
    if as_json:
        click.echo(json.dumps(_as_json(gathered, held), indent=2))
    else:
        _print(gathered, held)
    return 0


def _held(mode: str) -> Holdings:
    with failing_as_usage():
        return kernel.holdings(mode)


def _ignored(gathered: Gathered) -> dict[str, str]:
    return objects.ignored(gathered.objects.services, gathered.settings.families[0].proxy_name)


def _as_json(gathered: Gathered, held: Holdings | None) -> dict[str, Any]:
    settings = gathered.settings
    answer = {
        "node": settings.node,
        "mode": settings.mode,
        "mode_from": gathered.mode_from,
        "source": gathered.objects.source,
        "zone": gathered.sides[0].world.node.zone,
        "families": [
            {
                "family": side.world.family,
                "cluster_cidrs": list(side.world.state.cluster_cidrs),
                "service_cidrs": list(side.world.state.service_cidrs),
                "node_ports": {
                    "everywhere": side.world.state.node_ports.everywhere,
                    "addresses": list(side.world.state.node_ports.addresses),
                    "localhost": side.world.state.node_ports.localhost,
                },
                "services": [
                    jsonable.service(one)
                    for one in views.service_views(side.world, side.endpoints)
                ],
            }
            for side in gathered.sides
        ],
        "ignored": _ignored(gathered),
        "problems": [jsonable.problem(one) for one in gathered.problems],
    }
    if held is not None:
        answer["kernel"] = jsonable.holdings(held)
    return answer


def _print(gathered: Gathered, held: Holdings | None) -> None:
    # Imported only where tables are drawn: it takes longer than all the rest.
    from rich.console import Console

    from kproxy.inspect import tables

    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    shown = [side for side in gathered.sides if side.world.state.services]
    for side in shown or gathered.sides[:1]:
        found = views.service_views(side.world, side.endpoints)
        console.print(tables.services_table(side.world, found))
    for name, why in _ignored(gathered).items():
        console.print(f"not served: {name}: {why}", markup=False, highlight=False)
    for problem in gathered.problems:
        console.print(f"problem: {problem}", style="red", markup=False, highlight=False)
    if held is not None:
        if held.virtual_servers:
            console.print(tables.virtual_servers_table(held))
        console.print(tables.counts_table(gathered.settings.mode, held))
