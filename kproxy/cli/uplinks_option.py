"""The options that put a lab's hosts on network cards of this machine."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import click

from kproxy import errors
from kproxy.cli.kernel_option import KernelChoice
from netns.kernels import base, choice, native

take_option = click.option(
    "--yes-take-it",
    "take_it",
    is_flag=True,
    help="Take a card even if this machine's default route goes over it.",
)


def uplinks_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--uplinks`` and ``--yes-take-it``.

    It gets them as ``uplinks`` (a dict, empty: not given) and ``take_it``.
    """

    @click.option(
        "--uplinks",
        metavar="HOST=CARD[,HOST=CARD]|FILE",
        help="Put hosts on network cards: node1=eth1,client=eth2; after the card may be "
        ":macvlan or :vf (docs/hardware.md).",
    )
    @take_option
    @functools.wraps(command)
    def with_uplinks(*args: Any, uplinks: str | None, **options: Any) -> Any:
        from kproxy.lab.uplinks import option

        return command(*args, uplinks=option(uplinks) if uplinks else {}, **options)

    return with_uplinks


def on_this_machine(kernel: KernelChoice) -> KernelChoice:
    """Return the kernel that has this machine's cards. Raises UsageError if another is named."""
    if base.inside_guest():
        return kernel
    clock = kernel.clock or base.Clock.REAL
    if kernel.name not in (choice.AUTO, native.NAME) or clock is not base.Clock.REAL:
        raise errors.UsageError(
            "an embedded kernel has none of this machine's network cards",
            remedy="use --kernel native and the real clock, or leave the cards out",
        )
    return dataclasses.replace(kernel, name=native.NAME, clock=clock)
