"""Running a comparison again from its result file, and telling what came out differently.

Everything that decides a run is in ``parameters`` of the file: what was compared and how, the
workload's manifests, the seed, the clock, the cost model itself. In virtual time the summary is
the same to the last digit; with the real clock it never is, and the differences say by how much.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from kproxy import errors
from kproxy.lab import comparison, generators, setups, workload
from kproxy.lab.trial import Timing
from kproxy.traffic import resultset
from netns.kernels import base, native
from netns.uplink import Uplink

T = TypeVar("T")

_OF_MACHINE = ("memory_bytes", "kproxy", "python")
_ROW_NAMES = ("mode", "scenario", "node", "traffic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a result was made."""

    parameters: comparison.Parameters
    workload: workload.Workload
    clock: base.Clock
    seed: int | None
    cost_model: dict[str, Any] | None
    release: str
    kernel: str | None
    """Name of the kernel, as ``--kernel`` takes it; None: the file is older than that."""
    memory: int | None
    """What an embedded one was given, in bytes."""


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of a file's ``kernel``."""

    release: str = ""
    provider: str = ""
    clock: base.Clock = base.Clock.REAL
    name: str | None = None
    memory_limit_bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None

    @property
    def choice(self) -> str | None:
        """Return what ``--kernel`` is to be told; None: the file is older than that."""
        return native.NAME if self.provider == native.NAME else self.name


class _Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of a file's ``parameters``; the rest is for readers."""

    modes: tuple[str, ...]
    policies: tuple[setups.Policy, ...] = (setups.Policy.KEEP,)
    pairs: tuple[tuple[str, str], ...] = ()
    node_rules: str = ""
    scenarios: tuple[str, ...]
    trials: int
    nodes: int
    uplinks: dict[str, Uplink] = {}
    rates: generators.Rates
    timing: Timing
    manifests: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    seed: int | None
    costs: dict[str, Any] | None


def recipe(results: resultset.ResultSet, path: Path) -> Recipe:
    """Return how a result was made. Raises ``UsageError`` if the file does not say."""
    kernel = read_part(results.kernel, Kernel, path, "kernel")
    found = read_part(results.parameters, _Parameters, path, "parameters")
    parameters = comparison.Parameters(
        modes=found.modes,
        policies=found.policies,
        pairs=found.pairs,
        node_rules=found.node_rules,
        scenarios=found.scenarios,
        trials=found.trials,
        nodes=found.nodes,
        uplinks=found.uplinks,
        rates=found.rates,
        timing=found.timing,
    )
    parameters.check()
    return Recipe(
        parameters=parameters,
        workload=workload.Workload(manifests=found.manifests, notes=found.notes),
        clock=kernel.clock,
        seed=found.seed,
        cost_model=(found.costs or {}).get("model"),
        release=kernel.release,
        kernel=kernel.choice,
        memory=kernel.memory_limit_bytes,
    )


def read_part(value: dict[str, Any], wanted: type[T], path: Path, where: str) -> T:
    """Return a part of a result file. Raises ``UsageError`` naming the field that is wrong."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        raise errors.UsageError(
            f"{path}: {where}: {error}", remedy="it can only be reproduced as it was written"
        ) from None


def differences(before: resultset.ResultSet, after: resultset.ResultSet) -> list[str]:
    """Return every figure of the summary that differs, in words; empty if all are the same."""
    found: list[str] = []
    old = {_key(row): row for row in before.summary}
    new = {_key(row): row for row in after.summary}
    for key in old.keys() | new.keys():
        if key not in old or key not in new:
            found.append(f"{' '.join(key)}: only {'before' if key in old else 'now'}")
            continue
        found += differing(" ".join(key), old[key], new[key])
    return sorted(found)


def circumstances(before: resultset.ResultSet, after: resultset.ResultSet) -> list[str]:
    """Return what was not the same around the two runs, in words: it may explain differences."""
    found: list[str] = []
    for where, old, new in (
        ("kernel", before.kernel, after.kernel),
        ("guest", before.host.get("guest") or {}, after.host.get("guest") or {}),
        ("host", before.host, after.host),
    ):
        for name in ("name", "release", "version", "provider", *_OF_MACHINE):
            if where == "host" and name == "memory_bytes":
                continue  # a guest does not see it
            if old.get(name) != new.get(name):
                found.append(
                    f"{where} {name}: {_shown(old.get(name))}, now {_shown(new.get(name))}"
                )
    return found


def _key(row: resultset.Row) -> tuple[str, ...]:
    return tuple(getattr(row, name) for name in _ROW_NAMES)


def differing(where: str, old: Any, new: Any) -> list[str]:
    """Compare two values of a summary, down to the single figure; return what differs."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        return [
            line
            for number, (one, other) in enumerate(zip(old, new, strict=True))
            for line in differing(f"{where}[{number}]", one, other)
        ]
    if dataclasses.is_dataclass(old) and type(old) is type(new):
        return [
            line
            for field in dataclasses.fields(old)
            for line in differing(
                f"{where} {field.name}", getattr(old, field.name), getattr(new, field.name)
            )
        ]
    return [] if old == new else [f"{where}: {_shown(old)}, now {_shown(new)}"]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)
