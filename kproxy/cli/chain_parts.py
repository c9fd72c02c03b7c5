"""One embedded kernel for each group of links and each trial, as many at a time as CPUs."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy import errors
from kproxy.cli import chain_job, jobdirectory, parts
from kproxy.cli.chain_job import Job
from kproxy.cli.kernel_option import KernelChoice, chosen_kernel
from kproxy.lab.chain import run as chainrun
from kproxy.lab.chain import table
from kproxy.lab.comparison import Step
from kproxy.traffic import chainset
from netns.kernels import base


def applies(kernel: KernelChoice) -> bool:
    """Tell whether a run is to be done in parts. Raises UsageError for an unusable kernel."""
    provider, clock = chosen_kernel(kernel)
    return provider.kernel_name is not None and clock is base.Clock.VIRTUAL


def run(job: Job, kernel: KernelChoice, progress: Callable[[Step], None]) -> chainset.ChainSet:
    """Do all parts and return the whole result; an interrupt ends all of them early.

    Raises MeasurementError if a part ends without a result.
    """
    command = parts.command(kernel, "chain")
    wanted = job.parameters
    total = parts.Total(len(wanted.links) * wanted.trials, progress)
    job = chain_job.whole_model(job, base.Clock.VIRTUAL)
    # The longest first, so that no CPU is left waiting for it in the end.
    groups = sorted(table.groups(wanted.links), key=table.seconds, reverse=True)
    with jobdirectory.made(base.state_directory()) as directory:
        all_parts = [
            _part(job, links, number, directory, command, total)
            for number in range(1, wanted.trials + 1)
            for links in groups
        ]
        how = parts.run(all_parts)
        found = [_result(part) for part in all_parts if part.begun]
    return _whole(job, [one for one in found if one is not None], how)


def _part(
    job: Job,
    links: tuple[str, ...],
    number: int,
    directory: Path,
    command: Sequence[str],
    total: parts.Total,
) -> parts.Part:
    # Names are as long every time: paths are part of what a run in virtual time depends on.
    place = directory / f"{number:03}-{table.by_name(links[0]).group:03}"
    its_job = dataclasses.replace(
        job,
        parameters=dataclasses.replace(job.parameters, links=links, trials=1, first=number),
        place=str(place),
        fresh=False,
        part=True,
        reproduced=None,
    )

    def prepare() -> list[str]:
        return [*command, "--job", str(chain_job.write(its_job, place))]

    return parts.Part(f"{', '.join(links)} ({number})", place, prepare, total)


def _result(part: parts.Part) -> chainset.ChainSet | None:
    """Return what a part found; None if it was ended before it had anything."""
    if part.result is not None:
        return chainset.read(part.result)
    if part.ended:
        return None
    raise errors.MeasurementError(f"{part.name}: {part.end_in_words}")


def _whole(job: Job, found: Sequence[chainset.ChainSet], how: str) -> chainset.ChainSet:
    """Put results of parts together. ``how`` the run was cut short; empty: it was not."""
    if not found:
        raise errors.MeasurementError(f"{how} before anything was measured")
    first = found[0]
    incomplete = [text for one in found for text in one.parameters["incomplete"]]
    if how and how not in incomplete:
        incomplete.append(how)
    trials = [trial for one in found for trial in one.trials]
    return chainrun.whole(job.parameters, trials, list(dict.fromkeys(incomplete)), made=first)
