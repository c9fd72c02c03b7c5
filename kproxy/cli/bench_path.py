"""``kproxy bench path``: what a connection costs by the number of services, and without a proxy.

With ``--kernel auto`` each mode is measured on this machine's own kernel if that has it, and the
others in an embedded kernel; in real time only: under a virtual clock packets cost nothing.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from kproxy.cli import bench_place
from kproxy.cli.kernel_option import KernelChoice
from kproxy.lab import modes as labmodes
from kproxy.lab import pathbench
from kproxy.lab.benchcluster import Size
from netns.kernels import base
from netns.lab import signals_unwind

STATE = "path"


@click.command()
@click.option(
    "--modes",
    default=",".join(labmodes.MODES),
    show_default=True,
    metavar="MODE[,MODE]",
    help="Modes of the proxy to measure.",
)
@click.option(
    "--services",
    default="1,100,1000,10000",
    show_default=True,
    metavar="N[,N]",
    help="Sizes: how many Services.",
)
@click.option(
    "--endpoints",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Of each Service.",
)
@click.option(
    "--samples",
    type=click.IntRange(100, 100_000),
    default=2000,
    show_default=True,
    help="Connections to each target.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not the table.")
@bench_place.kernel_options
def path(
    modes: str,
    services: str,
    endpoints: int,
    samples: int,
    out: Path | None,
    as_json: bool,
    kernel: KernelChoice,
) -> int:
    """Measure first packets and connections to the first and the last service.

    Exit code 1 if something could not be measured; the rest is shown all the same.

    An embedded kernel gets 3 GB at least.
    """
    wanted = labmodes.read(modes)
    numbers = bench_place.numbers(services, bench_place.LARGEST)
    plan = pathbench.Plan(
        modes=wanted, sizes=tuple(Size(number, endpoints) for number in numbers), samples=samples
    )
    options = ("--services", services, "--endpoints", str(endpoints), "--samples", str(samples))
    bench = bench_place.Bench(
        name="path", options=options, measure=_measurer(plan), memory=bench_place.MEMORY
    )
    document = bench_place.document(bench, wanted, kernel)
    bench_place.write(document, out)
    return bench_place.show(document, None if as_json else as_table(document))


def _measurer(plan: pathbench.Plan) -> bench_place.Measure:
    def measure(modes: tuple[str, ...]) -> bench_place.Measured:
        here = dataclasses.replace(plan, modes=modes)
        state = base.state_directory() / STATE
        with signals_unwind():
            rows, failures = pathbench.measure(
                here, state, bench_place.kernel_name(), bench_place.tell
            )
        return [msgspec.to_builtins(row) for row in rows], failures

    return measure


def as_table(document: Mapping[str, Any]) -> list[str]:
    """Return the rows as lines for a reader: microseconds, p50 and p99, beside no proxy."""
    lines: list[str] = []
    group = None
    order = (pathbench.FIRST_PACKET, pathbench.CONNECT)
    rows = sorted(
        document["rows"], key=lambda row: (row["mode"], order.index(row["step"]), row["services"])
    )
    for row in rows:
        if group != (group := (row["mode"], row["step"])):
            head = f"{row['mode']}, {row['step']} ({row['kernel']}), µs: p50 / p99"
            lines += ["", head] if lines else [head]
        lines.append(
            f"  {row['services']:>6} × {row['endpoints']:<3} {row['target']:<14}"
            f" {row['seconds'] * 1e6:7.1f} / {row['p99_seconds'] * 1e6:8.1f}"
            f"   {row['ratio']:6.2f} × no proxy"
            f" {row['peer_seconds'] * 1e6:7.1f} / {row['peer_p99_seconds'] * 1e6:8.1f}"
        )
    return [*lines, "", bench_place.circumstances(document)]
