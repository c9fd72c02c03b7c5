"""``kproxy bench controlplane``: how much control plane fits on this machine."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kproxy.lab import facts, planebench


@click.command()
@click.option("--nodes", default=50, show_default=True, help="Kubelets, with fake containers.")
@click.option("--pods", default=1000, show_default=True, help="In all.")
@click.option("--services", default=500, show_default=True, help="Each with a Deployment.")
@click.option("--watchers", default=100, show_default=True, help="Watches of the same objects.")
@click.option("--events", default=200, show_default=True, help="Writes that they are to hear of.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, not the table.")
def controlplane(out: Path | None, as_json: bool, **numbers: int) -> int:
    """Start a control plane with many nodes, and measure how long it takes and what it needs.

    One API server over SQLite, a manager, a scheduler and the kubelets, as processes on the
    loopback interface, under the real clock. Exit code 1 if something was not ready in time.
    """
    size = planebench.Size(**numbers)
    size.check()
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as place:
        found = planebench.run(size, Path(place), lambda text: click.echo(text, err=True))
    document = {"format": "kproxy.bench.controlplane/1", "host": facts.host(), **found}
    text = json.dumps(document, indent=2)
    if out is not None:
        out.write_text(text + "\n")
    click.echo(text if as_json else "\n".join(as_table(document)))
    return 0


def as_table(document: Mapping[str, Any]) -> list[str]:
    """Return the document as lines for a reader."""
    size, watch = document["size"], document["watch"]
    lines = [f"{size['nodes']} nodes, {size['pods']} pods, {size['services']} services"]
    lines += [f"  {name:<20} {seconds:8.1f} s" for name, seconds in document["start_s"].items()]
    if watch is not None:
        lines += [
            f"{watch['watchers']} watchers; {watch['writes']} writes,"
            f" {watch['writes_per_s']:.0f}/s",
            f"  heard {watch['heard_per_s']:,.0f} events/s; late by {watch['late_ms_p50']:g} ms "
            f"(p50), {watch['late_ms_p99']:g} ms (p99)",
        ]
    lines.append(f"store {document['store_mb']:g} MB")
    for row in document["commits"]:
        lines.append(
            f"  {row['writers']} writing: {row['commits_per_s']:,.0f} commits/s, "
            f"{row['commit_ms_p50']:g} ms (p50), {row['commit_ms_p99']:g} ms (p99)"
        )
    memory = ", ".join(f"{name} {mb:.0f}" for name, mb in document["memory_mb"].items())
    lines.append(f"memory (MB): {memory}")
    load = ", ".join(f"{one:.1f}" for one in document["load_average_before"])
    lines.append(f"load average before: {load}; {document['host']['cpus']} CPUs")
    return lines
