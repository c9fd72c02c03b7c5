"""``kproxy compare``: what each event costs in packets, mode against mode."""

import dataclasses
import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kproxy import errors
from kproxy.cli import compare_result, progress, reproducing
from kproxy.cli.cost_option import checked_model, cost_model, costs_option
from kproxy.cli.kernel_option import (
    KernelChoice,
    lab_options,
    run_on_kernel,
    tell_kernel,
)
from kproxy.cli.uplinks_option import on_this_machine, uplinks_options

if TYPE_CHECKING:
    from kproxy.cli.compare_job import Job
    from kproxy.lab.comparison import Parameters
    from kproxy.lab.workload import Workload
    from kproxy.traffic.resultset import ResultSet
    from netns.uplink import Uplink


@click.command()
@click.option(
    "-f",
    "--filename",
    "filenames",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Kubernetes manifests to run (Deployments, Services); default: a small shop.",
)
@click.option(
    "--scenario",
    "scenario_names",
    multiple=True,
    metavar="NAME",
    help="Run only this scenario (repeatable); `--list` names them.",
)
@click.option("--from", "old", default="", metavar="MODE", help="mode-switch: the mode before.")
@click.option("--to", "new", default="", metavar="MODE", help="mode-switch: the mode after.")
@click.option(
    "--node-rules",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="nft rules that every node has from the start, as of a CNI plug-in.",
)
@click.option(
    "--policy",
    "policies",
    metavar="POLICY[,POLICY]",
    default="keep",
    show_default=True,
    help="What a proxy's restart does to its rules: keep, flush-at-start, cleanup-at-exit.",
)
@click.option(
    "--modes",
    metavar="MODE[,MODE]",
    help="Modes of the proxy to compare.  [default: all that the kernel can do]",
)
@click.option("--trials", default=3, show_default=True, help="Trials of every scenario.")
@click.option(
    "--rate",
    default=2000.0,
    show_default=True,
    metavar="PPS",
    help="UDP packets/s from each of the two nodes, over all flows.",
)
@click.option("--nodes", default=2, show_default=True, help="Nodes of the cluster.")
@uplinks_options
@costs_option
@reproducing.reproduce_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for result.json; default: results/<time>.",
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of the tables.")
@click.option("--list", "only_list", is_flag=True, help="Name the scenarios and end.")
@click.option("--job", type=click.Path(path_type=Path), hidden=True)  # how a guest is told
@lab_options
def compare(
    job: Path | None,
    filenames: tuple[Path, ...],
    reproduce: Path | None,
    costs: str | None,
    out: Path | None,
    as_json: bool,
    only_list: bool,
    kernel: KernelChoice,
    **options: Any,
) -> int:
    """Measure what a restart, crash or update of the proxy costs, in each mode.

    Builds a cluster of network namespaces, sends traffic through its services from two nodes,
    does something to one of them, and counts what was lost. Ends with tables and result.json.

    `--scenario mode-switch` changes the mode of a node, in three ways, from each of the modes to
    each other one; it is left out where no scenario is named.

    Exit code 1: the result is not valid (the baseline lost packets, a trial failed), or with
    --reproduce a figure differs; 2: an object of the manifests was left out, or the command line
    is wrong.
    """
    if only_list:
        return _list()
    from kproxy.cli import compare_job, compare_parts
    from kproxy.lab import facts

    if job is None:
        wanted, kernel = _job(kernel, filenames, reproduce, costs, out, as_json, options)
        compare_result.make(Path(wanted.place))
        facts.tell_guest()
        if compare_parts.applies(wanted, kernel):
            tell_kernel(kernel)
            _tell_notes(wanted.load)
            with progress.shown() as tell:
                results = compare_parts.run(wanted, kernel, tell)
            return compare_result.finish(wanted, results)
    else:
        wanted = compare_job.read(job)
    told = functools.partial(compare_job.tell, wanted)
    run_on_kernel(kernel, writable=[Path(wanted.place)], told=told)
    return compare_result.finish(wanted, _measure(wanted))


