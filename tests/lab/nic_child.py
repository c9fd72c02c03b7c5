"""Programs that the tests of network cards start and kill: ``nic_child.py NAME ARGUMENTS``."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import simulated_cards as cards

from netns import ethtool, journal, lab, link, namespace, nic, nicstate

CHANGES = (
    (journal.Journal, "append"),
    (ethtool.Ethtool, "change"),
    (ethtool.Ethtool, "change_features"),
    (nicstate, "change"),
    (nicstate, "_give_address"),
    (nicstate, "_give_route"),
    (nicstate, "_give_neighbour"),
    (namespace, "create"),
    (namespace, "delete"),
    (nic, "take"),
    (nic, "_property"),
    (link, "add_address"),
)

P = ParamSpec("P")
T = TypeVar("T")


def fatal(state_dir: str, name: str, first: str, second: str, fatal_step: str) -> None:
    """Take two cards, change them, give them back; die by SIGKILL before the given step.

    Steps are what changes something.
    """
    steps = itertools.count()

    def counted(function: Callable[P, T]) -> Callable[P, T]:
        def step(*args: P.args, **kwargs: P.kwargs) -> T:
            if next(steps) == int(fatal_step):
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step

    for owner, attribute in CHANGES:
        setattr(owner, attribute, counted(getattr(owner, attribute)))
    with lab.Lab(cards.wired(first, second), name=name, state_dir=Path(state_dir)) as running:
        running["left"].call(cards.spoil, "wire")
    print(f"steps {next(steps)}", flush=True)


def hold(state_dir: str, name: str, first: str, second: str) -> None:
    """Have two cards until a signal comes."""
    topology = cards.wired(first, second)
    with lab.signals_unwind(), lab.Lab(topology, name=name, state_dir=Path(state_dir)):
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    {"fatal": fatal, "hold": hold}[sys.argv[1]](*sys.argv[2:])
