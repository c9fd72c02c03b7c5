"""The programs written in Go that a lab runs unmodified, and how they do the same twice.

In virtual time a lab runs copies that do not read the processor's cycle counter
(:mod:`netns.kernels.cyclecounter`); otherwise it runs what is installed.
"""

import shutil
from enum import StrEnum
from pathlib import Path

from kproxy import errors
from netns.kernels import base, cyclecounter


class Program(StrEnum):
    """One of them, by the name of the copy."""

    ETCD = "etcd"
    PROMETHEUS = "prometheus"
    ALERTMANAGER = "alertmanager"
    NODE_EXPORTER = "node_exporter"


MONITORS = (Program.PROMETHEUS, Program.ALERTMANAGER, Program.NODE_EXPORTER)
_DEBIANS = {
    Program.ALERTMANAGER: "prometheus-alertmanager",
    Program.NODE_EXPORTER: "prometheus-node-exporter",
}
_OPTIONS = dict.fromkeys(MONITORS, "--monitoring") | {Program.ETCD: "--etcd"}


def installed(program: Program) -> Path:
    """Return where a program is, by its own name or Debian's. Raises Unsupported."""
    for name in (_DEBIANS.get(program, ""), str(program)):
        if found := name and shutil.which(name):
            return Path(found)
    remedy = f"run scripts/install {_OPTIONS[program]}"
    raise errors.Unsupported(f"{program} is not installed", remedy=remedy)


def path(program: Program, directory: Path) -> str:
    """Return what is run; ``directory`` is that of the copies."""
    if base.clock() is base.Clock.VIRTUAL:
        return str(directory / program)
    try:
        return str(installed(program))
    except errors.Unsupported:
        return str(program)  # that it is missing is told by prepare()


def prepare(program: Program, directory: Path) -> bool:
    """Make the copy, once, if one is run; return whether two runs of it are the same.

    Raises Unsupported if the program is not installed.
    """
    original = installed(program)
    if base.clock() is not base.Clock.VIRTUAL:
        return True
    directory.mkdir(exist_ok=True)
    return cyclecounter.without(original, directory / program)
