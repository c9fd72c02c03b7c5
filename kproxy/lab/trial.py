"""One trial: traffic from two nodes, a scenario in the middle of it, and the account."""

import contextlib
import dataclasses
import functools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kproxy import errors
from kproxy.api import kinds
from kproxy.lab import (
    costmodel,
    generators,
    losswatch,
    scenarios,
    selfcalibration,
    setups,
    switching,
)
from kproxy.lab.accounts import Accounts, Sent, Window
from kproxy.lab.cluster import Cluster
from kproxy.lab.losswatch import LossWatch, Sender
from kproxy.lab.plan import CONTROL
from kproxy.lab.stage import ClusterStage
from kproxy.lab.switchstage import SwitchStage
from kproxy.traffic import calibration, measurement, resultset, switchset

JITTER_SECONDS = 0.1
"""The fault comes up to so much later: several packet intervals of a flow, evenly distributed."""

CALM_SECONDS = 3.0
"""A cluster that has just come up has synced a moment ago, and until its next sync the proxy waits
(minSyncPeriod, 1 s). No change of mode should meet that; other trials come long after it."""

HIT = "hit"
OTHER = "other"
FIRST_GOOD_PACKET = "first good packet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long the parts of a trial last, in seconds.

    ``before``: traffic before the scenario; ``after``: traffic after the cluster has got over it
    (longer than a TCP response may take, so that each request of the outage has an outcome);
    ``quiet``: how long a scenario that waits for nothing goes on; ``tmax``: a packet that takes
    longer counts as lost (RFC 7680), and so long is waited after the last one.
    """

    before: float = 1.0
    after: float = 1.5
    quiet: float = 2.0
    tmax: float = 1.0


class Trials:
    """Runs trials on one cluster, one after the other."""

    def __init__(
        self,
        cluster: Cluster,
        rates: generators.Rates,
        timing: Timing,
        setup: setups.Setup,
        *,
        seed: int | None = None,
        before: int = 0,
    ) -> None:
        """``seed`` fixes what a trial draws: its flows' ports and the moment of its fault.

        ``before``: so many trials of this setup were run on other clusters.
        """
        self._setup = setup
        self._seed = seed
        self._first_port = self._lots("ports").randrange(generators.SOURCE_PORTS)
        self._cluster = cluster
        self._rates = rates
        self._timing = timing
        self._places = dict(zip((HIT, OTHER), cluster.clients, strict=False))
        self._count = before
        self.told: Callable[[str], None] = lambda name: None
        """Is told the name of every event, when it is marked."""
        numbers = {place: self._client(place).vantage.number for place in self._places}
        self._accounts = Accounts(cluster.files.records, numbers, rates.udp_pps)

    def calibrate(self) -> calibration.Calibration:
        """Try the wanted rate before anything happens; UsageError if it is not held."""
        self._cluster.settle()
        path = selfcalibration.Path(
            clients={place: self._client(place) for place in self._places},
            targets=self._cluster.targets,
            rates=self._rates,
            accounts=self._accounts,
            tmax_s=self._timing.tmax,
        )

        def attempt(rate: float) -> calibration.Attempt:
            self._count += 1
            targets = len(self._cluster.targets)
            first_port = generators.first_port(self._first_port, self._count, targets)
            return path.attempt(rate, self._count, first_port)

        found = calibration.check(attempt, self._rates.udp_pps)
        found.require(self._rates.udp_pps, "--rate")
        return found

    def run(self, name: str, number: int) -> resultset.Trial:
        """Run one trial of a scenario and account for it.

        A trial in which something did not happen in time is returned too, with that problem.
        """
        self._count += 1
        if name == scenarios.CABLE_PULL:
            self._cluster.cable(self._places[HIT])
        self._cluster.settle()
        self._settled = self._cluster.slices_version()
        if self._setup.to:
            time.sleep(CALM_SECONDS)
        with self._watching() as watch:
            return self._run(name, number, watch)

    def _run(self, name: str, number: int, watch: LossWatch) -> resultset.Trial:
        problems: list[str] = []
        targets = self._cluster.targets
        first_port = generators.first_port(self._first_port, self._count, len(targets))
        started = {
            place: self._client(place).start(self._count, targets, self._rates, first_port)
            for place in self._places
        }
        left: dict[str, Sent] = {}
        leave = functools.partial(self._leave, started, left)
        stage, act = self._scene(name, leave)
        stage.on_mark = functools.partial(self._marked, stage, watch)
        # Otherwise all trials would show the same phase of the fault against the packets.
        jitter = self._lots(f"fault {self._count}").uniform(0, JITTER_SECONDS)
        time.sleep(self._timing.before + jitter)
        try:
            act()
        except errors.MeasurementError as error:
            problems.append(str(error))
        time.sleep(self._timing.after if stage.marks else self._timing.quiet)
        remains = self._left_behind(stage)
        sent = [left.get(place) or self._stop(place, begun) for place, begun in started.items()]
        time.sleep(self._timing.tmax)
        found = self._found(name, sent, stage, watch)
        for one in found:
            problems += measurement.problems(one)
        trial = resultset.Trial(
            mode=self._setup.label,
            scenario=name,
            number=number,
            timeline=_timeline(stage, found),
            restart_to_synced_ms=_restart_ms(stage),
            modelled_ms=self._restart_modelled_ms(stage),
            measurements=tuple(found),
            switch=None if remains is None else self._switch(name, found, remains),
            problems=tuple(problems),
        )
        self._refresh_proxy(stage)
        return trial

    def _found(
        self, name: str, sent: list[Sent], stage: ClusterStage, watch: LossWatch
    ) -> list[resultset.Measurement]:
        """Return what became of the traffic."""
        watch.end(stage.marks)
        found = self._accounts.account(self._count, sent, self._window(stage), watch)
        found = [self._modelled(one, stage) for one in found]
        return [self._programmed(one, stage) for one in found]

    def _marked(self, stage: ClusterStage, watch: LossWatch) -> None:
        """Take note of an event that was marked."""
        watch.mark()
        self.told(stage.marks[-1].name)

    def _scene(
        self, name: str, leave: Callable[[], None]
    ) -> tuple[ClusterStage, Callable[[], None]]:
        """Return the stage of a scenario, and what begins it; ``leave`` stops the hit clients."""
        hit = self._places[HIT]
        if name not in switching.WAYS:
            stage = ClusterStage(self._cluster, hit, self._served)
            return stage, functools.partial(scenarios.SCENARIOS[name].run, stage)
        change = SwitchStage(self._cluster, hit, self._served, new=self._setup.to, leave=leave)
        return change, functools.partial(switching.WAYS[name].run, change)

    def _left_behind(self, stage: ClusterStage) -> tuple[switchset.LeftBehind, ...] | None:
        return stage.left_behind() if isinstance(stage, SwitchStage) else None

    def _switch(
        self,
        name: str,
        found: Sequence[resultset.Measurement],
        remains: tuple[switchset.LeftBehind, ...],
    ) -> switchset.Switch:
        """Return what a change of mode came to."""
        tcp = sum(target.protocol == "TCP" for target in self._cluster.targets)
        return switchset.Switch(
            old=self._setup.mode,
            new=self._setup.to,
            way=switching.way(name),
            impact=switchset.impact(found, tcp * self._rates.connections),
            left_behind=remains,
        )

    def _watching(self) -> contextlib.AbstractContextManager[LossWatch]:
        """Watch where packets are lost."""
        cluster = self._cluster
        return losswatch.watching(
            cluster.lab,
            [
                Sender(origin=place, host=self._client(place).vantage.host, node=node)
                for place, node in self._places.items()
            ],
            routers=[node.name for node in cluster.plan.each_node()],
            skip=(CONTROL,),
            targets=dict.fromkeys(self._places, cluster.targets),
            slices=lambda: cluster.objects(kinds.ENDPOINT_SLICE),
        )

    def _window(self, stage: ClusterStage) -> Window:
        """Return what has been watched until now."""
        tmax = round(self._timing.tmax * 1e9)
        return Window(fault_ns=stage.fault_ns, until_ns=time.monotonic_ns(), tmax_ns=tmax)

    def _lots(self, purpose: str) -> random.Random:
        """Return what to draw from: the same for every run of a seed; by chance without one."""
        seed = None if self._seed is None else f"{self._seed} {purpose}"
        return random.Random(seed)  # noqa: S311  nothing secret is drawn

    def _served(self) -> dict[str, set[str]]:
        return self._accounts.served(self._count)

    def _client(self, place: str) -> generators.Client:
        return self._cluster.clients[self._places[place]]

    def _leave(self, started: Mapping[str, generators.Started], left: dict[str, Sent]) -> None:
        """Stop the traffic from the hit node before the trial is over, and keep what was sent."""
        left[HIT] = self._stop(HIT, started[HIT])

    def _stop(self, place: str, begun: generators.Started) -> Sent:
        udp, tcp = self._client(place).stop(begun)
        return Sent(place=place, started=begun, udp=udp, tcp=tcp)

    def _modelled(
        self, found: resultset.Measurement, stage: ClusterStage
    ) -> resultset.Measurement:
        """Return the measurement with what the cost model has to do with it."""
        if costmodel.applied() is None or stage.fault_ns is None:
            return found
        spent = costmodel.outage_modelled_ms(
            self._paid(self._places[found.node]),
            fault_ns=stage.fault_ns,
            first_good_ms=found.first_good_ms,
            failover_time_ms=found.failover_time_ms,
        )
        return dataclasses.replace(found, modelled_ms=spent)

    def _programmed(
        self, found: resultset.Measurement, stage: ClusterStage
    ) -> resultset.Measurement:
        """Return the measurement with when the kernel of its node had been told.

        That is the first sync with a slice that has changed since the fault; where none has, the
        last sync that the scenario waited for.
        """
        if stage.fault_ns is None:
            return found
        node = self._places[found.node]
        told = stage.synced_ns(node, newer_than=self._settled) or max(
            (
                mark.ns
                for mark in stage.marks
                if mark.name.startswith(scenarios.SYNCED) and mark.detail == node
            ),
            default=None,
        )
        if told is None:
            return found
        return measurement.programmed(found, round((told - stage.fault_ns) / 1e6, 3))

    def _restart_modelled_ms(self, stage: ClusterStage) -> float | None:
        gone, synced = _recovery(stage)
        begin = stage.fault_ns if gone is None else gone
        if costmodel.applied() is None or begin is None or synced is None:
            return None
        return costmodel.overlap_ms(self._paid(stage.hit), begin, synced)

    def _paid(self, node: str) -> Sequence[costmodel.Interval]:
        self._cluster.events.refresh()
        return costmodel.paid(self._cluster.events.events, node)

    def _refresh_proxy(self, stage: ClusterStage) -> None:
        """Give a crashed proxy a new pod: the old one's restarts would be backed off.

        The kubelet restarts a container at once the first time only, so without this the second
        trial of a scenario would measure the kubelet's back-off and not the proxy.
        """
        if stage.time_of(scenarios.PROCESS_GONE) is not None and not self._setup.to:
            stage.delete_proxy(stage.hit)


def _restart_ms(stage: ClusterStage) -> float | None:
    """Return the time from the end of the hit node's proxy to its successor's first sync."""
    gone, synced = _recovery(stage)
    if gone is None or synced is None:
        return None
    return round((synced - gone) / 1e6, 3)


def _recovery(stage: ClusterStage) -> tuple[int | None, int | None]:
    """Return when the hit node's proxy ended, and when that node had synced."""
    synced = next(
        (m.ns for m in stage.marks if m.name == scenarios.SYNCED and m.detail == stage.hit), None
    )
    return stage.time_of(scenarios.PROCESS_GONE), synced


def _timeline(
    stage: ClusterStage, found: list[resultset.Measurement]
) -> tuple[resultset.TimelineEvent, ...]:
    zero = stage.fault_ns
    if zero is None:
        return ()
    events = [
        resultset.TimelineEvent(
            name=mark.name, ms=round((mark.ns - zero) / 1e6, 3), detail=mark.detail
        )
        for mark in stage.marks
    ]
    for one in found:
        if one.traffic == "udp" and one.first_good_ms is not None:
            events.append(
                resultset.TimelineEvent(
                    name=FIRST_GOOD_PACKET, ms=one.first_good_ms, detail=one.node
                )
            )
    return tuple(sorted(events, key=lambda event: event.ms))
