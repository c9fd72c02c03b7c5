"""Kills at random for hours, while clients write and packets flow, and then looks what is lost.

Four promises are checked: everything ends as declared; no acknowledged write is lost; there was
never a pod too many; flows to backends that nobody touches lose nothing.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM

import msgspec

from kproxy import errors
from kproxy.api import catalog, kinds
from kproxy.lab import facts, generators, site
from kproxy.lab.accounts import Accounts, Sent, Window
from kproxy.lab.chain import duplicates, ledger, shop, victims, writer
from kproxy.lab.chain.settings import Parameters
from kproxy.lab.chain.steady import ROUND_S, Steady
from kproxy.lab.comparison import INTERRUPTED, TERMINATED, Step
from kproxy.lab.whole import leaders
from kproxy.lab.whole.cluster import WholeCluster
from kproxy.lab.workload import Target
from kproxy.traffic import measurement, resultset, soakset
from netns.errors import NetnsError
from netns.kernels import base
from netns.lab import Lab
from netns.process import Process

TRIAL = 1
RATES = generators.Rates(
    udp_pps=16.0, quantum_ms=0.0, connections=4, request_interval_s=5.0, connects_per_s=1.0
)
"""Little, because it is for hours: a packet/s for each of 16 flows from each vantage point."""
MEAN_S = 45.0
"""The mean time between two kills."""
LEAST_S = 2.0
SETTLE_S = 900.0
"""More than the longest back-off after a crash, and what comes after it."""
_PROGRAMS = ("writer", "history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done: ``hours`` of killing, on the cluster of ``parameters``."""

    hours: float = 2.0
    mean_s: float = MEAN_S
    parameters: Parameters = field(default_factory=Parameters)

    def check(self) -> None:
        """Raise ``UsageError`` for what cannot be; the message names the option."""
        if not 0 < self.hours <= 1000:
            raise errors.UsageError(f"--hours {self.hours:g}: use more than 0 and at most 1000")
        self.parameters.check()


def run(plan: Plan, state_dir: Path, *, progress: Callable[[Step], None]) -> soakset.SoakSet:
    """Do it all. Raises MeasurementError if the cluster does not come up."""
    plan.check()
    where = site.Site(plan.parameters.file())
    total = round(plan.hours * 3600 / plan.mean_s)
    with ExitStack() as stack:
        done = 0

        def tell(text: str) -> None:
            progress(Step(done=done, total=total, mode="random", text=text))

        tell("building the lab")
        take = plan.parameters.take_default_route
        lab = stack.enter_context(
            Lab(where.topology(), name="soak", state_dir=state_dir, take_default_route=take)
        )
        cluster = stack.enter_context(WholeCluster(lab, where, progress=tell))
        cluster.must_apply(shop.manifests(cluster.places.files))
        soak = Soak(cluster, plan, base.seed())
        Steady(cluster).settle()
        with soak.traffic():
            try:
                for victim in soak.kill_at_random():
                    done += 1
                    tell(f"{soak.elapsed_s / 3600:.2f} h: killed {victim}")
            except KeyboardInterrupt:
                soak.incomplete.append(INTERRUPTED)
            except SystemExit:
                soak.incomplete.append(TERMINATED)
            tell("waiting until everything is as declared")
            soak.settle()
        tell("judging")
        return soak.result()


