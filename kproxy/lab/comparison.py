"""The comparison: every scenario in every mode, trial by trial, into one result.

Each mode gets a cluster of its own on a fresh lab; modes come one after the other, so that they
do not disturb each other. Within a mode the scenarios take turns trial by trial, so that whatever
drifts (caches, the machine's load) meets all of them alike.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kproxy import errors
from kproxy.lab import facts, generators, plan, scenarios, workload
from kproxy.lab.cluster import Cluster
from kproxy.lab.modes import MODES
from kproxy.lab.podruntime import Room
from kproxy.lab.trial import Timing, Trials
from kproxy.traffic import resultset
from kproxy.traffic.summary import judged
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import Lab

LAB_NAME = "kproxy"
INTERRUPTED, TERMINATED = "interrupted", "terminated"
LONGEST_TRIAL_SECONDS = 40.0
"""Traffic of a trial in which the cluster takes as long as it may; files are sparse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is compared, and how. ``left_out``: why modes that nobody named are not compared."""

    modes: tuple[str, ...] = MODES
    left_out: tuple[str, ...] = ()
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
        rate = self.rates.udp_pps
        if not 0 < rate <= generators.FASTEST_PPS:  # false for what is not a number, too
            raise errors.UsageError(
                f"--rate {rate:g}: the sender can do more than 0 and up to "
                f"{generators.FASTEST_PPS:,.0f} packets/s",
                remedy="`kproxy bench traffic` tells what this machine can do",
            )
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

    If a mode goes wrong for good (its cluster does not come up) the others are run all the same,
    and an interrupt (Ctrl-C) ends the run early: the result holds what was measured, and
    ``parameters.incomplete`` says what is missing. Raises ``UsageError`` if this machine cannot
    send at the wanted rate.
    """
    parameters.check()
    trials: list[resultset.Trial] = []
    incomplete: list[str] = []
    for mode in parameters.modes:
        try:
            _run_mode(parameters, load, state_dir, mode, trials, progress)
        except errors.UsageError:
            raise
        except (errors.KproxyError, NetnsError) as error:
            incomplete.append(f"mode {mode}: {error}")
        except KeyboardInterrupt:
            incomplete.append(INTERRUPTED)
            break
        except SystemExit:
            incomplete.append(TERMINATED)
            break
    return resultset.ResultSet(
        kernel=facts.kernel(),
        host=facts.host(),
        parameters={
            **dataclasses.asdict(parameters),
            **facts.run(),
            "flows_per_service": generators.FLOWS_PER_SERVICE,
            "lossless": [name for name, one in scenarios.SCENARIOS.items() if one.lossless],
            "manifests": list(load.manifests),
            "notes": list(load.notes),
            "incomplete": incomplete,
        },
        trials=tuple(trials),
        summary=judged(trials),
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
        Cluster(lab, the_plan, mode, load, room=_room(parameters), progress=tell) as cluster,
    ):
        runner = Trials(cluster, parameters.rates, parameters.timing, seed=base.seed())
        for number in range(1, parameters.trials + 1):
            for name in parameters.scenarios:
                tell(f"{name}, trial {number} of {parameters.trials}")
                trials.append(runner.run(scenarios.by_name(name), number))
        tell("taking the lab away")


def _room(parameters: Parameters) -> Room:
    """Return how much a pod must be able to record: all packets of all trials, if need be."""
    rate = 2 * parameters.rates.udp_pps
    trials = parameters.trials * len(parameters.scenarios)
    return Room(rate=round(rate), records=round(rate * trials * LONGEST_TRIAL_SECONDS))
