"""The option ``--costs`` of every command that runs a lab in virtual time."""

from collections.abc import Callable
from typing import Any

import click


def costs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--costs``, as its argument ``costs``.

    On the lab's kernel the command hands it to ``kproxy.lab.costmodel.use``. None: not given.
    """
    return click.option(
        "--costs",
        metavar="default|none|FILE",
        help="What computing takes in virtual time: the model that ships with kproxy, nothing, or"
        " one made by `kproxy bench costs`.  [default: default; under other clocks none]",
    )(command)
