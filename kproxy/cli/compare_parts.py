"""One embedded kernel for each setup: side by side where there are CPUs, and put together then.

No mode can feel what another one did before it: the rows of a mode are the same whichever modes it
is compared with.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy import errors
from kproxy.cli import compare_job, jobdirectory, parts
from kproxy.cli.compare_job import Job
from kproxy.cli.kernel_option import KernelChoice, chosen_kernel
from kproxy.lab import comparison
from kproxy.lab.comparison import Step
from kproxy.lab.setups import Setup
from kproxy.traffic import resultset, summary
from netns.kernels import base


def applies(job: Job, kernel: KernelChoice) -> bool:
    """Tell whether a job is to be done in parts. Raises UsageError for an unusable kernel."""
    if len(job.parameters.all_setups()) < 2:
        return False
    provider, clock = chosen_kernel(kernel)
    return provider.kernel_name is not None and clock is base.Clock.VIRTUAL


def run(job: Job, kernel: KernelChoice, progress: Callable[[Step], None]) -> resultset.ResultSet:
    """Do all parts and return the whole result; an interrupt ends all of them early.

    Raises MeasurementError if a part ends without a result.
    """
    command = parts.command(kernel, "compare")
    wanted = job.parameters
    total = parts.Total(wanted.total, progress)
    with jobdirectory.made(base.state_directory()) as directory:
        all_parts = [
            _part(job, setup, directory / setup.file_name, command, total)
            for setup in wanted.all_setups()
        ]
        how = parts.run(all_parts)
        found = [_result(part) for part in all_parts if part.begun]
    return _whole(job, [one for one in found if one is not None], how)


def _part(
    job: Job, setup: Setup, place: Path, command: Sequence[str], total: parts.Total
) -> parts.Part:
    """Return one setup's part."""
    its_job = dataclasses.replace(
        job,
        parameters=job.parameters.alone(setup),
        place=str(place),
        fresh=False,
        part=True,
        reproduced=None,
        problems=(),
    )

    def prepare() -> list[str]:
        return [*command, "--job", str(compare_job.write(its_job, place))]

    return parts.Part(setup.label, place, prepare, total)


def _result(part: parts.Part) -> resultset.ResultSet | None:
    """Return what a part found; None if it was ended before it had anything.

    Raises MeasurementError if it ended by itself without a result.
    """
    if part.result is not None:
        return resultset.read(part.result)
    if part.ended:
        return None
    raise errors.MeasurementError(f"mode {part.name}: {part.end_in_words}")


def _whole(job: Job, found: Sequence[resultset.ResultSet], how: str) -> resultset.ResultSet:
    """Put results of single setups together. ``how`` the run was cut short; empty: it was not."""
    if not found:
        raise errors.MeasurementError(f"{how} before anything was measured")
    first = found[0]
    trials = tuple(trial for one in found for trial in one.trials)
    incomplete = [text for one in found for text in one.parameters["incomplete"]]
    if how and how not in incomplete:
        incomplete.append(how)
    parameters = {
        **first.parameters,
        "modes": list(job.parameters.modes),
        "policies": list(job.parameters.policies),
        "pairs": [list(pair) for pair in job.parameters.pairs],
        "scenarios": list(job.parameters.scenarios),
        "unpromised": comparison.unpromised(job.parameters),
        "incomplete": list(dict.fromkeys(incomplete)),
    }
    return dataclasses.replace(
        first, parameters=parameters, trials=trials, summary=summary.judged(trials)
    )
