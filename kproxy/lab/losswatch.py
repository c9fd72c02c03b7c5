"""Watches a trial for what becomes of its packets, and explains the losses of its measurements."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any, Protocol

import numpy as np

from kproxy import errors
from kproxy.api import discovery
from kproxy.kernel import inet
from kproxy.kernel.ipvs.types import ServiceKey
from kproxy.lab import hopdrops, hoplosses, hoprequests, scenarios, workload
from kproxy.lab.hopcounts import Offered
from kproxy.lab.hoplosses import Events
from kproxy.lab.hoprequests import Service
from kproxy.lab.hops import Hops, Observed
from kproxy.traffic import attribution, measurement, records, resultset
from kproxy.traffic.accounting import Plan
from kproxy.traffic.attribution import Missing, Sighting
from kproxy.traffic.resultset import Cause
from netns.lab import AttachedLab

Array = Any
Object = Mapping[str, Any]
Pods = Mapping[str, Collection[str]]
"""The pods behind each service, as both call themselves in results."""


class Mark(Protocol):
    """Something that happened, as stages note it."""

    @property
    def name(self) -> str:
        """Return what happened."""

    @property
    def ns(self) -> int:
        """Return when, by the monotonic clock."""

    @property
    def detail(self) -> str:
        """Return to whom."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sends in a trial: ``host`` of the lab for a place of origin, past the host ``node``."""

    origin: str
    host: str
    node: str


class LossWatch:
    """Watches one trial: :meth:`begin`, :meth:`mark` at each event, :meth:`end`, the account.

    ``endpoints`` tells the pods behind each service; who else gets a packet is a wrong backend.
    """

    def __init__(
        self,
        hops: Hops,
        senders: Iterable[Sender],
        targets: Mapping[str, Sequence[workload.Target]],
        endpoints: Callable[[], Pods],
    ) -> None:
        self._hops = hops
        self._targets = targets
        self._senders = {sender.origin: sender for sender in senders}
        self._keys = {
            str(one): _key(one) for one in every(targets) if one.protocol == inet.Protocol.UDP
        }
        self._endpoints = endpoints
        self._tcp: dict[str, Sequence[records.TcpRecord]] = {}
        self._pods: dict[str, set[str]] = {}
        self._certain = True
        self._lost: list[Missing] = []
        self._strayed: list[Sighting] = []
        self._offered: list[Offered] = []
        self.mark = hops.mark

    def begin(self) -> None:
        """Look for the first time, before anything is sent."""
        self._note_endpoints()
        self._hops.begin()

    def end(self, marks: Sequence[Mark]) -> None:
        """Look for the last time, when everything has come that will come."""
        self._observed: Observed = self._hops.end()
        self._events = events(marks, {one.origin: one.node for one in self._senders.values()})
        self._note_endpoints()

    def take(
        self, origin: str, sent: Array, received: Mapping[str, Array], plan: Plan
    ) -> dict[str, Array]:
        """Take one sender's records; return what each pod received that was for it.

        To be called once for each sender, before :meth:`explain`.
        """
        arrived = {
            pod: self._sift(pod, packets, plan.services) for pod, packets in received.items()
        }
        end_ns = plan.watched_until_ns - plan.tmax_ns
        finder = attribution.Finder(origin, end_ns=end_ns, tmax_ns=plan.tmax_ns)
        finder.add(sent, arrived)
        self._lost += finder.found
        self._offer(origin, sent, plan.services)
        return arrived

    def _sift(self, pod: str, packets: Array, services: Mapping[int, str]) -> Array:
        """Return the packets of a pod's own services; note the others as strayed."""
        wrong = [
            flow
            for flow in ([] if not self._certain else np.unique(packets["flow"]).tolist())
            if pod not in self._pods.get(services.get(flow, ""), (pod,))
        ]
        astray = np.isin(packets["flow"], wrong)
        place = hoplosses.pod_host(pod)
        self._strayed += [
            Sighting(int(one["flow"]), int(one["seq"]), place, Cause.WRONG_BACKEND, _RECORDS)
            for one in packets[astray]
        ]
        return packets[~astray]

    def _offer(self, origin: str, sent: Array, services: Mapping[int, str]) -> None:
        """Note how many packets were sent to each service."""
        went = sent[sent["status"] == records.STATUS_SENT]
        flows, packets = np.unique(went["flow"], return_counts=True)
        number: dict[ServiceKey, int] = {}
        for flow, count in zip(flows.tolist(), packets.tolist(), strict=True):
            key = self._keys.get(services.get(flow, ""))
            if key is not None:
                number[key] = number.get(key, 0) + count
        node = self._senders[origin].node
        self._offered += [Offered(node, key, origin, count) for key, count in number.items()]

    def take_tcp(self, origin: str, everything: Sequence[records.TcpRecord]) -> None:
        """Take one client's records of TCP."""
        self._tcp[origin] = everything

    def explain(
        self, trial: int, found: Sequence[resultset.Measurement]
    ) -> list[resultset.Measurement]:
        """Return the measurements with their losses."""
        losses = hoplosses.losses(
            self._observed,
            self._hops.scene,
            trial=trial,
            lost=self._lost,
            events=self._events,
            strayed=self._strayed,
            offered=self._offered,
        )
        return [
            measurement.attributed(
                one, losses.get(one.node, ()) if one.tcp is None else self._requests(one)
            )
            for one in found
        ]

    def _requests(self, one: resultset.Measurement) -> tuple[resultset.Loss, ...]:
        """Return why requests or connections failed."""
        scene = self._hops.scene
        return hoprequests.losses(
            self._tcp.get(one.node, ()),
            "request" if one.traffic == "tcp-established" else "connect",
            client=self._senders[one.node].host,
            services=self._services(one.node),
            drops=[
                hoplosses.refined(one, self._observed, scene)
                for one in hopdrops.seen(self._observed.drops, scene)
            ],
            scene=scene,
            story=hoplosses.story(self._observed, scene, self._events),
            clock_ns=self._observed.clock_ns,
        )

    def _services(self, origin: str) -> dict[int, Service]:
        return {
            target.number: Service(
                IPv4Address(target.address),
                target.port,
                frozenset(map(hoplosses.pod_host, self._pods.get(str(target), ()))),
                target.node_port,
            )
            for target in self._targets[origin]
        }

    def _note_endpoints(self) -> None:
        try:
            found = self._endpoints()
        except errors.KproxyError:
            self._certain = False  # Nobody can be asked; so nobody is called a wrong one.
            return
        for service, pods in found.items():
            self._pods.setdefault(service, set()).update(pods)


