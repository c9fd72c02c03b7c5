"""The cost model of a lab: which one applies, and how much of a figure comes from it.

A model stands for what computing takes where it takes nothing: under the virtual clock. Under the
others computing takes what it takes, so there no model is ever applied. A lab's processes are
told their model by the environment that they inherit (:func:`apply`).
"""

import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from kproxy import costfile, costs, errors
from kproxy.lab.eventlog import Event

DEFAULT = "default"
NONE = "none"
VIRTUAL = "virtual"

Interval = tuple[int, int]
"""From and until, nanoseconds of the monotonic clock."""


def resolve(choice: str | None, clock: str) -> Path | None:
    """Return the file of the model that a user means by ``--costs``; None: costs are not modelled.

    ``choice``: ``default`` (the one that is part of this package), ``none``, or a file; None if
    the user has said nothing: the default model, where there is any. Raises UsageError for a file
    that is missing or wrong, and for any model with a clock under which computing takes time.
    """
    if choice == NONE:
        return None
    if clock != VIRTUAL:
        if choice is None:
            return None
        raise errors.UsageError(
            f"--costs {choice}: with the {clock} clock everything costs what it costs",
            remedy="leave --costs out, or use --clock virtual",
        )
    path = default_path() if choice in (None, DEFAULT) else Path(str(choice)).absolute()
    costfile.read(path)
    return path


def written_out(choice: str | dict[str, Any] | None, clock: str) -> str | dict[str, Any]:
    """Return a model itself for what :func:`resolve` takes; NONE if costs are not modelled.

    One that is written out already stays as it is. Raises UsageError if there can be none.
    """
    if isinstance(choice, dict):
        return choice
    file = resolve(choice, clock)
    if file is None:
        return NONE
    model: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    return model


def default_path() -> Path:
    """Return the file of the default model."""
    return Path(str(resources.files("kproxy.lab").joinpath("costs/default.json")))


def apply(model: Path | None) -> None:
    """Tell the model, or that there is none, to all processes that this one starts from now on."""
    os.environ.pop(costs.VARIABLE, None)
    if model is not None:
        os.environ[costs.VARIABLE] = str(model)


def applied() -> Path | None:
    """Return the model that the processes of this lab are told; None: none."""
    path = os.environ.get(costs.VARIABLE)
    return Path(path) if path else None


def described(model: Path | None) -> dict[str, object] | None:
    """Return what a result file says of the model it was made with; None without one."""
    if model is None:
        return None
    read = costfile.read(model)
    return {
        "name": read.name,
        "measured": sorted({f"{entry.kernel}; {entry.machine}" for entry in read.entries}),
    }


def paid(events: Iterable[Event], node: str) -> list[Interval]:
    """Return when a node's proxies and the controllers paid costs, in order, none overlapping."""
    found = sorted(
        (event.mono_ns - round(event.fields["seconds"] * 1e9), event.mono_ns)
        for event in events
        if event.msg == costs.PAID
        and (
            event.who == costs.MANAGER
            or (event.who == costs.PROXY and event.fields.get("node") == node)
        )
    )
    apart: list[Interval] = []
    for begin, end in found:
        if apart and begin < apart[-1][1]:
            apart[-1] = apart[-1][0], max(end, apart[-1][1])
        else:
            apart.append((begin, end))
    return apart


def overlap_ms(intervals: Sequence[Interval], begin: int, end: int) -> float:
    """Return how much of the time between two points is in the intervals (which lie apart)."""
    inside = sum(max(0, min(until, end) - max(since, begin)) for since, until in intervals)
    return round(inside / 1e6, 3)


def outage_modelled_ms(
    intervals: Sequence[Interval],
    *,
    fault_ns: int,
    first_good_ms: float | None,
    failover_time_ms: float | None,
) -> float | None:
    """Return how much of a failover time was spent paying costs; None without one.

    The outage ends with the first good packet (``first_good_ms`` after the fault) and began
    ``failover_time_ms`` before it. Nothing lost: no time, so none of it is modelled.
    """
    if failover_time_ms is None:
        return None
    if failover_time_ms == 0 or first_good_ms is None:
        return 0.0
    end = fault_ns + round(first_good_ms * 1e6)
    return overlap_ms(intervals, end - round(failover_time_ms * 1e6), end)
