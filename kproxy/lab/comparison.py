"""The comparison: every scenario in every mode, trial by trial, into one result.

Each mode (and each restart policy in it) gets a cluster of its own on a fresh lab; they come one
after the other, so that they do not disturb each other. Within a mode the scenarios take turns
trial by trial, so that whatever drifts (caches, the machine's load) meets all of them alike. A
change of mode leaves a node that no other trial should have, so each such trial has a lab of its
own.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kproxy import errors
from kproxy.lab import facts, generators, plan, scenarios, setups, switching, workload
from kproxy.lab import modes as labmodes
from kproxy.lab.cluster import Cluster
from kproxy.lab.news import News, ended, watched
from kproxy.lab.podruntime import Room
from kproxy.lab.proxysets import ProxySet
from kproxy.lab.trial import Timing, Trials
from kproxy.traffic import resultset
from kproxy.traffic.summary import judged
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import Lab
from netns.nicreport import NicReport
from netns.uplink import Uplink

LAB_NAME = "kproxy"
INTERRUPTED, TERMINATED = "interrupted", "terminated"
SUMMING_UP = 300.0
"""Seconds of CPU time that the statistics of very many trials may take."""
LONGEST_TRIAL_SECONDS = 40.0
"""Traffic of a trial in which the cluster takes as long as it may; files are sparse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What is compared, and how.

    ``left_out``: why modes that nobody named are not compared. ``pairs``: the modes (from, to)
    between which a node is switched, in the scenarios that do that; the others are run in each of
    ``modes`` with each of ``policies``. ``node_rules``: what ``nft -f`` makes on every node first,
    as a CNI plug-in would. ``uplinks``: the hosts that are on network cards;
    ``take_default_route``: also on one that carries the machine's default route.
    """

    modes: tuple[str, ...] = labmodes.MODES
    policies: tuple[setups.Policy, ...] = (setups.Policy.KEEP,)
    pairs: tuple[tuple[str, str], ...] = ()
    node_rules: str = ""
    left_out: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = tuple(scenarios.SCENARIOS)
    trials: int = 3
    nodes: int = 2
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    take_default_route: bool = False
    rates: generators.Rates = field(default_factory=generators.Rates)
    timing: Timing = field(default_factory=Timing)

    def check(self) -> None:
        """Raise ``UsageError`` for what cannot be; the message names the option."""
        labmodes.check(self.modes)
        switching.expanded(self.scenarios)
        if not self.all_setups():
            raise errors.UsageError("nothing to compare", remedy="name a policy and a scenario")
        only_changes = all(name in switching.WAYS for name in self.scenarios)
        if only_changes and self.policies != (setups.Policy.KEEP,):
            raise errors.UsageError(
                f"--policy {','.join(self.policies)}: a change of mode has none",
                remedy="name a --scenario that restarts a proxy, too",
            )
        if self.trials < 1:
            raise errors.UsageError(f"--trials {self.trials}: at least one is needed")
        rate = self.rates.udp_pps
        if not 0 < rate <= generators.FASTEST_PPS:  # false for what is not a number, too
            raise errors.UsageError(
                f"--rate {rate:g}: the sender can do more than 0 and up to "
                f"{generators.FASTEST_PPS:,.0f} packets/s",
                remedy="`kproxy bench traffic` tells what this machine can do",
            )
        self.plan.check()

    @property
    def plan(self) -> plan.Plan:
        """Return who lives where."""
        return plan.Plan(nodes=self.nodes, uplinks=self.uplinks)

    def all_setups(self) -> tuple[setups.Setup, ...]:
        """Return the setups of which each has its own clusters, in order."""
        found: list[setups.Setup] = []
        if any(name not in switching.WAYS for name in self.scenarios):
            found += (
                setups.Setup(mode=mode, policy=policy)
                for mode in self.modes
                for policy in self.policies
            )
        if any(name in switching.WAYS for name in self.scenarios):
            found += (setups.Setup(mode=old, to=new) for old, new in self.pairs)
        return tuple(found)

    def of(self, setup: setups.Setup) -> tuple[str, ...]:
        """Return the scenarios that are run with a setup."""
        return tuple(name for name in self.scenarios if (name in switching.WAYS) == bool(setup.to))

    def alone(self, setup: setups.Setup) -> "Parameters":
        """Return what is compared with one setup, by itself."""
        return dataclasses.replace(
            self,
            modes=(setup.mode, setup.to) if setup.to else (setup.mode,),
            policies=(setup.policy,),
            pairs=((setup.mode, setup.to),) if setup.to else (),
            scenarios=self.of(setup),
        )

    @property
    def total(self) -> int:
        """Return the number of trials."""
        return self.trials * sum(len(self.of(setup)) for setup in self.all_setups())


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a run is: told before every trial and while waiting; or there is ``news`` of it."""

    done: int
    total: int
    mode: str
    text: str
    news: News | None = None


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
    cards: list[NicReport] = []
    for setup in parameters.all_setups():
        try:
            _run_setup(parameters, load, state_dir, setup, (trials, cards), progress)
        except errors.UsageError:
            raise
        except (errors.KproxyError, NetnsError) as error:
            incomplete.append(f"mode {setup.label}: {error}")
        except KeyboardInterrupt:
            incomplete.append(INTERRUPTED)
            break
        except SystemExit:
            incomplete.append(TERMINATED)
            break
    return resultset.ResultSet(
        kernel=facts.kernel(),
        host={**facts.host(), "cards": [dataclasses.asdict(card) for card in cards]},
        parameters={
            **dataclasses.asdict(parameters),
            **facts.run(),
            "flows_per_service": generators.FLOWS_PER_SERVICE,
            "lossless": [name for name, one in scenarios.SCENARIOS.items() if one.lossless],
            "unpromised": unpromised(parameters),
            "manifests": list(load.manifests),
            "notes": list(load.notes),
            "incomplete": incomplete,
        },
        trials=tuple(trials),
        summary=_summary(trials),
    )


