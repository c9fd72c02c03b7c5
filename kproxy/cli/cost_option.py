"""The option ``--costs`` of commands that measure in a lab, and the model that it means."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from netns.kernels import base

costs_option = click.option(
    "--costs",
    metavar="default|none|FILE",
    help="Cost model: what computing takes in virtual time.  [default: the one that is part of "
    "kproxy; none with another clock]",
)


def checked_model(costs: str | None) -> str | None:
    """Return the name of a model. A wrong file is told before a kernel is booted."""
    from kproxy import costfile
    from kproxy.lab import costmodel

    if costs not in (None, costmodel.DEFAULT, costmodel.NONE):
        costfile.read(Path(str(costs)))
    return costs


@contextlib.contextmanager
def cost_model(wanted: "dict[str, Any] | str | None") -> Iterator[None]:
    """Let the lab's processes pay a model's costs meanwhile: one by name, or a whole one."""
    from kproxy.lab import costmodel

    with contextlib.ExitStack() as stack:
        if isinstance(wanted, dict):
            # Models apply in virtual time only, so this is a file of an embedded kernel's memory.
            made = tempfile.TemporaryDirectory(prefix="kproxy-costs-")
            path = Path(stack.enter_context(made)) / "costs.json"
            path.write_text(json.dumps(wanted))
            wanted = str(path)
        costmodel.apply(costmodel.resolve(wanted, str(base.clock())))
        stack.callback(costmodel.apply, None)
        yield
