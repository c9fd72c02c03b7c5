"""What ``kproxy compare`` is to do, found out before a kernel is booted and handed over in a file.

A guest is told a file instead of the user's command line, and the file is all that it reads before
the lab begins. So what comes before the lab is alike for a first run and for ``--reproduce``: in
virtual time it decides which random numbers are left, and where the clock stands.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kproxy.lab import comparison, costmodel, workload
from netns.kernels import base

FILE = "job.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One comparison, and what becomes of its result.

    ``named``: whether somebody asked for these very modes. ``model``: a cost model's name or
    file, or all of it; None: the clock's default. ``place`` is for the result, in a directory of
    its own if it is to be ``fresh``. ``part``: it is one of several, whose results are put
    together (:mod:`kproxy.cli.compare_parts`), and only leaves its own.
    """

    parameters: comparison.Parameters
    load: workload.Workload
    named: bool
    model: str | dict[str, Any] | None
    place: str
    fresh: bool
    as_json: bool
    reproduced: str | None = None
    problems: tuple[str, ...] = ()
    part: bool = False


def tell(job: Job, directory: Path, clock: base.Clock) -> list[str]:
    """Write a job into a directory; return the words of the command line that runs it.

    The cost model is written whole, whoever named it. Raises UsageError if there can be none.
    """
    model = costmodel.written_out(job.model, str(clock))
    path = write(dataclasses.replace(job, model=model), directory)
    return ["-m", "kproxy", "compare", "--job", str(path)]


def write(job: Job, directory: Path) -> Path:
    """Write a job into a directory; return the file."""
    path = directory / FILE
    path.write_bytes(msgspec.json.encode(job))
    return path


def read(path: Path) -> Job:
    """Return a job that was written."""
    return msgspec.json.decode(path.read_bytes(), type=Job)
