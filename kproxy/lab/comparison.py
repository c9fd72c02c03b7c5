"""The comparison: every scenario in every mode, trial by trial, into one result.

Each mode gets a cluster of its own on a fresh lab; modes come one after the other, so that they
do not disturb each other. Within a mode the scenarios take turns trial by trial, so that whatever
drifts (caches, the machine's load) meets all of them alike.
"""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from kproxy import errors
from kproxy.lab import costmodel, generators, plan, scenarios, workload
from kproxy.lab.cluster import Cluster
from kproxy.lab.trial import Timing, Trials
from kproxy.traffic import resultset
from kproxy.traffic.summary import summarise
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import Lab

MODES = ("ipvs", "iptables")
LAB_NAME = "kproxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is compared, and how."""

    modes: tuple[str, ...] = MODES
    scenarios: tuple[str, ...] = tuple(scenarios.SCENARIOS)
    trials: int = 3
    nodes: int = 2
    rates: generators.Rates = field(default_factory=generators.Rates)
    timing: Timing = field(default_factory=Timing)

    def check(self) -> None:
        """Raise ``UsageError`` for what cannot be; the message names the option."""
        for mode in self.modes:
            if mode not in MODES:
                raise errors.UsageError(
                    f"--modes {mode}: there is no such mode", remedy=f"known: {', '.join(MODES)}"
                )
        for name in self.scenarios:
            scenarios.by_name(name)
        if not self.modes or not self.scenarios:
            raise errors.UsageError("nothing to compare", remedy="name a mode and a scenario")
        if self.trials < 1:
            raise errors.UsageError(f"--trials {self.trials}: at least one is needed")
        if self.rates.udp_pps <= 0:
            raise errors.UsageError(f"--rate {self.rates.udp_pps:g}: must be more than 0")
        plan.Plan(nodes=self.nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a run is: told before every trial and while waiting."""

    done: int
    total: int
    mode: str
    text: str


def run(
    parameters: Parameters,
    load: workload.Workload,
    state_dir: Path,
    *,
    progress: Callable[[Step], None],
) -> resultset.ResultSet:
    """Run it all.

    If something goes wrong for good (a cluster does not come up), the result holds what was
    measured until then, and ``parameters.incomplete`` says why.
    """
    parameters.check()
    started = datetime.datetime.now(datetime.UTC)
    trials: list[resultset.Trial] = []
    incomplete = None
    try:
        for mode in parameters.modes:
            _run_mode(parameters, load, state_dir, mode, trials, progress)
    except (errors.KproxyError, NetnsError) as error:
        incomplete = f"mode {mode}: {error}"
    return resultset.ResultSet(
        kernel=_kernel(),
        host=_host(),
        parameters=_parameters(parameters, load, started, incomplete),
        trials=tuple(trials),
        summary=_judged(trials),
    )


def _run_mode(
    parameters: Parameters,
    load: workload.Workload,
    state_dir: Path,
    mode: str,
    trials: list[resultset.Trial],
    progress: Callable[[Step], None],
) -> None:
    """Append the trials of one mode."""
    total = len(parameters.modes) * len(parameters.scenarios) * parameters.trials

    def tell(text: str) -> None:
        progress(Step(done=len(trials), total=total, mode=mode, text=text))

    the_plan = plan.Plan(nodes=parameters.nodes)
    tell("building the lab")
    with (
        Lab(plan.topology(the_plan), name=LAB_NAME, state_dir=state_dir) as lab,
        Cluster(lab, the_plan, mode, load, progress=tell) as cluster,
    ):
        runner = Trials(cluster, parameters.rates, parameters.timing)
        for number in range(1, parameters.trials + 1):
            for name in parameters.scenarios:
                tell(f"{name}, trial {number} of {parameters.trials}")
                trials.append(runner.run(scenarios.by_name(name), number))
        tell("taking the lab away")


def _judged(trials: Sequence[resultset.Trial]) -> tuple[resultset.Row, ...]:
    """Return the summary. A baseline that lost something makes the whole run not valid.

    What the tester loses by itself it may lose in every other trial, too.
    """
    rows = summarise(trials)
    if all(trial.valid for trial in trials if trial.scenario == scenarios.BASELINE.name):
        return rows
    return tuple(dataclasses.replace(row, valid=False) for row in rows)


def _kernel() -> dict[str, Any]:
    release = platform.uname()
    embedded = base.inside_guest()
    return {
        "release": release.release,
        "version": release.version,
        "machine": release.machine,
        "provider": "uml" if embedded else "native",
        "clock": str(base.clock()),
    }


def _host() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "kproxy": importlib.metadata.version("kproxy"),
        "load_average": list(os.getloadavg()),
    }


def _costs() -> dict[str, Any] | None:
    """Return the cost model whole: a file that can be reproduced must not depend on another."""
    model = costmodel.applied()
    if model is None:
        return None
    described = costmodel.described(model) or {}
    return {**described, "model": msgspec.json.decode(model.read_bytes())}


def _parameters(
    parameters: Parameters,
    load: workload.Workload,
    started: datetime.datetime,
    incomplete: str | None,
) -> dict[str, Any]:
    return {
        **dataclasses.asdict(parameters),
        "started": started.isoformat(timespec="seconds"),
        "seed": base.seed(),
        "costs": _costs(),
        "flows_per_service": generators.FLOWS_PER_SERVICE,
        "manifests": list(load.manifests),
        "notes": list(load.notes),
        "incomplete": incomplete,
    }
