"""What a process that measures a chain, or a part of it, is told; in one file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy.lab import costmodel
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.chain.soak import Plan
from netns.kernels import base

FILE = "job.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of the chain; the fields are those of :class:`kproxy.cli.compare_job.Job`."""

    parameters: Parameters
    named: bool
    model: str | dict[str, Any] | None
    place: str
    fresh: bool
    as_json: bool
    reproduced: str | None = None
    part: bool = False
    random: Plan | None = None
    """What is killed at random; None: every link is broken in turn."""


def whole_model(job: Job, clock: base.Clock) -> Job:
    """Return the job with its cost model written out. Raises UsageError if there can be none."""
    return dataclasses.replace(job, model=costmodel.written_out(job.model, str(clock)))


def write(job: Job, directory: Path) -> Path:
    """Write a job into a directory; return the file."""
    path = directory / FILE
    path.write_bytes(msgspec.json.encode(job))
    return path


def read(path: Path) -> Job:
    """Return a job that was written."""
    return msgspec.json.decode(path.read_bytes(), type=Job)
