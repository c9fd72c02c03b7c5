"""One trial of a link: traffic and probes all the time, a fault in the middle, and the account."""

import contextlib
import random
import time
from collections.abc import Callable
from signal import SIGTERM

from kproxy import errors
from kproxy.api import kinds
from kproxy.lab import generators, losswatch, site
from kproxy.lab.accounts import Accounts, Sent, Window
from kproxy.lab.chain import evaluation, probes, shop
from kproxy.lab.chain.links import Link
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.chain.stage import FAULT, NOTICED, REPAIRED, ChainStage, proxies_of
from kproxy.lab.chain.steady import ROUND_S, Steady
from kproxy.lab.eventlog import Event
from kproxy.lab.losswatch import LossWatch, Sender
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.whole.roles import Role
from kproxy.lab.workload import Target
from kproxy.traffic import chainset, measurement, resultset
from netns.process import Process

JITTER_SECONDS = 1.0
"""The fault comes up to so much later: no two trials meet the same phase of everything else."""
FIRST_GOOD_PACKET = "first good packet"
_PROBES = (probes.CHANGES, probes.PODS)
_WARM_UP_NS = 1_000_000_000


class ChainTrials:
    """Breaks links of one cluster, one after the other. To be entered: starts the generators."""

    def __init__(self, cluster: WholeCluster, parameters: Parameters, seed: int | None) -> None:
        self._cluster = cluster
        self._parameters = parameters
        self._seed = seed
        self._hit = cluster.site.nodes[0].name
        self._count = 0
        self._clients: dict[str, generators.Client] = {}
        self._targets: dict[str, list[Target]] = {}
        self._steady = Steady(cluster)
        self.told: Callable[[str], None] = lambda name: None
        """Is told the name of every event, when it is marked."""

    def __enter__(self) -> "ChainTrials":
        files = self._cluster.places.files
        vantages = shop.vantages(self._cluster.site, self._hit)
        for place, vantage in vantages.items():
            self._clients[place] = generators.Client(self._cluster.lab, vantage, files)
        numbers = {place: one.number for place, one in vantages.items()}
        self._accounts = Accounts(files.records, numbers, self._parameters.rates.udp_pps)
        for client in self._clients.values():
            client.await_ready()
        for place in self._clients:
            self._targets[place] = self._find_targets(outside=place == shop.BEYOND)
        for place, vantage in vantages.items():
            for target in self._targets[place]:
                if target.protocol == "TCP":
                    self._steady.reach(vantage.host, target)
        time.sleep(ROUND_S)  # the balancer knows one node by now, and shall know all
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients.values():
            client.quit()

    def run(self, link: Link, number: int) -> chainset.LinkTrial:
        """Run one trial and account for it.

        A trial in which something did not happen in time is returned too, with that problem.
        """
        self._count += 1
        stage = ChainStage(self._cluster, self._hit, self._parameters.timing.hand)
        self._steady.settle()
        if link.prepare is not None:
            link.prepare(stage)
            self._steady.settle()
        with self._watching() as watch:

            def marked() -> None:
                watch.mark()
                self.told(stage.marks[-1].name)

            stage.on_mark = marked
            return self._run(link, number, stage, watch)

    def _run(
        self, link: Link, number: int, stage: ChainStage, losses: LossWatch
    ) -> chainset.LinkTrial:
        lots = random.Random(None if self._seed is None else f"{self._seed} {link.name} {number}")  # noqa: S311  nothing secret is drawn
        started = self._start(link, lots)
        running = [self._probe(name) for name in _PROBES]
        since = time.monotonic_ns() + _WARM_UP_NS
        time.sleep(self._parameters.timing.before + lots.uniform(0, JITTER_SECONDS))
        problems = self._break(link, stage)
        for process in running:
            process.signal(SIGTERM)
        stopped = time.monotonic_ns()
        sent = [self._stop(place, begun) for place, begun in started.items()]
        time.sleep(self._parameters.timing.tmax)
        window = Window(
            fault_ns=stage.fault_ns,
            until_ns=time.monotonic_ns(),
            tmax_ns=round(self._parameters.timing.tmax * 1e9),
        )
        losses.end(stage.marks)
        found = self._accounts.account(self._count, sent, window, losses)
        problems += [text for one in found for text in measurement.problems(one)]
        watch = evaluation.Watch(since_ns=since, until_ns=stopped, fault_ns=stage.fault_ns)
        return self._trial(link, number, stage, watch, found, problems)

    def _watching(self) -> contextlib.AbstractContextManager[LossWatch]:
        """Watch where packets are lost."""
        cluster, place = self._cluster, self._cluster.site
        return losswatch.watching(
            cluster.lab,
            [
                Sender(origin=name, host=client.vantage.host, node=client.vantage.gateway)
                for name, client in self._clients.items()
            ],
            routers=[site.EDGE, *(node.name for node in place.nodes)],
            skip=(site.ADMIN, *place.control, *place.etcd),
            targets=self._targets,
            slices=lambda: cluster.api.objects(kinds.ENDPOINT_SLICE, shop.NAMESPACE),
        )

    def _break(self, link: Link, stage: ChainStage) -> list[str]:
        """Do it, and wait until everything goes on again; return what went wrong, in words."""
        timing = self._parameters.timing
        try:
            link.run(stage)
            alive = [node for node in stage.nodes if node not in stage.lost_nodes]
            self._steady.await_all(alive, timing.again)
        except errors.KproxyError as error:
            return [str(error)]
        finally:
            time.sleep(timing.after)
        return []

    def _find_targets(self, *, outside: bool) -> list[Target]:
        name = shop.OUTSIDE_SHOP if outside else shop.SHOP
        found: list[Target] = []

        def there() -> bool:
            service = self._cluster.api.get(kinds.SERVICE, shop.NAMESPACE, name)
            if service is not None and (not outside or shop.balanced_address(service)):
                found[:] = shop.targets(service, outside=outside)
            return bool(found)

        self._cluster.wait_for(there, self._parameters.timing.again, f"an address of {name}")
        return found

    def _start(self, link: Link, lots: random.Random) -> dict[str, generators.Started]:
        rates = self._parameters.rates
        connects = rates.connects_per_s
        if link.connects_per_s is not None:
            connects = link.connects_per_s / len(self._clients)
        told = generators.Rates(
            udp_pps=rates.udp_pps,
            quantum_ms=rates.quantum_ms,
            connections=rates.connections,
            request_interval_s=rates.request_interval_s,
            connects_per_s=connects,
        )
        base = lots.randrange(generators.SOURCE_PORTS)
        return {
            place: client.start(
                self._count,
                self._targets[place],
                told,
                generators.first_port(base, self._count, len(self._targets[place])),
            )
            for place, client in self._clients.items()
        }

    def _stop(self, place: str, begun: generators.Started) -> Sent:
        udp, tcp = self._clients[place].stop(begun)
        return Sent(place=place, started=begun, udp=udp, tcp=tcp)

    def _probe(self, name: str) -> Process:
        places = self._cluster.places
        log = places.files.log(name)
        command = probes.command(name, places.kubeconfig())
        return self._cluster.lab.host(site.ADMIN).spawn(command, stdout=log, stderr=log)

    def _trial(
        self,
        link: Link,
        number: int,
        stage: ChainStage,
        watch: evaluation.Watch,
        found: list[resultset.Measurement],
        problems: list[str],
    ) -> chainset.LinkTrial:
        self._cluster.events.refresh()
        events = self._cluster.events.events
        writes = [_write(event) for event in events if event.msg == probes.CHANGE]
        if not writes:
            problems.append("nothing was changed")
        changes, pods = [], []
        for node in stage.nodes:
            if node not in stage.lost_nodes:
                pause = evaluation.changes(writes, _syncs(events, node), watch)
                changes.append(chainset.NodePause(node=_place(stage, node), pause=pause))
                pause = evaluation.gaps(_made(events, node), watch)
                pods.append(chainset.NodePause(node=_place(stage, node), pause=pause))
        fault, noticed, repaired = (stage.time_of(one) for one in (FAULT, NOTICED, REPAIRED))
        return chainset.LinkTrial(
            link=link.name,
            number=number,
            timeline=_timeline(stage, found),
            detect_ms=_after(fault, noticed),
            repair_ms=_after(fault, repaired),
            measurements=tuple(found),
            changes=tuple(changes),
            writes=evaluation.stalls(writes, watch),
            pods=tuple(pods),
            notes=tuple(stage.notes),
            problems=tuple(problems),
            watched=stage.watched,
        )


