"""A comparison is handed over whole, and alike for a first run and for its reproduction."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from kproxy import errors
from kproxy.cli import compare_job
from kproxy.cli.compare_job import Job
from kproxy.lab import comparison, costmodel, workload
from netns.kernels.base import Clock

JOB = Job(
    parameters=comparison.Parameters(modes=("iptables",), trials=2),
    load=workload.Workload(manifests=({"kind": "Namespace"},), notes=("a note",)),
    named=True,
    model=None,
    place="/somewhere",
    fresh=True,
    as_json=False,
    problems=("Service demo/web: is wrong",),
)


def told(job: Job, directory: Path, clock: Clock) -> Job:
    words = compare_job.tell(job, directory, clock)
    assert words[:-1] == ["-m", "kproxy", "compare", "--job"]
    return compare_job.read(Path(words[-1]))


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    found = told(JOB, tmp_path, Clock.REAL)
    assert found == dataclasses.replace(JOB, model=costmodel.NONE)


def test_a_cost_model_is_there_whole_whoever_named_it(tmp_path: Path) -> None:
    whole = msgspec.json.decode(costmodel.default_path().read_bytes())
    jobs = [
        dataclasses.replace(JOB, model=model)
        for model in (None, costmodel.DEFAULT, str(costmodel.default_path()), whole)
    ]
    for job in jobs:
        assert told(job, tmp_path, Clock.VIRTUAL) == dataclasses.replace(JOB, model=whole)


def test_a_cost_model_that_cannot_apply_is_refused_before_a_kernel_boots(tmp_path: Path) -> None:
    job = dataclasses.replace(JOB, model=costmodel.DEFAULT)
    with pytest.raises(errors.UsageError, match="with the real clock"):
        compare_job.tell(job, tmp_path, Clock.REAL)
