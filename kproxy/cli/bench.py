"""``kproxy bench``: how fast the parts are, as ratios to a peer measured in the same run."""

import click

from kproxy.cli.main import LazyGroup

COMMANDS = {
    "controlplane": "kproxy.cli.bench_controlplane:controlplane",
    "costs": "kproxy.cli.bench_costs:costs",
    "ipvs": "kproxy.cli.bench_ipvs:ipvs",
    "path": "kproxy.cli.bench_path:path",
    "sync": "kproxy.cli.bench_sync:sync",
    "traffic": "kproxy.cli.bench_traffic:traffic",
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def bench() -> None:
    """Measure the speed of one part, beside a peer in the same kernel."""
