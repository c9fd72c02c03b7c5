"""The options of every command that needs a kernel, and the step onto that kernel.

A command is decorated with :func:`kernel_options` (it measures what this machine can do) or
:func:`lab_options` (it runs a lab, whose clock may be another than the world's) and calls
:func:`run_on_kernel` before it does anything else. On the wanted kernel that call returns at once;
otherwise the same command line runs on the wanted kernel, and this process ends with its exit
code. So there is no second code path.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import kproxy
from kproxy import errors
from kproxy.cli import jobdirectory
from netns import errors as netns_errors
from netns.kernels import base, choice, clocks, quantities

PACKAGE = Path(kproxy.__file__).parent
MEMORY = "1G"
"""What an embedded kernel gets if nobody says how much."""
VIRTUAL_IF_POSSIBLE = "virtual where the kernel can"

Told = Callable[[Path, base.Clock], Sequence[str]]
"""Returns what the interpreter is to run in an embedded kernel, for a directory and a clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChoice:
    """What the user asked for. ``name`` is one of ``choice.names()``.

    ``clock`` None is the virtual one where the kernel has it; ``seed`` None is the default one of
    the clock.
    """

    name: str = choice.AUTO
    limits: base.Limits = field(default_factory=base.Limits)
    clock: base.Clock | None = base.Clock.REAL
    seed: int | None = None


