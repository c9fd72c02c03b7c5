"""``kproxy chain``: what the loss of each link costs, and who repairs it."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kproxy import errors
from kproxy.cli import compare_result, progress, reproducing
from kproxy.cli.cost_option import checked_model, cost_model, costs_option
from kproxy.cli.kernel_option import KernelChoice, lab_options, run_on_kernel, tell_kernel
from kproxy.cli.uplinks_option import on_this_machine, uplinks_options
from netns.kernels import base

if TYPE_CHECKING:
    from kproxy.cli.chain_job import Job
    from kproxy.lab.chain.settings import Parameters
    from kproxy.lab.chain.soak import Plan
    from kproxy.traffic.chainset import ChainSet
    from kproxy.traffic.soakset import SoakSet
    from netns.uplink import Uplink

MEMORY = "2G"
"""What an embedded kernel gets: etcd's members alone fill a third of it."""
TIME_PER_HOUR = 7200.0
"""Seconds that an hour of ``--random`` may take: a busy machine needs half an hour for it."""


@click.command()
@click.option(
    "--only",
    "--scenario",
    "names",
    multiple=True,
    metavar="LINK",
    help="Break only this link (repeatable); `--list` names them.",
)
@click.option(
    "--monitoring",
    is_flag=True,
    help="Break also what only monitoring catches, unwatched, remediated, and with the rules of "
    "kubernetes-mixin, whose 15 minutes are waited for: three times as long by the lab's clock.",
)
@click.option("--mode", "--modes", default="ipvs", show_default=True, help="Of the proxies.")
@click.option(
    "--random",
    "at_random",
    is_flag=True,
    help="Kill any process at random instead, while clients write; then look what is lost.",
)
@click.option(
    "--hours",
    default=2.0,
    show_default=True,
    help="How long, with --random; an embedded kernel then has twice as long, 60m at least, if "
    "no --time-limit is given.",
)
@click.option("--trials", default=1, show_default=True, help="Trials of every link.")
@click.option(
    "--profile",
    type=click.Choice(["production", "lab"]),
    default="production",
    show_default=True,
    help="Leases, periods and back-offs: those of production Kubernetes, or short ones.",
)
@click.option("--nodes", default=2, show_default=True, help="Nodes of the cluster.")
@click.option("--members", default=3, show_default=True, help="etcd members; 0: SQLite instead.")
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    metavar="PPS",
    help="UDP packets/s from each vantage point, over all flows.",
)
@uplinks_options
@costs_option
@reproducing.reproduce_option
@click.option(
    "--out",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for result.json; default: results/<time>.",
)
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of the table.")
@click.option("--list", "only_list", is_flag=True, help="Name the links and end.")
@click.option("--job", type=click.Path(path_type=Path), hidden=True)  # how a guest is told
@functools.partial(lab_options, memory=MEMORY)
def chain(
    job: Path | None,
    only_list: bool,
    reproduce: Path | None,
    costs: str | None,
    out: Path | None,
    as_json: bool,
    kernel: KernelChoice,
    **options: Any,
) -> int:
    """Break every link of the chain that keeps a Service available, and measure what that costs.

    Builds a whole cluster (three control planes, etcd, nodes, a load balancer), sends traffic from
    a pod's place on the hit node, from another node and from outside, changes something all the
    time, breaks one link, and counts: packets, connections, changes that wait, writes that are
    refused, pods that are not made; who noticed, who repaired.

    Exit code 1: the result is not valid (the baseline lost packets, a trial failed), with
    --reproduce a figure differs, with --random a promise was broken; 2: the command line is wrong.
    """
    if only_list:
        return _list()
    from kproxy.cli import chain_job, chain_parts, chain_result
    from kproxy.lab import facts

    if options["at_random"]:
        kernel = _patient(kernel, options["hours"])
    if job is not None:
        wanted = chain_job.read(job)
    else:
        wanted, kernel = _job(kernel, reproduce, costs, out, as_json, options)
        compare_result.make(Path(wanted.place))
        facts.tell_guest()
        if wanted.random is None and chain_parts.applies(kernel):
            wanted = _able(wanted)
            tell_kernel(kernel)
            with progress.shown() as tell:
                results = chain_parts.run(wanted, kernel, tell)
            return chain_result.finish(wanted, results)
    told = functools.partial(_tell, wanted)
    run_on_kernel(kernel, writable=[Path(wanted.place)], told=told)
    if wanted.random is not None:
        return chain_result.finish_random(wanted, _kill_at_random(wanted, wanted.random))
    return chain_result.finish(wanted, _measure(wanted))


def _list() -> int:
    from kproxy.lab.chain.table import LINKS

    width = max(len(name) for name in LINKS)
    for link in LINKS.values():
        click.echo(f"{link.name:{width}}  {link.summary}")
    return 0


def _patient(kernel: KernelChoice, hours: float) -> KernelChoice:
    """Return the choice with time enough, unless the user has said how much."""
    source = click.get_current_context().get_parameter_source("time_limit")
    if source is not click.core.ParameterSource.DEFAULT:
        return kernel
    time = max(kernel.limits.time, hours * TIME_PER_HOUR)
    return dataclasses.replace(kernel, limits=dataclasses.replace(kernel.limits, time=time))