class Soak:
    """One run on a cluster that has settled."""

    def __init__(self, cluster: WholeCluster, plan: Plan, seed: int | None) -> None:
        self._cluster = cluster
        self._plan = plan
        self._seed = seed
        self._lots = random.Random(seed)  # noqa: S311  nothing secret is drawn
        self._begun = time.monotonic()
        self._kills: list[soakset.Killed] = []
        self._violations: list[str] = []
        self._settled: float | None = None
        self._killed_for = 0.0
        self._found: list[resultset.Measurement] = []
        self.incomplete: list[str] = []
        """How the killing was cut short; it is judged all the same."""

    @property
    def elapsed_s(self) -> float:
        """Return how long it has been going on."""
        return time.monotonic() - self._begun

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Send all the time, write, and watch; account for the packets in the end."""
        files = self._cluster.places.files
        vantages = shop.vantages(self._cluster.site, self._cluster.site.nodes[0].name)
        numbers = {place: one.number for place, one in vantages.items()}
        accounts = Accounts(files.records, numbers, RATES.udp_pps)
        with ExitStack() as stack:
            clients: dict[str, generators.Client] = {}
            for place, vantage in vantages.items():
                clients[place] = generators.Client(self._cluster.lab, vantage, files)
                stack.callback(clients[place].quit)
            for client in clients.values():
                client.await_ready()
            targets = {place: self._targets(place) for place in clients}
            for place, vantage in vantages.items():
                for target in targets[place]:
                    if target.protocol == "TCP":
                        Steady(self._cluster).reach(vantage.host, target)
            time.sleep(ROUND_S)  # the balancer knows one node by now, and shall know all
            started = {
                place: client.start(TRIAL, targets[place], RATES, 1024)
                for place, client in clients.items()
            }
            programs = {name: self._start(name) for name in _PROGRAMS}
            self._programs = programs
            self._begun = time.monotonic()
            yield
            programs["history"].signal(SIGTERM)
            sent = []
            for place, client in clients.items():
                udp, tcp = client.stop(started[place])
                sent.append(Sent(place=place, started=started[place], udp=udp, tcp=tcp))
            tmax = self._plan.parameters.timing.tmax
            time.sleep(tmax)
            window = Window(fault_ns=None, until_ns=time.monotonic_ns(), tmax_ns=round(tmax * 1e9))
            self._found = accounts.account(TRIAL, sent, window)

    def kill_at_random(self) -> Iterator[str]:
        """Kill somebody from time to time; yield who it was."""
        end = self._begun + self._plan.hours * 3600
        while True:
            wait = max(LEAST_S, self._lots.expovariate(1 / self._plan.mean_s))
            if time.monotonic() + wait >= end:
                time.sleep(max(0.0, end - time.monotonic()))
                return
            time.sleep(wait)
            running = self._cluster.processes.all()
            victim = victims.choose(running, self._lots, members_well=self._members_well())
            if victim is None:
                continue
            self._cluster.processes.signal(victim, SIGKILL)
            killed = soakset.Killed(
                ms=round(self.elapsed_s * 1e3, 3), host=victim.host, role=str(victim.role)
            )
            self._kills.append(killed)
            yield f"{victim.role} on {victim.host}"

    def _members_well(self) -> bool:
        expected = self._cluster.site.etcd
        found = leaders.members(self._cluster.lab, self._cluster.places)
        return len(found) == len(expected) and any(one.leads for one in found)

    def settle(self) -> None:
        """Stop writing, and wait until everything is as declared."""
        since = time.monotonic()
        self._killed_for = self.elapsed_s
        self._programs["writer"].signal(SIGTERM)
        try:
            self._programs["writer"].wait(2 * writer.TIMEOUT + LEAST_S)
            Steady(self._cluster).settle(SETTLE_S)
            self._cluster.wait_for(
                lambda: not self._leftovers(), SETTLE_S, "what nobody declares to go"
            )
        except (errors.KproxyError, NetnsError) as error:
            self._violations.append(f"not as declared {SETTLE_S:g} s after the last kill: {error}")
            return
        self._settled = round((time.monotonic() - since) * 1e3, 3)

    def result(self) -> soakset.SoakSet:
        """Judge, and return everything."""
        self._cluster.events.refresh()
        events = self._cluster.events.events
        attempts = ledger.attempts(events)
        sights = duplicates.sights(events)
        self._violations += [f"lost write: {one}" for one in ledger.lost(attempts, self._values())]
        self._violations += [f"too many pods: {one}" for one in duplicates.found(sights)]
        self._violations += self._leftovers()
        for one in self._found:
            self._violations += measurement.problems(one)
        outcomes = [one.outcome for one in attempts]
        if not attempts or not sights:
            self._violations.append("the writer or the history has nothing to tell")
        return soakset.SoakSet(
            kernel=facts.kernel(),
            host=facts.host(),
            parameters={
                **msgspec.to_builtins(self._plan),
                **facts.run(),
                "incomplete": self.incomplete,
                "killed_for_s": round(self._killed_for, 3),
            },
            violations=tuple(self._violations),
            kills=tuple(self._kills),
            writes=soakset.Writes(
                acknowledged=outcomes.count(ledger.Outcome.ACKNOWLEDGED),
                refused=outcomes.count(ledger.Outcome.REFUSED),
                unknown=outcomes.count(ledger.Outcome.UNKNOWN),
            ),
            changes=len(sights),
            settled_ms=self._settled,
            measurements=tuple(self._found),
        )

    def _values(self) -> dict[str, str]:
        """Return the values of the writer's objects that exist now."""
        found = {}
        for kind in (kinds.SERVICE, catalog.DEPLOYMENT):
            for one in self._cluster.api.objects(kind, writer.NAMESPACE):
                value = writer.value_of(one)
                if value:
                    found[writer.label(kind, one["metadata"]["name"])] = value
        return found

    def _leftovers(self) -> list[str]:
        """Return the pods that nothing declares any more, in words."""
        owners = {
            one["metadata"]["uid"]
            for kind in (catalog.REPLICA_SET, catalog.DAEMON_SET)
            for one in self._cluster.api.objects(kind)
        }
        return [
            f"left over: pod {one['metadata']['name']}"
            for one in self._cluster.api.pods()
            for owner in one["metadata"].get("ownerReferences") or ()
            if owner["uid"] not in owners
        ]

    def _targets(self, place: str) -> Sequence[Target]:
        outside = place == shop.BEYOND
        name = shop.OUTSIDE_SHOP if outside else shop.SHOP
        service = self._cluster.api.get(kinds.SERVICE, shop.NAMESPACE, name)
        if service is None or (outside and not shop.balanced_address(service)):
            raise errors.MeasurementError(f"Service {name} has no address")
        return shop.targets(service, outside=outside)

    def _start(self, name: str) -> Process:
        places = self._cluster.places
        command = [sys.executable, "-m", f"kproxy.lab.chain.{name}"]
        command += [f"--kubeconfig={places.kubeconfig()}"]
        if name == "writer":
            command.append(f"--seed={self._seed or 0}")
        log = places.files.log(name)
        return self._cluster.lab.host(site.ADMIN).spawn(command, stdout=log, stderr=log)