def _place(stage: ChainStage, node: str) -> str:
    """Return what a node is called in results: the hit one, the other one, or by its name."""
    if node == stage.hit:
        return shop.HIT
    return shop.OTHER if node == stage.nodes[1] else node


def _after(fault: int | None, then: int | None) -> float | None:
    return None if fault is None or then is None else round((then - fault) / 1e6, 3)


def _write(event: Event) -> evaluation.Write:
    version = event.fields.get("version")
    return evaluation.Write(
        begun_ns=int(event.fields["begun_ns"]),
        ended_ns=event.mono_ns,
        version=int(version) if version is not None else None,
    )


def _syncs(events: list[Event], node: str) -> list[evaluation.Sync]:
    sources = proxies_of(events, node)
    return [
        evaluation.Sync(
            ns=event.mono_ns, version=int(event.fields["versions"].get("endpointslices") or 0)
        )
        for event in events
        if event.msg == "synced" and event.source in sources
    ]


def _made(events: list[Event], node: str) -> list[int]:
    return [
        event.mono_ns
        for event in events
        if event.msg == "container started"
        and event.source == f"{node}-{Role.KUBELET}"
        and event.fields.get("container") == probes.PODS
    ]


def _timeline(
    stage: ChainStage, found: list[resultset.Measurement]
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
    events += [
        resultset.TimelineEvent(name=FIRST_GOOD_PACKET, ms=one.first_good_ms, detail=one.node)
        for one in found
        if one.traffic == "udp" and one.first_good_ms is not None
    ]
    return tuple(sorted(events, key=lambda event: event.ms))
