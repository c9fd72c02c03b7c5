"""From objects to the kernel, in one IP family: trackers, then a backend. DualStack composes two.

No threads and no clock of its own but for durations: the agent says when to sync.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from kproxy import costs
from kproxy.api import core, discovery
from kproxy.backends.base import Backend, SyncResult
from kproxy.desired.build import NodeSettings, StateBuilder
from kproxy.desired.model import Family, NodePorts, Prefix, State
from kproxy.errors import InvalidObject, KernelError, Unsupported

T = TypeVar("T")
Load = Callable[[Family], Backend]
Change = tuple[T | None, T | None]
"""Before and after; None: it was or is not there."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one sync of one family came to."""

    state: State
    """What was wanted; the same object as before if nothing has changed."""
    result: SyncResult
    services: int
    """Service ports."""
    endpoints: int
    """Endpoints in use, counted for every service port."""
    duration_ns: int

    @property
    def family(self) -> Family:
        """Return the IP family."""
        return self.state.family

    @property
    def failed(self) -> bool:
        """Return whether something is still to be done (what the kernel refuses is not)."""
        return bool(self.result.failures)


class Proxier:
    """Keeps the kernel as Services and EndpointSlices want it, in one IP family.

    What notes (``on_…``) or tells (``set_…``) may be called from any thread; all else from one.
    """

    def __init__(self, settings: NodeSettings, load: Load, cost: costs.Costs = costs.FREE) -> None:
        self.family = settings.family
        self._builder = StateBuilder(settings)
        self._load = load
        self._cost = cost
        self._synced = False
        self._backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """Return the backend; made at its first use."""
        if self._backend is None:
            self._backend = self._load(self.family)
        return self._backend

    @property
    def in_use(self) -> bool:
        """Return whether the backend was ever used: whether the kernel holds anything of it."""
        return self._backend is not None

    def on_services(self, changes: Sequence[Change[core.Service]]) -> None:
        """Note changes of Services; one sync sees all of them or none."""
        self._builder.on_services(changes)

    def on_slices(self, changes: Sequence[Change[discovery.EndpointSlice]]) -> None:
        """Note changes of EndpointSlices; one sync sees all of them or none."""
        self._builder.on_slices(changes)

    def set_zone(self, zone: str) -> None:
        """Tell the zone of this node."""
        self._builder.set_zone(zone)

    def set_node_ports(self, node_ports: NodePorts) -> None:
        """Tell where node ports are served."""
        self._builder.set_node_ports(node_ports)

    def set_service_cidrs(self, cidrs: tuple[Prefix, ...]) -> None:
        """Tell the networks from which ClusterIPs come."""
        self._builder.set_service_cidrs(cidrs)

    def set_cluster_cidrs(self, cidrs: tuple[Prefix, ...]) -> None:
        """Tell the networks of pods."""
        self._builder.set_cluster_cidrs(cidrs)

    def wanted(self) -> State:
        """Return the wanted state by all that was noted."""
        return self._builder.build()

    def has_work(self) -> bool:
        """Return whether this family has Services, or networks whose unused addresses to drop."""
        state = self.wanted()
        return bool(state.services or state.service_cidrs)

    def take_problems(self) -> list[InvalidObject]:
        """Return what was found wrong in objects since the last call."""
        return self._builder.take_problems()

    def reread(self) -> None:
        """Read the kernel's state anew. Raises KernelError."""
        self.backend.reread()

    def sync(self) -> SyncReport:
        """Make the kernel hold what is wanted; what failed is in the report."""
        start = time.monotonic_ns()
        state = self.wanted()
        try:
            result = self._apply(state)
        except KernelError as error:
            result = SyncResult(writes=0, failures=(error,))
        self._synced = self._synced or not result.failures
        services, endpoints = _size(state)
        return SyncReport(
            state=state,
            result=result,
            services=services,
            endpoints=endpoints,
            duration_ns=time.monotonic_ns() - start,
        )

    def _apply(self, state: State) -> SyncResult:
        if not self._cost.modelled:
            return self.backend.sync(state)
        return self.backend.sync(state, functools.partial(self._pay, state))

    def _pay(self, state: State, writes: int) -> None:
        """Pay for a sync when it is known what it will write, before it does.

        Changes that come meanwhile wait for the next sync, as they do while a real one computes.
        """
        services, endpoints = _size(state)
        for place in costs.sync_places(
            first=not self._synced, writes=writes, objects=services + endpoints
        ):
            self._cost.pay(place, mode=self.backend.name, services=services, endpoints=endpoints)

    def find_left_over(self) -> bool:
        """Take this family in use if an earlier run left something of it; return whether it did.

        Raises KernelError.
        """
        if self._backend is not None:
            return False
        backend = self._load(self.family)
        try:
            found = backend.left_over()
        except BaseException:
            backend.close()
            raise
        if found:
            self._backend = backend
        else:
            backend.close()
        return found

    def close(self) -> None:
        """Give sockets back; the kernel keeps its rules."""
        if self._backend is not None:
            self._backend.close()


