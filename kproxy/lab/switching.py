"""How an operator changes the mode of a node that carries traffic: the ways of ``mode-switch``.

They differ in the order of three acts: the node's label is changed, so that the proxy of one mode
ends and that of the other starts; what the old one has left is cleaned up; the node is drained
first, or not at all.
"""

from collections.abc import Sequence
from typing import Protocol

from kproxy import errors
from kproxy.lab import scenarios
from kproxy.lab.scenarios import FAULT, PROCESS_GONE, PROCESS_STARTED, SYNCED, Scenario

NAME = "mode-switch"
"""What all the ways are called together."""
CLEANED = "cleaned"
DRAINED = "drained"
ADMITTED = "admitted again"


class Switching(scenarios.Stage, Protocol):
    """A stage whose hit node can change its mode. Times as in :class:`scenarios.Stage`."""

    @property
    def new(self) -> str:
        """Return the mode to switch to."""
        ...

    def look(self) -> None:
        """Note what the hit node's kernel holds before anything is done."""
        ...

    def assign(self, node: str, mode: str) -> None:
        """Let the proxy of this mode run on a node, instead of any other; empty: none."""
        ...

    def clean(self, node: str, spared: str) -> int:
        """Remove from a node what proxies have left, but for this mode; return when it ended."""
        ...

    def drain(self, node: str) -> None:
        """Cordon a node and move its pods and clients away; return when nothing is there."""
        ...

    def admit(self, node: str) -> None:
        """Uncordon a node, and see that its services can be reached from it."""
        ...


def new_first(stage: Switching) -> None:
    """Start the proxy of the new mode, then clean up what the old one has left."""
    hit = stage.hit
    stage.look()
    fault = stage.mark(FAULT)
    stage.assign(hit, stage.new)
    scenarios.mark_restart(stage, hit, fault, stage.await_exit(hit, fault))
    stage.mark(CLEANED, stage.clean(hit, stage.new), hit)


def clean_first(stage: Switching) -> None:
    """End the old proxy, clean up all that it has left, then start that of the new mode."""
    stage.look()
    _replace(stage, stage.mark(FAULT))


def drained(stage: Switching) -> None:
    """Drain the node, replace its proxy as with an empty node, then admit pods again."""
    stage.look()
    fault = stage.mark(FAULT)
    stage.drain(stage.hit)
    stage.mark(DRAINED, detail=stage.hit)
    _replace(stage, fault)
    stage.admit(stage.hit)
    stage.mark(ADMITTED, detail=stage.hit)


def _replace(stage: Switching, fault: int) -> None:
    hit = stage.hit
    stage.assign(hit, "")
    stage.mark(PROCESS_GONE, stage.await_exit(hit, fault), hit)
    cleaned = stage.mark(CLEANED, stage.clean(hit, ""), hit)
    stage.assign(hit, stage.new)
    started, synced = stage.await_restart(hit, cleaned)
    stage.mark(PROCESS_STARTED, started, hit)
    stage.mark(SYNCED, synced, hit)


WAYS: dict[str, Scenario[Switching]] = {
    scenario.name: scenario
    for scenario in (
        Scenario(f"{NAME}-new-first", new_first),
        Scenario(f"{NAME}-clean-first", clean_first),
        Scenario(f"{NAME}-drained", drained),
    )
}


def way(scenario: str) -> str:
    """Return which way a scenario is: its name without what all have in common."""
    return scenario.removeprefix(f"{NAME}-")


def expanded(names: Sequence[str]) -> tuple[str, ...]:
    """Return the scenarios of these names, where :data:`NAME` stands for all ways.

    Raises ``UsageError`` for a name that is none, with those that exist.
    """
    found: list[str] = []
    for name in names:
        if name != NAME and name not in WAYS and name not in scenarios.SCENARIOS:
            raise errors.UsageError(
                f"--scenario {name}: there is no such scenario",
                remedy=f"known: {', '.join((*scenarios.SCENARIOS, NAME, *WAYS))}",
            )
        found += WAYS if name == NAME else [name]
    return tuple(dict.fromkeys(found))
