"""Costs as declared delays: what takes time in reality, slept where computing takes none.

In virtual time a process computes for free, so an interpreter starts, a list is decoded and a
table is rendered in no time. A process that the environment names a *cost model*
(``KPROXY_COSTS``: path of a file as in :mod:`kproxy.costfile`) sleeps at the marked places for as
long as that was measured to take, and logs it as ``cost paid``. Without the variable
nothing is read, imported or slept.

``docs/costs.md`` says which places there are, what lies between them, and how it is measured.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kproxy.costfile import Model
    from kproxy.logs import Log

VARIABLE = "KPROXY_COSTS"
PAID = "cost paid"
"""The event: ``place``, ``mode``, ``seconds``; its time is that of the delay's end."""

PROXY = "proxy"
RESPONDER = "responder"
MANAGER = "manager"

START = "start"
"""Until the process would ask or answer anybody: exec, interpreter, imports, configuration."""
LIST = "list"
"""From then until everything has been listed, decoded and taken note of."""
SLICE = "slice"
"""From a pod's end being known on its node until its EndpointSlice says so: the report, the API
server, both watches and the controller together, paid by the controller before it writes."""
SYNC_FULL = "sync-full"
"""First sync of a process, into a kernel that holds nothing of ours."""
SYNC_ADOPT = "sync-adopt"
"""First sync of a process that finds the kernel right already."""
SYNC_PARTIAL = "sync-partial"
"""A later sync, for a small change."""


class Costs:
    """The costs of one process. Methods may be called from any thread."""

    def __init__(
        self,
        process: str,
        log: "Log | None" = None,
        model: "Model | None" = None,
        sleep: Callable[[float], None] = time.sleep,
        **fields: Any,
    ) -> None:
        self._process = process
        self._log = log
        self._model = model
        self._sleep = sleep
        self._fields = fields

    @property
    def modelled(self) -> bool:
        """Return whether there is a model: without one :meth:`pay` does nothing."""
        return self._model is not None

    def pay(self, place: str, *, mode: str = "", services: int = 0, endpoints: int = 0) -> None:
        """Sleep for what the model says of this place, and log it. No entry: no cost."""
        if self._model is None:
            return
        seconds = self._model.seconds(
            self._process, place, mode, services=services, endpoints=endpoints
        )
        if seconds <= 0:
            return
        self._sleep(seconds)
        if self._log is not None:
            self._log.info(PAID, place=place, mode=mode, seconds=seconds, **self._fields)


FREE = Costs("")
"""Of a process without a model."""


def of(
    process: str,
    log: "Log | None" = None,
    environment: Mapping[str, str] = os.environ,
    **fields: Any,
) -> Costs:
    """Return the costs that the environment declares; ``fields`` go into every log line.

    Raises UsageError if the file is missing or wrong.
    """
    path = environment.get(VARIABLE)
    if not path:
        return Costs(process)
    from pathlib import Path

    from kproxy import costfile

    return Costs(process, log, costfile.read(Path(path)), **fields)


def sync_places(*, first: bool, writes: int, objects: int) -> tuple[str, ...]:
    """Return the places that a sync passes which is about to make ``writes`` changes.

    ``objects`` are the service ports and endpoints wanted. Each takes at least one write, so a
    first sync with as many has found an empty kernel. One with fewer has read and compared it
    all and then makes a small change. A later sync that changes nothing costs nothing that
    anybody waits for.
    """
    if not first:
        return (SYNC_PARTIAL,) if writes else ()
    if writes and writes >= objects:
        return (SYNC_FULL,)
    return (SYNC_ADOPT, SYNC_PARTIAL) if writes else (SYNC_ADOPT,)