class DualStack:
    """Two proxiers as one. The second family costs nothing until a Service uses it.

    What a Service left that vanished while no proxy ran is found by :meth:`find_left_over`.
    """

    def __init__(self, proxiers: Sequence[Proxier]) -> None:
        self.proxiers = proxiers
        self._disabled: dict[Family, str] = {}
        self._told: set[Family] = set()

    def on_services(self, changes: Sequence[Change[core.Service]]) -> None:
        """Note changes of Services; one sync sees all of them or none."""
        for proxier in self.proxiers:
            proxier.on_services(changes)

    def on_slices(self, changes: Sequence[Change[discovery.EndpointSlice]]) -> None:
        """Note changes of EndpointSlices; one sync sees all of them or none."""
        for proxier in self.proxiers:
            proxier.on_slices(changes)

    def set_zone(self, zone: str) -> None:
        """Tell the zone of this node."""
        for proxier in self.proxiers:
            proxier.set_zone(zone)

    def set_node_ports(self, node_ports: Mapping[Family, NodePorts]) -> None:
        """Tell where node ports are served."""
        for proxier in self.proxiers:
            proxier.set_node_ports(node_ports[proxier.family])

    def set_service_cidrs(self, cidrs: Mapping[Family, tuple[Prefix, ...]]) -> None:
        """Tell the networks from which ClusterIPs come."""
        for proxier in self.proxiers:
            proxier.set_service_cidrs(cidrs.get(proxier.family, ()))

    def set_cluster_cidrs(self, cidrs: Mapping[Family, tuple[Prefix, ...]]) -> None:
        """Tell the networks of pods."""
        for proxier in self.proxiers:
            proxier.set_cluster_cidrs(cidrs.get(proxier.family, ()))

    def reread(self) -> None:
        """Read the kernel's state anew, in the families in use.

        Raises the first KernelError, when all have had their turn.
        """
        failures = []
        for proxier in self._needed():
            try:
                proxier.reread()
            except Unsupported as error:
                self._disable(proxier, error)
            except KernelError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def sync(self) -> list[SyncReport]:
        """Sync the families in use; a failure of one does not keep the other from its turn."""
        reports = []
        for proxier in self._needed():
            try:
                reports.append(proxier.sync())
            except Unsupported as error:
                self._disable(proxier, error)
        return reports

    def find_left_over(self) -> bool:
        """Take those families in use of which an earlier run left something; return if any.

        Raises KernelError.
        """
        found = False
        for proxier in self.proxiers:
            # A family that this kernel cannot serve has left nothing.
            with contextlib.suppress(Unsupported):
                found = proxier.find_left_over() or found
        return found

    def take_problems(self) -> list[InvalidObject]:
        """Return what was found wrong in objects since the last call."""
        return [problem for proxier in self.proxiers for problem in proxier.take_problems()]

    def close(self) -> None:
        """Give sockets back; the kernel keeps its rules."""
        for proxier in self.proxiers:
            proxier.close()

    def take_disabled(self) -> list[str]:
        """Return which families this kernel cannot serve, and why; each one once."""
        new = [family for family in self._disabled if family not in self._told]
        self._told.update(new)
        return [f"{family}: {self._disabled[family]}" for family in new]

    def _needed(self) -> list[Proxier]:
        first, *others = self.proxiers
        return [
            first,
            *(
                one
                for one in others
                if one.family not in self._disabled and (one.in_use or one.has_work())
            ),
        ]

    def _disable(self, proxier: Proxier, error: Unsupported) -> None:
        """Do without a family; without the first one there is nothing to do."""
        if proxier is self.proxiers[0]:
            raise error
        self._disabled[proxier.family] = str(error)


def _size(state: State) -> tuple[int, int]:
    """Return how many service ports there are, and endpoints in use, for every port again."""
    services = state.services.values()
    return len(services), sum(len(service.cluster or service.local) for service in services)