def _job(
    kernel: KernelChoice,
    filenames: tuple[Path, ...],
    reproduce: Path | None,
    costs: str | None,
    out: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> "tuple[Job, KernelChoice]":
    """Return what the command line asks for, and on which kernel."""
    from kproxy.cli.compare_job import Job
    from kproxy.traffic import resultset

    problems: list[errors.InvalidObject] = []
    model: str | dict[str, Any] | None
    if reproduce is not None:
        reproducing.refuse_beside(reproduce, out)
        before = resultset.read(reproduce)
        parameters, load, kernel, model = reproducing.again(before, reproduce, kernel)
    else:
        parameters = _parameters(**options)
        load, problems = _workload(filenames)
        model = checked_model(costs)
    if parameters.uplinks:
        kernel = on_this_machine(kernel)
        parameters = dataclasses.replace(parameters, take_default_route=options["take_it"])
    job = Job(
        parameters=parameters,
        load=load,
        named=reproduce is not None or options["modes"] is not None,
        model=model,
        place=str((out or Path("results")).absolute()),
        fresh=out is None,
        as_json=as_json,
        reproduced=None if reproduce is None else str(reproduce.absolute()),
        problems=tuple(map(str, problems)),
    )
    return job, kernel


def _measure(job: "Job") -> "ResultSet":
    """Measure on the kernel where we are."""
    parameters = _able(job.parameters, named=job.named)
    if not job.part:
        _tell_notes(job.load)
    with cost_model(job.model):
        return _run(parameters, job.load, part=job.part)


def _tell_notes(load: "Workload") -> None:
    for note in load.notes:
        click.echo(f"kproxy: note: {note}", err=True)


def _parameters(
    scenario_names: tuple[str, ...],
    modes: str | None,
    old: str,
    new: str,
    node_rules: Path | None,
    policies: str,
    trials: int,
    rate: float,
    nodes: int,
    uplinks: "dict[str, Uplink]",
    take_it: bool,
) -> "Parameters":
    from kproxy.lab import comparison, generators, setups, switching
    from kproxy.lab import modes as labmodes

    names = switching.expanded(scenario_names) or comparison.Parameters().scenarios
    wanted = labmodes.MODES if modes is None else labmodes.read(modes)
    parameters = comparison.Parameters(
        modes=wanted,
        policies=setups.policies(_words(policies)),
        pairs=_pairs(names, wanted, old, new),
        node_rules=_text("--node-rules", node_rules),
        scenarios=names,
        trials=trials,
        nodes=nodes,
        uplinks=uplinks,
        take_default_route=take_it,
        rates=generators.Rates(udp_pps=rate),
    )
    parameters.check()
    return parameters


def _pairs(
    names: Sequence[str], modes: Sequence[str], old: str, new: str
) -> tuple[tuple[str, str], ...]:
    """Return between which modes a node is switched, in the scenarios that do it."""
    from kproxy.lab import setups, switching

    if any(name in switching.WAYS for name in names):
        return setups.pairs(modes, old, new)
    if old or new:
        raise errors.UsageError(
            f"{'--from' if old else '--to'}: only a change of mode has that",
            remedy=f"add --scenario {switching.NAME}",
        )
    return ()


def _text(option: str, path: Path | None) -> str:
    """Return what a file holds; nothing without one. Raises UsageError."""
    try:
        return path.read_text() if path is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageError(f"{option} {path}: {error}") from None


def _words(text: str) -> tuple[str, ...]:
    """Return what a list with commas names, each once."""
    return tuple(dict.fromkeys(word for word in text.split(",") if word))


def _able(parameters: "Parameters", *, named: bool) -> "Parameters":
    """Leave out the modes that this kernel lacks, and say so.

    Raises UsageError if none is left, or if one that was ``named`` is lacking.
    """
    from kproxy.lab import modes

    lacking = modes.lacking(parameters.modes)
    if lacking and named:
        raise errors.UsageError(
            "; ".join(f"mode {mode}: not on this kernel: {why}" for mode, why in lacking.items()),
            remedy="leave it out of --modes, or use --kernel uml",
        )
    for mode, why in lacking.items():
        click.echo(f"kproxy: not on this kernel: mode {mode}: {why}", err=True)
    able = tuple(mode for mode in parameters.modes if mode not in lacking)
    pairs = tuple(pair for pair in parameters.pairs if not lacking.keys() & {*pair})
    if not able or (parameters.pairs and not pairs):
        raise errors.UsageError(
            "this kernel can do nothing of what is compared",
            remedy="see kproxy doctor, or use --kernel uml",
        )
    left_out = tuple(f"mode {mode}: {why}" for mode, why in lacking.items())
    return dataclasses.replace(parameters, modes=able, pairs=pairs, left_out=left_out)


def _list() -> int:
    from kproxy.lab import scenarios, switching

    summaries = {
        **{name: one.summary for name, one in scenarios.SCENARIOS.items()},
        switching.NAME: "Change the mode of a node under traffic, in each of these ways:",
        **{name: one.summary for name, one in switching.WAYS.items()},
    }
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        click.echo(f"{name:{width}}  {summary}")
    return 0


def _workload(filenames: tuple[Path, ...]) -> "tuple[Workload, list[errors.InvalidObject]]":
    """Read the manifests; objects with mistakes are left out and returned as problems."""
    from kproxy.api import manifests
    from kproxy.lab import plan, workload

    if filenames:
        found, problems = manifests.load_manifests(*filenames)
    else:
        text = resources.files("kproxy.lab").joinpath("examples/shop.yaml").read_text()
        found, problems = manifests.load_manifests(text)
    found, unfit = workload.runnable(found, plan.SERVICE_CIDR)
    problems += unfit
    try:
        return workload.prepare(found), problems
    except errors.KproxyError:
        for problem in problems:
            click.echo(f"kproxy: left out: {problem}", err=True)
        raise


def _run(parameters: "Parameters", load: "Workload", *, part: bool) -> "ResultSet":
    from kproxy.lab import comparison
    from netns.kernels.base import state_directory
    from netns.lab import signals_unwind

    with signals_unwind(), progress.shown(part=part) as told:
        return comparison.run(parameters, load, state_directory("kproxy") / "lab", progress=told)