_RECORDS = "its records"


def _key(target: workload.Target) -> ServiceKey:
    return ServiceKey(inet.Protocol.UDP, IPv4Address(target.address), target.port)


@contextlib.contextmanager
def watching(
    lab: AttachedLab,
    senders: Sequence[Sender],
    *,
    routers: Iterable[str],
    skip: Collection[str],
    targets: Mapping[str, Sequence[workload.Target]],
    slices: Callable[[], Iterable[Object]],
) -> Iterator[LossWatch]:
    """Watch a trial from before it begins.

    ``routers``: the hosts that pass packets on; ``skip``: those that no measured packet meets.
    ``targets``: what each place of origin sends to; ``slices`` tells their EndpointSlices.
    """
    with Hops(
        lab,
        senders={sender.host: sender.origin for sender in senders},
        routers=frozenset(routers),
        skip=skip,
    ) as hops:
        watch = LossWatch(hops, senders, targets, lambda: endpoints(slices(), every(targets)))
        watch.begin()
        yield watch


def every(targets: Mapping[str, Sequence[workload.Target]]) -> list[workload.Target]:
    """Return what is sent to from anywhere."""
    return [target for some in targets.values() for target in some]


def endpoints(slices: Iterable[Object], targets: Iterable[workload.Target]) -> Pods:
    """Return the pods behind each service port, ready or not."""
    by_service: dict[tuple[str, str], set[str]] = {}
    for piece in slices:
        namespace = piece["metadata"]["namespace"]
        service = piece["metadata"]["labels"].get(discovery.SERVICE_NAME_LABEL, "")
        by_service.setdefault((namespace, service), set()).update(
            f"{namespace}/{one['targetRef']['name']}"
            for one in piece.get("endpoints") or []
            if one.get("targetRef")
        )
    return {str(one): by_service.get((one.namespace, one.service), set()) for one in targets}


def events(marks: Sequence[Mark], nodes: Mapping[str, str]) -> Events:
    """Return what the marks of a trial tell; ``nodes``: past which one each origin sends."""
    fault = next((mark.ns for mark in marks if mark.name == scenarios.FAULT), None)
    settled = {}
    if any(mark.name == scenarios.ENDPOINT_GONE for mark in marks):
        for origin, node in nodes.items():
            synced = [
                mark.ns
                for mark in marks
                if mark.name.startswith(scenarios.SYNCED) and mark.detail == node
            ]
            if synced:
                settled[origin] = max(synced)
    return Events(fault_ns=fault, settled=settled)
