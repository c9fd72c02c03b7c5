"""The options with which every ``kproxy lab`` command finds its lab."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kproxy import errors
from kproxy.lab.clusterfile import NAME, NAME_REMEDY, ClusterFile
from kproxy.lab.door.directory import LabDirectory, every
from netns.kernels import base


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options ``--name`` and ``--state-dir``.

    It gets them as ``name`` (None: not given) and ``place`` (the directory of all labs).
    """

    @click.option("--name", metavar="NAME", help="Which lab.  [default: the one that is up]")
    @click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Directory of all labs.  [default: `labs` in $KPROXY_STATE_DIR or /run/kproxy]",
    )
    @functools.wraps(command)
    def with_place(*args: Any, name: str | None, state_dir: Path | None, **options: Any) -> Any:
        place = state_dir or base.state_directory() / "labs"
        if name is not None and not NAME.fullmatch(name):
            raise errors.UsageError(f"--name {name!r}", remedy=NAME_REMEDY)
        return command(*args, name=name, place=place.absolute(), **options)

    return with_place


def find(place: Path, name: str | None) -> LabDirectory:
    """Return the directory of a lab; without a name that of the only one that is up."""
    if name is not None:
        return LabDirectory(place / name)
    live = [one for one in every(place) if one.owner() is not None]
    if len(live) > 1:
        names = ", ".join(one.name for one in live)
        raise errors.UsageError(f"{len(live)} labs are up: {names}", remedy="choose one by --name")
    return live[0] if live else LabDirectory(place / ClusterFile().name)