def _job(
    kernel: KernelChoice,
    reproduce: Path | None,
    costs: str | None,
    out: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> "tuple[Job, KernelChoice]":
    """Return what the command line asks for, and on which kernel."""
    from kproxy.cli.chain_job import Job
    from kproxy.lab import costmodel
    from kproxy.lab.chain import reproduction, soak
    from kproxy.traffic import chainset

    model: str | dict[str, Any] | None
    if reproduce is not None:
        reproducing.refuse_beside(reproduce, out)
        recipe = reproduction.recipe(chainset.read(reproduce), reproduce)
        kernel = reproducing.same_kernel(kernel, recipe)
        parameters, model = recipe.parameters, recipe.cost_model or costmodel.NONE
    else:
        parameters, model = _parameters(**options), checked_model(costs)
    if parameters.uplinks:
        kernel = on_this_machine(kernel)
        parameters = dataclasses.replace(parameters, take_default_route=options["take_it"])
    plan = None
    if reproduce is None and options["at_random"]:
        plan = soak.Plan(hours=options["hours"], parameters=parameters)
        plan.check()
    job = Job(
        random=plan,
        parameters=parameters,
        named=reproduce is not None or bool(options["names"]),
        model=model,
        place=str((out or Path("results")).absolute()),
        fresh=out is None,
        as_json=as_json,
        reproduced=None if reproduce is None else str(reproduce.absolute()),
    )
    return job, kernel


def _refuse_together(names: tuple[str, ...], *, monitoring: bool, at_random: bool) -> None:
    """Raise UsageError for options of which only one can be meant."""
    if monitoring and names:
        raise errors.UsageError(
            "--monitoring beside --only: which of both?", remedy="name its faults with --only"
        )
    if at_random and (monitoring or names):
        other = "--monitoring" if monitoring else "--only"
        raise errors.UsageError(
            f"{other} beside --random, which breaks no link", remedy="leave one of them out"
        )


def _parameters(
    names: tuple[str, ...],
    monitoring: bool,
    at_random: bool,
    mode: str,
    trials: int,
    profile: str,
    nodes: int,
    members: int,
    rate: float,
    uplinks: "dict[str, Uplink]",
    take_it: bool,
    **others: Any,
) -> "Parameters":
    from kproxy.lab.chain import table
    from kproxy.lab.chain.settings import RATES, Parameters
    from kproxy.lab.clusterfile import Profile

    _refuse_together(names, monitoring=monitoring, at_random=at_random)
    parameters = Parameters(
        links=table.named(names) or table.names(monitoring=monitoring),
        mode=mode,
        trials=trials,
        profile=Profile(profile),
        nodes=nodes,
        members=members,
        uplinks=uplinks,
        take_default_route=take_it,
        rates=dataclasses.replace(RATES, udp_pps=rate),
    )
    parameters.check()
    return parameters


def _able(job: "Job") -> "Job":
    """Return the job with what this machine can do of it, and say what it cannot."""
    from kproxy.lab.chain import settings

    able = settings.able(job.parameters, named=job.named)
    for name, why in able.left_out.items():
        click.echo(f"kproxy: left out: {name}: {why}", err=True)
    return dataclasses.replace(job, parameters=able)


def _tell(job: "Job", directory: Path, clock: base.Clock) -> list[str]:
    """Write a job into a directory; return the words of the command line that runs it."""
    from kproxy.cli import chain_job

    path = chain_job.write(chain_job.whole_model(job, clock), directory)
    return ["-m", "kproxy", "chain", "--job", str(path)]


def _measure(job: "Job") -> "ChainSet":
    """Measure on the kernel where we are."""
    from kproxy.lab.chain import run
    from netns.lab import signals_unwind

    if not job.part:
        job = _able(job)
    _check_mode(job.parameters.mode)
    state = base.state_directory("kproxy") / "lab"
    shown = progress.shown(part=job.part)
    with cost_model(job.model), signals_unwind(), shown as told:
        return run.run(job.parameters, state, progress=told)


def _kill_at_random(job: "Job", plan: "Plan") -> "SoakSet":
    """Kill at random on the kernel where we are."""
    from kproxy.lab.chain import settings, soak
    from netns.lab import signals_unwind

    if plan.parameters.members and not settings.has_etcd():
        raise errors.UsageError(settings.ETCD_MISSING, remedy="or use --members 0")
    _check_mode(plan.parameters.mode)
    state = base.state_directory("kproxy") / "lab"
    with cost_model(job.model), signals_unwind(), progress.shown() as told:
        return soak.run(plan, state, progress=told)


def _check_mode(mode: str) -> None:
    """Raise UsageError if this kernel cannot do a mode."""
    from kproxy.lab import modes

    why = modes.unsupported(mode)
    if why is not None:
        raise errors.UsageError(
            f"--mode {mode}: not on this kernel: {why}", remedy="use --kernel uml"
        )
