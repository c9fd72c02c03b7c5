"""The result file of ``kproxy chain --random``: what was killed, and what that broke."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kproxy.traffic import resultfile
from kproxy.traffic.resultset import Measurement

FORMAT = "kproxy.soak/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A process that was killed, ``ms`` after the beginning."""

    ms: float
    host: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """What became of the writer's attempts."""

    acknowledged: int
    refused: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakSet:
    """A whole result file. ``violations``: promises that were broken, in words.

    ``settled_ms``: how long it took after the last kill until everything was as declared; null: it
    was not in time. ``changes``: how many changes of pods and their owners the history has.
    """

    kernel: dict[str, Any]
    host: dict[str, Any]
    parameters: dict[str, Any]
    violations: tuple[str, ...]
    kills: tuple[Killed, ...]
    writes: Writes
    changes: int
    settled_ms: float | None
    measurements: tuple[Measurement, ...]
    format: str = field(default=FORMAT)


def write(results: SoakSet, path: Path) -> None:
    """Write the file; it appears whole or not at all. The directory is made if it is missing."""
    resultfile.write(results, path)


def read(path: Path) -> SoakSet:
    """Read a file that :func:`write` made. Raises ``UsageError`` if it is not such a file."""
    return resultfile.read(path, SoakSet, FORMAT)
