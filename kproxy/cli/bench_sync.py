"""``kproxy bench sync``: how fast a node proxy brings Services into the kernel.

Every figure stands beside a peer measured in the same kernel and run. With ``--kernel auto`` each
mode is measured on this machine's own kernel if that has it, and the others in an embedded kernel,
in real time.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from kproxy.cli import bench_place
from kproxy.cli.kernel_option import KernelChoice
from kproxy.lab import modes as labmodes
from kproxy.lab import syncbench, syncbench_proxy
from kproxy.lab.benchcluster import Size
from netns.kernels import base
from netns.lab import signals_unwind

STATE = "sync"


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
    default="100,1000,10000",
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
    "--runs", type=click.IntRange(min=1), default=3, show_default=True, help="Of each size."
)
@click.option(
    "--proxy-command",
    "commands",
    multiple=True,
    metavar="CMD",
    help="Another proxy to measure beside ours in the same way, with {kubeconfig}, {mode}, {node}"
    " and {config} in it. May be given several times.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not the table.")
@bench_place.kernel_options
def sync(
    modes: str,
    services: str,
    endpoints: int,
    runs: int,
    commands: Sequence[str],
    out: Path | None,
    as_json: bool,
    kernel: KernelChoice,
) -> int:
    """Measure cold, unchanged and partial syncs, starts and restarts, beside plain tools.

    Exit code 1 if something could not be measured; the rest is shown all the same.

    In an embedded kernel, which gets 3 GB at least, 10,000 services take half an hour.
    """
    wanted = labmodes.read(modes)
    plan = syncbench.Plan(
        modes=wanted,
        sizes=tuple(
            Size(number, endpoints)
            for number in bench_place.numbers(services, bench_place.LARGEST)
        ),
        commands=(syncbench_proxy.ours(), *map(syncbench_proxy.parse_command, commands)),
        runs=runs,
    )
    options = ["--services", services, "--endpoints", str(endpoints), "--runs", str(runs)]
    for command in commands:
        options += ["--proxy-command", command]
    bench = bench_place.Bench(
        name="sync", options=tuple(options), measure=_measurer(plan), memory=bench_place.MEMORY
    )
    document = bench_place.document(bench, wanted, kernel)
    bench_place.write(document, out)
    return bench_place.show(document, None if as_json else as_table(document))


def _measurer(plan: syncbench.Plan) -> bench_place.Measure:
    def measure(modes: tuple[str, ...]) -> bench_place.Measured:
        here = dataclasses.replace(plan, modes=modes)
        state = base.state_directory() / STATE
        with signals_unwind():
            rows, failures = syncbench.measure(
                here, state, bench_place.kernel_name(), bench_place.tell
            )
        return [msgspec.to_builtins(row) for row in rows], failures

    return measure


def as_table(document: Mapping[str, Any]) -> list[str]:
    """Return the rows as lines for a reader: milliseconds, median (min-max), beside the peer."""
    order = {step: number for number, step in enumerate(syncbench.STEPS)}
    rows = sorted(
        document["rows"],
        key=lambda row: (row["mode"], row["services"], row["proxy"], order[row["step"]]),
    )
    lines: list[str] = []
    group = None
    for row in rows:
        if group != (group := (row["mode"], row["services"], row["endpoints"], row["proxy"])):
            mode, services, endpoints, proxy = group
            head = f"{mode}, {services} × {endpoints}, {proxy} ({row['kernel']})"
            lines += ["", head] if lines else [head]
        lines.append(_line(row))
    return [*lines, "", bench_place.circumstances(document)]


def _line(row: Mapping[str, Any]) -> str:
    spread = f"({_ms(row['seconds_min'])}-{_ms(row['seconds_max'])})"
    peer = ""
    if row["peer"]:
        peer = f"  {row['ratio']:8.3f} × {row['peer']} {_ms(row['peer_seconds'])} ms"
    return (
        f"  {row['step']:<15} {_ms(row['seconds']):>9} ms {spread:<19}"
        f" cpu {row['cpu_seconds']:7.3f} s  {row['rss_mb']:5.0f} MB{peer}{_written(row)}"
    )


def _written(row: Mapping[str, Any]) -> str:
    """Return a remark where something was written although nothing had changed."""
    idle = row["step"] in syncbench.IDLE_STEPS
    return f"  WROTE {row['writes']} OBJECTS" if idle and row["writes"] else ""


def _ms(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