class Quantity(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # not generic in older click
    """An amount with a unit, as ``parse`` reads it."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the amount in the base unit, or fail with the reason."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class KernelName(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # not generic in older click
    """The name of a kernel that is here."""

    name = "kernel"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Return the name, or fail with those that there are."""
        if base.inside_guest():  # it was accepted outside
            return str(value)
        there = choice.names()
        if value not in there:
            self.fail(f"no kernel {value!r} here; there are: {', '.join(there)}", param, ctx)
        return str(value)


def kernel_options(command: Callable[..., Any], *, memory: str = MEMORY) -> Callable[..., Any]:
    """Give a command the options ``--kernel``, ``--memory`` and ``--time-limit``.

    The command gets them as one argument, ``kernel`` (a :class:`KernelChoice`). ``memory`` is how
    much an embedded kernel gets where the user does not say.
    """

    @click.option(
        "--kernel",
        type=KernelName(),
        default=choice.AUTO,
        show_default=True,
        metavar="auto|native|uml|NAME",
        help="Where to run: on this machine's kernel, on User-Mode Linux, on whichever of them "
        "can do it, or on one that `kproxy kernel list` names.",
    )
    @click.option(
        "--memory",
        type=Quantity("size", quantities.parse_memory),
        default=memory,
        show_default=True,
        help="Memory of an embedded kernel.",
    )
    @click.option(
        "--time-limit",
        type=Quantity("time", quantities.parse_time),
        default="60m",
        show_default=True,
        help="After this time an embedded kernel is ended.",
    )
    @functools.wraps(command)
    def with_kernel(
        *args: Any, kernel: str, memory: int, time_limit: float, **options: Any
    ) -> Any:
        limits = base.Limits(memory=memory, time=time_limit)
        return command(*args, kernel=KernelChoice(name=kernel, limits=limits), **options)

    return with_kernel


def lab_options(
    command: Callable[..., Any], *, memory: str = MEMORY, clock: base.Clock | None = None
) -> Callable[..., Any]:
    """Give a command the options ``--clock``, ``--seed``, ``--stall``, and those of every kernel.

    The command gets them as one argument, ``kernel`` (a :class:`KernelChoice`). ``memory`` and
    ``clock``: where the user does not say; None: virtual where the kernel can.
    """

    @click.option(
        "--clock",
        type=click.Choice([str(one) for one in base.Clock]),
        default=clock and str(clock),
        help="The lab's clock: the world's, one that jumps while all wait, or one that only timers"
        f" move, so that every run is the same.  [default: {clock or VIRTUAL_IF_POSSIBLE}]",
    )
    @click.option(
        "--seed",
        type=Quantity("number", clocks.parse_seed),
        help="Of all that is random.  [default: 1; with the real clock none]",
    )
    @click.option(
        "--stall",
        type=Quantity("time", quantities.parse_time),
        default="60s",
        show_default=True,
        help="CPU time after which a lab is ended whose virtual clock stands still.",
    )
    @functools.partial(kernel_options, memory=memory)
    @functools.wraps(command)
    def with_clock(
        *args: Any,
        kernel: KernelChoice,
        clock: str | None,
        seed: int | None,
        stall: float,
        **options: Any,
    ) -> Any:
        limits = dataclasses.replace(kernel.limits, stall=stall)
        found = base.Clock(clock) if clock else None
        chosen = dataclasses.replace(kernel, clock=found, seed=seed, limits=limits)
        return command(*args, kernel=chosen, **options)

    return with_clock


@contextlib.contextmanager
def _telling(command: base.Command, told: Told | None) -> Iterator[base.Command]:
    """Return a command with other words, and a directory for what they name."""
    if told is None:
        yield command
        return
    with jobdirectory.made(base.state_directory()) as place:
        words = told(place, command.clock)
        yield dataclasses.replace(
            command, argv=(sys.executable, *words), writable=(*command.writable, place)
        )


def chosen_kernel(kernel: KernelChoice) -> tuple[base.Provider, base.Clock]:
    """Return which kernel that is, and its clock. Raises UsageError if it cannot be used."""
    try:
        chosen, clock = clocks.choose(kernel.name, kernel.clock)
    except netns_errors.KernelUnusable as error:
        raise errors.UsageError(error.message, remedy=error.remedy) from None
    return chosen.provider, clock


def tell_kernel(kernel: KernelChoice) -> None:
    """Say in one line if another kernel than this machine's is used, and why."""
    chosen, clock = clocks.choose(kernel.name, kernel.clock)
    seed = clocks.default_seed(clock) if kernel.seed is None else kernel.seed
    used = clocks.in_words(chosen.provider, clock, seed)
    if chosen.because:
        click.echo(f"kproxy: {chosen.because}; using {used}", err=True)
    elif kernel.name == chosen.provider.name:  # of that kind there may be several
        click.echo(f"kproxy: using {used}", err=True)


def run_on_kernel(
    kernel: KernelChoice,
    *,
    writable: Sequence[Path] = (),
    told: Told | None = None,
) -> None:
    """Return if this process runs on the wanted kernel; otherwise run it there and exit.

    ``writable`` are the directories (made if absent) in which the command leaves its results;
    inside an embedded kernel everything else of the host is read-only. ``told``: what runs in an
    embedded kernel instead of this command line; it may leave files in its directory, which goes
    in the end. Says in one line on
    standard error if another kernel than this machine's is used, and why. Raises UsageError if
    the wanted kernel cannot be used, or has no such clock. Exit code 125 if an embedded kernel
    fails, 124 if its time is over, 130 if it is interrupted twice.
    """
    if base.inside_guest():
        return
    from kproxy.lab import facts

    try:
        chosen, clock = clocks.choose(kernel.name, kernel.clock)
        seed = clocks.default_seed(clock) if kernel.seed is None else kernel.seed
        if chosen.provider.name == "native" and seed in (None, base.seed()):
            return
        tell_kernel(kernel)
        facts.tell_kernel(chosen.provider.kernel_name, kernel.limits.memory)
        command = base.Command(
            argv=(sys.executable, *sys.orig_argv[1:]),
            writable=tuple(writable),
            packages=(PACKAGE,),
            clock=clock,
            seed=seed,
        )
        with _telling(command, told if chosen.provider.name != "native" else None) as command:
            code = chosen.provider.run(command, kernel.limits)
    except netns_errors.KernelUnusable as error:
        raise errors.UsageError(error.message, remedy=error.remedy) from None
    except netns_errors.GuestFailed as failure:
        click.echo("\n".join(failure.lines("kproxy")), err=True)
        code = failure.exit_code
    sys.exit(code)