def _summary(trials: Sequence[resultset.Trial]) -> tuple[resultset.Row, ...]:
    with base.computing(SUMMING_UP):
        return judged(trials)


def unpromised(parameters: Parameters) -> list[str]:
    """Return the setups in which a restart may lose something: who flushes rules promises none."""
    found = parameters.all_setups()
    return [one.label for one in found if one.policy is not setups.Policy.KEEP]


def _run_setup(
    parameters: Parameters,
    load: workload.Workload,
    state_dir: Path,
    setup: setups.Setup,
    found: tuple[list[resultset.Trial], list[NicReport]],
    progress: Callable[[Step], None],
) -> None:
    """Append the trials of one setup, and say on which cards they are."""
    trials, cards = found

    def tell(text: str, said: News | None = None) -> None:
        done, total = len(trials), parameters.total
        progress(Step(done=done, total=total, mode=setup.label, text=text, news=said))

    def run_all(numbers: Iterable[int], names: Iterable[str], before: int = 0) -> None:
        with _cluster(parameters, load, state_dir, setup, tell) as cluster:
            cards[:] = cluster.lab.cards()
            for warning in (text for card in cards for text in card.told):
                tell(f"warning: {warning}")
            rates, timing = parameters.rates, parameters.timing
            runner = Trials(cluster, rates, timing, setup, seed=base.seed(), before=before)
            if base.clock() is not base.Clock.VIRTUAL and not before:
                tell(f"calibrating: {parameters.rates.udp_pps:g} packets/s from each place")
                runner.calibrate()
            for number, name in itertools.product(numbers, names):
                tell(f"{name}, trial {number} of {parameters.trials}")
                with watched(cluster.files.records, functools.partial(tell, "")) as runner.told:
                    trials.append(runner.run(name, number))
                tell("", ended(trials[-1].scenario, trials[-1]))
            tell("taking the lab away")

    numbers, names = range(1, parameters.trials + 1), parameters.of(setup)
    if not setup.to:
        run_all(numbers, names)
        return
    for before, (number, name) in enumerate(itertools.product(numbers, names)):
        run_all([number], [name], before)


@contextlib.contextmanager
def _cluster(
    parameters: Parameters,
    load: workload.Workload,
    state_dir: Path,
    setup: setups.Setup,
    tell: Callable[[str], None],
) -> Iterator[Cluster]:
    """Run a cluster whose proxies are those of a setup, on a lab of its own."""
    the_plan = parameters.plan
    take = parameters.take_default_route
    proxies = [ProxySet(mode=setup.mode, policy=setup.policy)]
    labels: dict[str, str] = {}
    if setup.to:
        # The first node is switched; it is the last one of a cluster that has been, but for it.
        proxies = [ProxySet(mode=mode, selects=True) for mode in (setup.mode, setup.to)]
        labels = {node.name: setup.to for node in the_plan.each_node()}
        labels[next(the_plan.each_node()).name] = setup.mode
    tell("building the lab")
    with (
        Lab(
            plan.topology(the_plan), name=LAB_NAME, state_dir=state_dir, take_default_route=take
        ) as lab,
        Cluster(
            lab,
            the_plan,
            setup.mode,
            load,
            proxies=proxies,
            labels=labels,
            node_rules=parameters.node_rules,
            room=_room(parameters),
            progress=tell,
        ) as cluster,
    ):
        yield cluster


def _room(parameters: Parameters) -> Room:
    """Return how much a pod must be able to record: all packets of all trials, if need be."""
    rate = 2 * parameters.rates.udp_pps
    trials = parameters.trials * len(parameters.scenarios)
    return Room(rate=round(rate), records=round(rate * trials * LONGEST_TRIAL_SECONDS))
