"""Running the chain again from its result file, and telling what came out differently."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy.lab import reproduction
from kproxy.lab.chain.settings import Parameters
from kproxy.traffic import chainset
from netns.kernels import base


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a result was made; the fields are those of :class:`kproxy.lab.reproduction.Recipe`."""

    parameters: Parameters
    clock: base.Clock
    seed: int | None
    cost_model: dict[str, Any] | None
    release: str
    kernel: str | None
    memory: int | None


class _Kernel(reproduction.Kernel, frozen=True, kw_only=True):
    """As in a comparison's file, of which old ones say less: no file of a chain does."""

    release: str
    clock: base.Clock


class _Made(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of a file's ``parameters`` beside those of the chain."""

    seed: int | None
    costs: dict[str, Any] | None


def recipe(results: chainset.ChainSet, path: Path) -> Recipe:
    """Return how a result was made. Raises ``UsageError`` if the file does not say."""
    kernel = reproduction.read_part(results.kernel, _Kernel, path, "kernel")
    made = reproduction.read_part(results.parameters, _Made, path, "parameters")
    parameters = reproduction.read_part(results.parameters, Parameters, path, "parameters")
    parameters.check()
    return Recipe(
        parameters=parameters,
        clock=kernel.clock,
        seed=made.seed,
        cost_model=(made.costs or {}).get("model"),
        release=kernel.release,
        kernel=kernel.choice,
        memory=kernel.memory_limit_bytes,
    )


def differences(before: chainset.ChainSet, after: chainset.ChainSet) -> list[str]:
    """Return every figure of the summary that differs, in words; empty if all are the same."""
    old = {row.link: row for row in before.summary}
    new = {row.link: row for row in after.summary}
    found = []
    for link in {**old, **new}:
        if link not in old or link not in new:
            found.append(f"{link}: only {'before' if link in old else 'now'}")
        else:
            found += reproduction.differing(link, old[link], new[link])
    return found
