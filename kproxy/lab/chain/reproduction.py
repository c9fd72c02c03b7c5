"""Running the chain again from its result file, and telling what came out differently."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy import errors
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


def recipe(results: chainset.ChainSet, path: Path) -> Recipe:
    """Return how a result was made. Raises ``UsageError`` if the file does not say."""
    try:
        parameters = msgspec.convert(results.parameters, Parameters)
        clock = base.Clock(results.kernel["clock"])
        costs = results.parameters["costs"] or {}
        found = Recipe(
            parameters=parameters,
            clock=clock,
            seed=results.parameters["seed"],
            cost_model=costs.get("model"),
            release=str(results.kernel["release"]),
            kernel=results.kernel.get("name"),
            memory=results.kernel.get("memory_limit_bytes"),
        )
    except (msgspec.ValidationError, KeyError, ValueError, AttributeError) as error:
        raise errors.UsageError(
            f"{path}: {error}", remedy="it can only be reproduced as it was written"
        ) from None
    parameters.check()
    return found


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
