"""What ``--reproduce`` adds to a command: the options that it rules out, and on which kernel."""

import dataclasses
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from kproxy import errors
from kproxy.cli.kernel_option import KernelChoice
from netns.kernels import base, choice

if TYPE_CHECKING:
    from kproxy.lab.comparison import Parameters
    from kproxy.lab.workload import Workload
    from kproxy.traffic.resultset import ResultSet


reproduce_option = click.option(
    "--reproduce",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run again what made this result.json, and tell every figure that differs.",
)


def refuse_beside(path: Path, out: Path | None) -> None:
    """Raise UsageError for options that the result file decides, or that would replace it."""
    if out is not None and (out / "result.json").absolute() == path.absolute():
        raise errors.UsageError(
            f"--out {out}: that would replace {path}", remedy="name another directory"
        )
    context = click.get_current_context()
    decided = {"filenames", "scenario_names", "modes", "trials", "rate", "nodes", "costs"}
    decided |= {"old", "new", "policies", "node_rules", "uplinks"}
    decided |= {"names", "monitoring", "at_random", "hours", "mode", "profile", "members"}
    for name in sorted(decided):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = next(p.opts[-1] for p in context.command.params if p.name == name)
            raise errors.UsageError(
                f"{option}: with --reproduce the result file decides this", remedy="leave it out"
            )


def again(
    before: "ResultSet", path: Path, kernel: KernelChoice
) -> "tuple[Parameters, Workload, KernelChoice, dict[str, Any] | str | None]":
    """Return what made a result, with its clock and its seed."""
    from kproxy.lab import costmodel, reproduction

    recipe = reproduction.recipe(before, path)
    wanted = same_kernel(kernel, recipe)
    return recipe.parameters, recipe.workload, wanted, recipe.cost_model or costmodel.NONE


class _Recipe(Protocol):
    """What is needed of a recipe, whatever it is for."""

    @property
    def clock(self) -> base.Clock: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def kernel(self) -> str | None: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def release(self) -> str: ...


def same_kernel(kernel: KernelChoice, recipe: _Recipe) -> KernelChoice:
    """Return the kernel on which a result was made, with its clock and seed; say if it is not."""
    wanted = dataclasses.replace(kernel, clock=recipe.clock, seed=recipe.seed)
    if not base.inside_guest():
        return _same_kernel(wanted, recipe.kernel, recipe.memory)
    if platform.release() != recipe.release:
        click.echo(
            f"kproxy: note: made on kernel {recipe.release}, now on {platform.release()}", err=True
        )
    return wanted


def _same_kernel(kernel: KernelChoice, name: str | None, memory: int | None) -> KernelChoice:
    """Return the kernel a result was made on with its memory, where the user names no other."""
    source = click.get_current_context().get_parameter_source
    default = click.core.ParameterSource.DEFAULT
    if name and source("kernel") is default:
        if name in choice.names():
            kernel = dataclasses.replace(kernel, name=name)
        else:
            click.echo(f"kproxy: note: made on kernel {name}, which is not here", err=True)
    if memory and source("memory") is default:
        limits = dataclasses.replace(kernel.limits, memory=memory)
        kernel = dataclasses.replace(kernel, limits=limits)
    return kernel
